"""Polynomials of tanh(x) by a recurrence of three terms: what those of one family share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch, add_slopes, in_columns
from kan_impls.basis.hyperbolic import tanh_sech


class Step(NamedTuple):
    """`P_k = (scale t + shift) P_(k-1) - back P_(k-2)`; a trained `back` is one for each input."""

    scale: float
    shift: float
    back: float | Tensor


class RecurrentBasis(Basis):
    """The polynomials of degree 0 to `degree` of t = tanh(x), from `P_0 = 1` on.

    Domain: all real numbers; all functions have limits at infinity.
    """

    degree: int

    # Near the ends of [-1, 1] an error grows with the square of the degree; up to here the kernels
    # are as exact as their accurate mode promises.
    max_kernel_degree: ClassVar[int] = 9

    @abstractmethod
    def steps(self, *params: Tensor) -> Sequence[Step]:
        """To the polynomials of degree 1 to `degree`.

        Args:
            params: with their numbers first, in shapes `(size, ...)` that broadcast with x.
        """

    @property
    def num_basis(self) -> int:
        return self.degree + 1

    @property
    def obstacle(self) -> str | None:
        if self.degree <= self.max_kernel_degree:
            return None
        return (
            f"the degree is {self.degree}, and the fused kernels are exact enough up to "
            f"{self.max_kernel_degree}: take backend='auto' or 'product', or a lower degree"
        )

    def elements_held(self, with_slopes: bool) -> int:
        # tanh and its derivative, a factor, and one on its way; the slopes, and their sum.
        return 4 + with_slopes * (self.num_basis + 1)

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Values at x: shape `(..., in_features)` to `(..., in_features, num_basis)`."""
        t, _ = tanh_sech(x)
        values = [torch.ones_like(t)]
        for scale, shift, back in self.steps(*(param.to(x.dtype).t() for param in params)):
            following = (scale * t + shift) * values[-1]
            values.append(following - back * values[-2] if len(values) > 1 else following)
        return torch.stack(values, -1)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        (x,) = prepared
        t = x.tanh()
        values[0] = 1
        results = [values]
        if with_slopes:
            slopes = scratch.empty(x, values.shape)
            slopes[0] = 0
            results.append(slopes)
        steps = self.steps(*(in_columns(param, x) for param in params))
        for k, (scale, shift, back) in enumerate(steps, start=1):
            factor = t.mul(scale).add_(shift)
            for result in results:
                torch.mul(result[k - 1], factor, out=result[k])
                if k > 1:
                    _subtract(result[k], result[k - 2], back)
            if with_slopes:
                slopes[k].add_(values[k - 1], alpha=scale)
        if not with_slopes:
            return None
        return slopes.mul_(x.cosh().reciprocal_().square_())

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi)


def _subtract(total: Tensor, value: Tensor, factor: float | Tensor) -> None:
    if isinstance(factor, Tensor):
        total.addcmul_(value, factor, value=-1)
    else:
        total.sub_(value, alpha=factor)
