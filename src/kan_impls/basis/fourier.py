"""The Fourier basis: cos(x), sin(x), cos(2x), sin(2x), ..., cos(Gx), sin(Gx).

Source: GistNoesis/FourierKAN, https://github.com/GistNoesis/FourierKAN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Block, Scratch, register

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

    @property
    def elements_per_input(self) -> int:
        # The powers, and the block where it is another; ten for the angle, cosine and sine of
        # exact powers in float64.
        return (1 + (self.num_basis > self.block_size)) * self.block_size + 10

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Values at x: shape `(..., in_features)` to `(..., in_features, num_basis)`."""
        angle = x.unsqueeze(-1) * self._harmonics(x)
        return torch.stack((angle.cos(), angle.sin()), dim=-1).flatten(-2)

    def derivative(self, x: Tensor) -> Tensor:
        """Derivatives at x, in the order and shape of `value`."""
        k = self._harmonics(x)
        angle = x.unsqueeze(-1) * k
        return torch.stack((-k * angle.sin(), k * angle.cos()), dim=-1).flatten(-2)

    def _harmonics(self, x: Tensor) -> Tensor:
        return torch.arange(1, self.grid_size + 1, device=x.device, dtype=x.dtype)

    @property
    def block_size(self) -> int:
        """Number of functions in a block of `blocks`."""
        return 2 * min(self.grid_size, MAX_POWER)

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,)

    def blocks(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Iterator[Block]:
        """Yield the values at x, some consecutive functions at a time, in buffers that are reused.

        The slopes are the values themselves, times k and in another order.

        exp(ikx) is the k-th power of exp(ix), and a block of powers takes squares (of the
        powers half as high) and products by exp(ix) instead of a cosine and a sine each.
        """
        (x,) = prepared
        harmonics = self.block_size // 2
        powers = x.new_empty((2 * harmonics, *x.shape))
        cos, sin = _parts(powers)
        torch.cos(x, out=cos[0])
        torch.sin(x, out=sin[0])
        for k in range(2, harmonics + 1):  # the k-th power is at k - 1
            i, half = k - 1, k // 2 - 1
            if k % 2:
                _multiply(cos[i - 1], sin[i - 1], cos[0], sin[0], out=(cos[i], sin[i]))
            else:
                _multiply(cos[half], sin[half], cos[half], sin[half], out=(cos[i], sin[i]))

        block = torch.empty_like(powers) if self.grid_size > harmonics else powers
        for first in range(0, self.grid_size, harmonics):
            size = min(harmonics, self.grid_size - first)
            if first:
                angle = x.double() * first  # exact for float32 x and k < 2**29
                turn = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
                for c, s, *out in zip(cos, sin, *_parts(block[: 2 * size]), strict=False):
                    _multiply(c, s, *turn, out=out)
            values = block if first else powers
            yield Block(slice(2 * first, 2 * (first + size)), values[: 2 * size])

    def add_input_grad(self, grad_x: Tensor, block: Block, slots: slice, grad_phi: Tensor) -> None:
        for slot, own in enumerate(grad_phi, slots.start):
            function = block.functions.start + slot
            k = function // 2 + 1
            if function % 2:  # sin(kx)' = k cos(kx)
                grad_x.addcmul_(own, block.values[slot - 1], value=k)
            else:  # cos(kx)' = -k sin(kx)
                grad_x.addcmul_(own, block.values[slot + 1], value=-k)


def _parts(block: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The cosines and the sines of a block."""
    planes = block.unbind()
    return planes[0::2], planes[1::2]


def _multiply(a: Tensor, b: Tensor, c: Tensor, d: Tensor, out: Sequence[Tensor]) -> None:
    """The complex product (a + ib) (c + id), its parts written to `out`."""
    torch.mul(a, c, out=out[0]).addcmul_(b, d, value=-1)
    torch.mul(a, d, out=out[1]).addcmul_(b, c)


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
