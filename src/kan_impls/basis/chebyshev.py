"""Chebyshev polynomials of the first kind of tanh(x): T_0, T_1, ..., T_D.

With the angle a whose cosine is tanh(x), and whose sine is sech(x), T_k is cos(k a) and its
derivative by x is k sin(k a) sech(x). Both come by rotation, without the arc cosine, whose
derivative is infinite where tanh(x) rounds to 1.

Source: NIST DLMF, section 18.5(i). Published layer: https://github.com/SynodicMonth/ChebyKAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch, add_slopes, register
from kan_impls.basis.hyperbolic import tanh_sech

# The error of a float32 angle grows with the degree; up to here the kernels are as exact as their
# accurate mode promises.
MAX_KERNEL_DEGREE = 16


@register
@dataclass(frozen=True)
class ChebyshevBasis(Basis):
    """The polynomials of degree 0 to `degree`. Domain: all real numbers; all of them have limits
    at infinity, 1 or -1."""

    degree: int

    standard = (({"degree": 9}, False, False),)

    @property
    def num_basis(self) -> int:
        return self.degree + 1

    @property
    def cuda(self) -> str:
        return f"Chebyshev<{self.degree}>"

    @property
    def obstacle(self) -> str | None:
        if self.degree <= MAX_KERNEL_DEGREE:
            return None
        return (
            f"the degree is {self.degree}, and the fused kernels are exact enough up to "
            f"{MAX_KERNEL_DEGREE}: take backend='auto' or 'product', or a lower degree"
        )

    def elements_held(self, with_slopes: bool) -> int:
        # The cosine and the sine of the angle, one on the way to it, and those of its multiples.
        return 4 + (self.num_basis if with_slopes else 1)

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Values at x: shape `(..., in_features)` to `(..., in_features, num_basis)`."""
        cos_1, sin_1 = tanh_sech(x)
        cos, sin = torch.ones_like(x), torch.zeros_like(x)
        values = [cos]
        for _ in range(self.degree):
            cos, sin = cos * cos_1 - sin * sin_1, sin * cos_1 + cos * sin_1
            values.append(cos)
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
        cos_1, sin_1 = x.tanh(), x.cosh().reciprocal_()
        sines = scratch.empty(x, (self.num_basis if with_slopes else 1, *x.shape))
        values[0] = 1
        sin = sines[0].zero_()
        for k, cos in enumerate(values[:-1], start=1):
            torch.mul(cos, cos_1, out=values[k]).addcmul_(sin, sin_1, value=-1)
            sin = torch.mul(sin, cos_1, out=sines[k if with_slopes else 0]).addcmul_(cos, sin_1)
        if not with_slopes:
            return None
        degrees = torch.arange(self.num_basis, device=x.device, dtype=x.dtype)
        return sines.mul_(degrees.view(-1, 1, 1)).mul_(sin_1)

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi)
