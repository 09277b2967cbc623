"""B-splines on a grid that extends `spline_order` knots beyond its range on either side.

Paper: de Boor, *A Practical Guide to Splines* (1978), chapter IX; as the basis of
Kolmogorov-Arnold networks: arXiv 2404.19756.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.banded import least_norm_operator
from kan_impls.basis.base import Basis, Scratch, add_slopes, in_columns, register


@register
@dataclass(frozen=True)
class BSplineBasis(Basis):
    """The `grid_size + spline_order` B-splines over `grid_size` intervals.

    Domain: the functions sum to 1 on the grid's range, decay between the range's end
    and the last extended knot, and are 0 beyond it.

    Knots are tensors of shape `(in_features, grid_size + 2 * spline_order + 1)`, each
    row non-decreasing: every input feature has its own.
    """

    grid_size: int
    spline_order: int

    params = ("knots",)

    @property
    def num_basis(self) -> int:
        return self.grid_size + self.spline_order

    @property
    def param_sizes(self) -> tuple[int, ...]:
        return (self.num_basis + self.spline_order + 1,)

    @property
    def cuda(self) -> str:
        raise NotImplementedError(self.obstacle)

    @property
    def obstacle(self) -> str:
        return order_obstacle(self.spline_order) or (
            "the knots are not equally spaced or not the same for all inputs, as after "
            "update_grid, far from zero for their spacing, or rounded to 16 bits, and the fused "
            "kernels know only equally spaced ones: take backend='auto' or 'product', shift and "
            "scale the inputs, or for 16 bits torch.autocast"
        )

    def elements_held(self, with_slopes: bool) -> int:
        # The buffers of `evaluate`, what is true of the knots, and x between the knots.
        return 5 * (self.num_basis + self.spline_order + 1) + 1

    def uniform_knots(self, grid_range: tuple[float, float]) -> Tensor:
        """Equally spaced knots of one feature, shape `(grid_size + 2 * spline_order + 1,)`,
        float64."""
        low, high = grid_range
        order = self.spline_order
        index = torch.arange(-order, self.grid_size + order + 1, device="cpu")
        return low + index.double() * ((high - low) / self.grid_size)

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Values at x by the Cox-de Boor recurrence.

        Args:
            x: shape `(..., in_features)`.
            params: the knots of each feature.

        Returns:
            Shape `(..., in_features, num_basis)`.
        """
        knots = params[0].to(x.dtype)
        x = x.unsqueeze(-1)
        phi = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        # Where all of phi is 0 the factors shall be finite, however far x is: in the backward
        # pass they multiply each other, and an infinite one times 0 would be NaN.
        x = x.clamp(knots[:, :1], knots[:, -1:])
        for order in range(1, self.spline_order + 1):
            start, end = knots[:, : -(order + 1)], knots[:, order + 1 :]
            rising = (x - start) * _reciprocal(knots[:, order:-1] - start)
            falling = (end - x) * _reciprocal(end - knots[:, 1:-order])
            phi = rising * phi[..., :-1] + falling * phi[..., 1:]
        return phi

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        """`Basis.evaluate` by the recurrence of `value`, on distances from the knots that are taken
        once. The slopes are differences of the splines of one order less, each over its support,
        times the order.
        """
        (x,) = prepared
        order = self.spline_order
        knots = in_columns(params[0], x)
        count = knots.shape[0]
        distance, phi, other, slopes = scratch.empty(x, (4, count, *x.shape)).unbind()
        # Finite distances, as in the recurrence; x below all knots stays below.
        below = knots[0].nextafter(torch.full_like(knots[0], -torch.inf))
        torch.sub(x.clamp(below, knots[-1]), knots, out=distance)
        reached = distance >= 0
        phi[:-1] = reached[:-1] != reached[1:]
        for degree in range(1, order + 1):
            size = count - 1 - degree
            support = knots[degree:] - knots[:-degree]
            scaled = phi[: size + 1].mul_(_reciprocal(support))
            if degree == order and with_slopes:
                torch.sub(scaled[:-1], scaled[1:], out=slopes[:size])
            out = values if degree == order else other[:size]
            torch.mul(distance[:size], scaled[:-1], out=out)
            out.addcmul_(distance[degree + 1 :], scaled[1:], value=-1)
            phi, other = other, phi
        return slopes[: self.num_basis] if with_slopes else None

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi, self.spline_order)

    def interpolation_operator(self, knots: Tensor) -> Tensor:
        """The matrix from a function's values at the knots of the range to the coefficients of
        least norm that interpolate them.

        There are `grid_size + 1` such knots, simple ones, with `spline_order` splines at each, and
        so the equations are banded and independent: no dense decomposition is needed.

        Args:
            knots: the knots of one feature, shape `(grid_size + 2 * spline_order + 1,)`.

        Returns:
            Shape `(num_basis, grid_size + 1)`, float64.
        """
        order, knots = self.spline_order, knots.double()
        phi = self.value(knots[order:-order, None], knots[None])[:, 0]
        return least_norm_operator(phi, order)

    def fit_operator(self, samples: Tensor, knots: Tensor) -> Tensor:
        """The matrix from a function's values at `samples` to its least-squares coefficients.

        It gives the solution of minimum norm where the samples leave coefficients
        undetermined.

        Args:
            samples: shape `(num_samples, in_features)`.
            knots: the knots of each feature.

        Returns:
            Shape `(in_features, num_basis, num_samples)`, float64.
        """
        phi = self.value(samples.double(), knots.double())
        return torch.linalg.pinv(phi.transpose(0, 1))


MAX_KERNEL_ORDER = 3


def order_obstacle(spline_order: int) -> str | None:
    """Why the CUDA kernels cannot compute splines of this order."""
    if spline_order <= MAX_KERNEL_ORDER:
        return None
    return (
        f"spline_order is {spline_order}, and the fused kernels know 1 to {MAX_KERNEL_ORDER}: "
        "take backend='auto' or 'product'"
    )


def _reciprocal(width: Tensor) -> Tensor:
    # Cox and de Boor's convention 0/0 = 0: an interval between repeated knots, which
    # repeated samples make in a grid update, carries no spline instead of a NaN. Nor does one
    # so narrow that its reciprocal would be infinite.
    return torch.where(width >= torch.finfo(width.dtype).tiny, width, torch.inf).reciprocal()
