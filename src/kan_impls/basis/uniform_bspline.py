"""B-splines on equally spaced knots: copies of one bell, a step apart.

With v the distance from the bell's centre in steps, h = (p + 1) / 2 its half width and (.)+ the
positive part, the bell of order p is `sum_j (-1)^j C(p+1, j) (h - j - |v|)+^p / p!`. The powers
are of distances inside the support, not from the end of the grid: what cancels is a few times
the result, at any grid size.

Paper: Schoenberg, *Contributions to the problem of approximation of equidistant data* (1946).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kan_impls.basis.block import Block, add_slopes
from kan_impls.basis.bspline import BSplineBasis


@dataclass(frozen=True)
class UniformBSplineBasis:
    """`num_basis` B-splines of `spline_order` over equally spaced knots.

    Domain: the functions sum to 1 between the knots `spline_order` and `num_basis`, decay
    towards the outermost knots, and are 0 beyond them.

    Args:
        num_basis: number of splines.
        spline_order: degree of the pieces, 1 or more.
        first_knot: the first of `num_basis + spline_order + 1` knots.
        step: distance between two of them.
    """

    num_basis: int
    spline_order: int
    first_knot: float
    step: float

    @property
    def elements_per_input(self) -> int:
        # The distance and a power's base and value; values and slopes; position, cell and
        # fraction in float64 and float32.
        return 5 * self.num_basis + 12

    def of_inputs(self, inputs: slice) -> UniformBSplineBasis:
        return self

    def value(self, x: Tensor) -> Tensor:
        """Values at x: shape `(..., in_features)` to `(..., in_features, num_basis)`."""
        index = torch.arange(
            self.num_basis + self.spline_order + 1, device=x.device, dtype=torch.float64
        )
        knots = (self.first_knot + index * self.step).to(x.dtype)
        spline = BSplineBasis(self.num_basis - self.spline_order, self.spline_order)
        return spline.value(x, knots.unsqueeze(0))

    def blocks(self, x: Tensor, with_slopes: bool = False) -> Iterator[Block]:
        """Yield all functions at once, shape `(num_basis, *x.shape)`."""
        # Cell and fraction, split in float64, give the distance all digits of a float32.
        position = (x.double() - self.first_knot) / self.step
        cell = position.floor()
        fraction = (position - cell).to(x.dtype)
        half_width = (self.spline_order + 1) / 2
        centres = torch.arange(self.num_basis, device=x.device, dtype=x.dtype) + half_width
        distance = (cell.to(x.dtype) - centres.view(-1, *(1,) * x.ndim)).add_(fraction)
        yield Block(slice(0, self.num_basis), *self._bells(distance, with_slopes))

    def _bells(self, distance: Tensor, with_slopes: bool) -> tuple[Tensor, Tensor | None]:
        """The bell, and its slope divided by `_slope_scale`, at distances in steps."""
        order = self.spline_order
        # Bases of powers are scaled so that no division by order! remains.
        scale = self._base_scale
        base = torch.rsub(distance.abs(), scale * (order + 1) / 2, alpha=scale).relu_()
        values = base.pow(order)
        slopes = _slope_power(base, order) if with_slopes else None
        for j in range(1, order // 2 + 1):
            base = F.softshrink(base, scale)  # (base - scale)+, since base >= 0
            coefficient = (-1) ** j * math.comb(order + 1, j)
            values.add_(base.pow(order), alpha=coefficient)
            if slopes is not None:
                slopes.add_(_slope_power(base, order), alpha=coefficient)
        return values, None if slopes is None else slopes.copysign_(distance)

    @property
    def _base_scale(self) -> float:
        return math.factorial(self.spline_order) ** (-1 / self.spline_order)

    @property
    def _slope_scale(self) -> float:
        """From the signed sum of powers one lower to the derivative with respect to x."""
        order = self.spline_order
        return -1 / (math.factorial(order - 1) * self._base_scale ** (order - 1) * self.step)

    def add_input_grad(self, grad_x: Tensor, block: Block, slots: slice, grad_phi: Tensor) -> None:
        add_slopes(grad_x, block, slots, grad_phi, self._slope_scale)


def _slope_power(base: Tensor, order: int) -> Tensor:
    # sign: base**0 inside the support only.
    return base.pow(order - 1) if order > 1 else base.sign()
