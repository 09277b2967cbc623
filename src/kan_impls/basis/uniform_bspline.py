"""B-splines on equally spaced knots: copies of one bell, a step apart.

With v the distance from the bell's centre in steps, h = (p + 1) / 2 its half width and (.)+ the
positive part, the bell of order p is `sum_j (-1)^j C(p+1, j) (h - j - |v|)+^p / p!`. The powers
are of distances inside the support, not from the end of the grid: what cancels is a few times
the result, at any grid size.

Paper: Schoenberg, *Contributions to the problem of approximation of equidistant data* (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch, add_slopes, register
from kan_impls.basis.bspline import BSplineBasis, order_obstacle


@register
@dataclass(frozen=True)
class UniformBSplineBasis(Basis):
    """`num_basis` B-splines of `spline_order` over equally spaced knots.

    Domain: the functions sum to 1 between the knots `spline_order` and `num_basis`, decay
    towards the outermost knots, and are 0 beyond them.

    Args:
        num_basis: number of splines.
        spline_order: degree of the pieces, 1 or more.
        first_knot: the first of `num_basis + spline_order + 1` knots.
        last_knot: the last of them.
    """

    num_basis: int
    spline_order: int
    first_knot: float
    last_knot: float

    standard = tuple(
        (
            {
                "num_basis": size + order,
                "spline_order": order,
                "first_knot": -1.0,
                "last_knot": 1.0,
            },
            True,
            True,
        )
        for size, order in ((5, 3), (8, 2), (3, 1))
    )

    @classmethod
    def over(
        cls, low: float, high: float, grid_size: int, spline_order: int
    ) -> UniformBSplineBasis:
        """The splines of `grid_size` intervals between low and high."""
        beyond = spline_order * (high - low) / grid_size
        return cls(grid_size + spline_order, spline_order, low - beyond, high + beyond)

    @property
    def step(self) -> float:
        """Distance between two knots."""
        return (self.last_knot - self.first_knot) / (self.num_basis + self.spline_order)

    @property
    def cuda(self) -> str:
        return f"BSpline<{self.num_basis - self.spline_order}, {self.spline_order}>"

    @property
    def constants(self) -> tuple[float, ...]:
        """The middle of the knots, and how many there are in a unit."""
        intervals = self.num_basis + self.spline_order
        width = self.last_knot - self.first_knot
        return (self.first_knot + self.last_knot) / 2, intervals / width

    @property
    def domain(self) -> tuple[float, float]:
        return self.first_knot - self.step, self.last_knot + self.step

    @property
    def obstacle(self) -> str | None:
        return order_obstacle(self.spline_order)

    def elements_held(self, with_slopes: bool) -> int:
        # The buffers of `evaluate`, and a sum over them; position and cell in float64, and as they
        # are used.
        return (4 if with_slopes else 3) * self.num_basis + 9

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Values at x: shape `(..., in_features)` to `(..., in_features, num_basis)`."""
        index = torch.arange(
            self.num_basis + self.spline_order + 1, device=x.device, dtype=torch.float64
        )
        knots = self.first_knot + index * self.step
        spline = BSplineBasis(self.num_basis - self.spline_order, self.spline_order)
        # As in `prepare`: in the dtype of x, far from zero or in a fine grid, digits would be lost.
        return spline.value(x.double(), knots.unsqueeze(0)).to(x.dtype)

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        """The cell of x, counted from the first knot, and the fraction in it."""
        # Split in float64, they give distances all digits of a float32.
        position = (x.double() - self.first_knot).div_(self.step)
        cell = position.floor()
        return cell.to(x.dtype), position.sub_(cell).to(x.dtype)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        cell, fraction = prepared
        buffers = scratch.empty(cell, (4 if with_slopes else 3, *values.shape))
        distance, base, power, *slopes = buffers.unbind()
        half_width = (self.spline_order + 1) / 2
        centres = torch.arange(
            half_width, self.num_basis + half_width - 0.5, device=cell.device, dtype=cell.dtype
        )
        torch.sub(cell, centres.view(-1, 1, 1), out=distance).add_(fraction)
        # Bases of powers are scaled so that no division by order! remains.
        scale = self._base_scale
        torch.abs(distance, out=base).mul_(-scale).add_(scale * half_width).relu_()
        sums = [(values, self.spline_order), *((own, self.spline_order - 1) for own in slopes)]
        for total, exponent in sums:
            if exponent:
                torch.pow(base, exponent, out=total)
            else:  # the slope of order 1: half-open, so that each knot belongs to one cell
                total.copy_((distance >= -half_width) & (distance < half_width))
        for j in range(1, self.spline_order // 2 + 1):
            base.sub_(scale).relu_()
            for total, exponent in sums:
                coefficient = (-1) ** j * math.comb(self.spline_order + 1, j)
                total.add_(torch.pow(base, exponent, out=power), alpha=coefficient)
        return slopes[0].copysign_(distance) if slopes else None

    @property
    def _base_scale(self) -> float:
        return math.factorial(self.spline_order) ** (-1 / self.spline_order)

    @property
    def _slope_scale(self) -> float:
        """From the signed sum of powers one lower to the derivative with respect to x."""
        order = self.spline_order
        return -1 / (math.factorial(order - 1) * self._base_scale ** (order - 1) * self.step)

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi, self._slope_scale)
