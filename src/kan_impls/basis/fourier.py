"""The Fourier basis: cos(x), sin(x), cos(2x), sin(2x), ..., cos(Gx), sin(Gx).

Source: GistNoesis/FourierKAN, https://github.com/GistNoesis/FourierKAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch, register

# The rounding of exp(ix) is amplified k times in its k-th power; beyond the eighth, powers
# start again from the exact angle, which keeps the float32 error below 1e-6 at every k.
MAX_POWER = 8


@register
@dataclass(frozen=True)
class FourierBasis(Basis):
    """The cosine and the sine of `grid_size` harmonics, harmonic by harmonic.

    Domain: all real numbers; every function has period 2 pi.
    """

    grid_size: int

    standard = (({"grid_size": 5}, False, False), ({"grid_size": 300}, False, False))

    @property
    def cuda(self) -> str:
        return f"Fourier<{self.grid_size}>"

    @property
    def num_basis(self) -> int:
        return 2 * self.grid_size

    def elements_held(self, with_slopes: bool) -> int:
        # A turn in float64 and as it is used; for the gradient half of the values, and a sum.
        turn = 11 if self.grid_size > MAX_POWER else 0
        return max(turn, self.grid_size + 2) if with_slopes else turn

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Values at x: shape `(..., in_features)` to `(..., in_features, num_basis)`."""
        # In the dtype of x an angle would be wrong by as many roundings as it has radians.
        angle = x.double().unsqueeze(-1) * self._harmonics(x)
        return torch.stack((angle.cos(), angle.sin()), dim=-1).to(x.dtype).flatten(-2)

    def _harmonics(self, x: Tensor) -> Tensor:
        return torch.arange(1, self.grid_size + 1, device=x.device, dtype=x.dtype)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        """`Basis.evaluate`; the slopes are the values themselves, times k and in another order.

        exp(ikx) is the k-th power of exp(ix). Powers of up to `MAX_POWER` take products of those
        that are known, twice as many with each; those beyond take these times the exact power.
        """
        (x,) = prepared
        cos, sin = values[0::2], values[1::2]
        torch.cos(x, out=cos[0])
        torch.sin(x, out=sin[0])
        known, powers = 1, min(self.grid_size, MAX_POWER)
        while known < powers:
            turn = cos[known - 1], sin[known - 1]
            known += _turn(cos, sin, turn, known, min(known, powers - known))
        for first in range(powers, self.grid_size, powers):
            angle = x.double() * first  # exact for float32 x and k < 2**29
            turn = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
            _turn(cos, sin, turn, first, min(powers, self.grid_size - first))
        return None

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        # cos(kx)' = -k sin(kx), sin(kx)' = k cos(kx)
        k = self._harmonics(grad_x).view(-1, 1, 1)
        own = torch.mul(values[0::2], grad_phi[1::2])
        own.addcmul_(values[1::2], grad_phi[0::2], value=-1)
        grad_x.add_(own.mul_(k).sum(0))


def _turn(cos: Tensor, sin: Tensor, turn: Sequence[Tensor], first: int, count: int) -> int:
    """The first `count` powers times another one, written from `first` on; returns their number."""
    (c, s), out = turn, slice(first, first + count)
    torch.mul(cos[:count], c, out=cos[out]).addcmul_(sin[:count], s, value=-1)
    torch.mul(cos[:count], s, out=sin[out]).addcmul_(sin[:count], c)
    return count


def initial_coefficients(
    in_features: int,
    out_features: int,
    grid_size: int,
    smooth_initialization: bool,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Random coefficients of the cosines and the sines, as GistNoesis/FourierKAN draws them.

    Normal with standard deviation `1 / sqrt(in_features * grid_size)`; with
    `smooth_initialization`, `1 / (sqrt(in_features) * k**2)` at harmonic k, so that the
    initial functions do not get rougher with the grid.

    Returns:
        Shape `(2, out_features, in_features, grid_size)`.
    """
    coefficients = torch.randn(
        2, out_features, in_features, grid_size, device=device, dtype=dtype
    ).div_(in_features**0.5)
    if not smooth_initialization:
        return coefficients.div_(grid_size**0.5)
    return coefficients.div_(torch.arange(1, grid_size + 1, device=device).square())
