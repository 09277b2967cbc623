"""The Fourier basis: cos(x), sin(x), cos(2x), sin(2x), ..., cos(Gx), sin(Gx).

Source: GistNoesis/FourierKAN, https://github.com/GistNoesis/FourierKAN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# The rounding of exp(ix) is amplified k times in its k-th power; beyond the eighth, powers
# start again from the exact angle, which keeps the float32 error below 1e-6 at every k.
MAX_POWER = 8


@dataclass(frozen=True)
class FourierBasis:
    """The cosine and the sine of `grid_size` harmonics, harmonic by harmonic.

    Domain: all real numbers; every function has period 2 pi.
    """

    grid_size: int

    @property
    def num_basis(self) -> int:
        return 2 * self.grid_size

    def value(self, x: Tensor) -> Tensor:
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
        """Number of harmonics in a block of `blocks`."""
        return min(self.grid_size, MAX_POWER)

    def blocks(self, x: Tensor, by_row: bool) -> Iterator[tuple[slice, Tensor]]:
        """Yield the values at x, some consecutive harmonics at a time, in one buffer.

        cos(kx) and sin(kx) are the two parts of exp(ix)**k, and a block of powers takes
        three complex multiplications of whole tensors (squaring, then products of what is
        there) instead of a sine and a cosine each.

        Args:
            x: shape `(rows, in_features)`, float32 or float64.
            by_row: whether all of a row's values lie side by side in memory, else all of
                a harmonic's.

        Yields:
            The harmonics (0 for k = 1), and their values, shape
            `(harmonics, rows, 2 * in_features)`: cosine and sine of each input side by
            side. The receiver may overwrite them.
        """
        wide = torch.complex64 if x.dtype == torch.float32 else torch.complex128
        rows, in_features = x.shape

        def buffer() -> Tensor:
            if by_row:
                shape = (rows, self.block_size, in_features)
                return x.new_empty(shape, dtype=wide).transpose(0, 1)
            return x.new_empty((self.block_size, rows, in_features), dtype=wide)

        powers = buffer()
        torch.complex(x.cos(), x.sin(), out=powers[0])
        known = 1
        while known < self.block_size:
            new = min(known, self.block_size - known)
            torch.mul(powers[:new], powers[known - 1], out=powers[known : known + new])
            known += new

        block = powers if self.grid_size == self.block_size else buffer()
        for first in range(0, self.grid_size, self.block_size):
            size = min(self.block_size, self.grid_size - first)
            if first:
                angle = x.double() * first  # exact for float32 x and k < 2**29
                rotation = torch.complex(angle.cos(), angle.sin()).to(wide)
                torch.mul(powers[:size], rotation, out=block[:size])
            elif block is not powers:
                block.copy_(powers)
            yield slice(first, first + size), torch.view_as_real(block[:size]).flatten(-2)

    def differentiate_(self, harmonics: slice, block: Tensor) -> Tensor:
        """Turn a block of values into one of derivatives, in place: `(exp(ikx))' = ik exp(ikx)`.

        Args:
            harmonics, block: as `blocks` yielded them.
        """
        z = torch.view_as_complex(block.unflatten(-1, (-1, 2)))
        k = torch.arange(harmonics.start + 1, harmonics.stop + 1, device=z.device)
        z.mul_((1j * k).to(z.dtype)[:, None, None])
        return block


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
