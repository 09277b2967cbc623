"""The Fourier basis: cos(x), sin(x), cos(2x), sin(2x), ..., cos(Gx), sin(Gx).

Source: GistNoesis/FourierKAN, https://github.com/GistNoesis/FourierKAN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# A rotation loses about one rounding per step; restarting it from the exact angle
# every 16 harmonics keeps the float32 error at 7e-7 up to the 300th harmonic.
RESTART = 16


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

    def blocks(self, x: Tensor, buffer: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the values at x, some consecutive functions at a time, in one buffer.

        Each harmonic is the one before it, rotated by x: four multiplications instead
        of a sine and a cosine.

        Args:
            x: shape `(rows, in_features)`, float32 or float64.
            buffer: shape `(rows, size, in_features)` in x's dtype, size even and at
                least 4 (2 where grid_size is 1), because a harmonic must not overwrite
                the one it is made from.

        Yields:
            The index of the first function in the block, and the block, shape
            `(rows, n, in_features)` with n even.
        """
        cos_x, sin_x = x.cos(), x.sin()
        cos_k, sin_k = cos_x, sin_x
        for first in range(0, self.num_basis, buffer.shape[1]):
            block = buffer[:, : self.num_basis - first]
            for slot in range(0, block.shape[1], 2):
                k = (first + slot) // 2 + 1
                cos_before, sin_before = cos_k, sin_k
                cos_k, sin_k = block[:, slot], block[:, slot + 1]
                if k == 1:
                    cos_k.copy_(cos_x)
                    sin_k.copy_(sin_x)
                elif k % RESTART == 1:
                    angle = x.double().mul_(k)  # exact for float32 x and k < 2**29
                    sin_k.copy_(angle.sin())
                    cos_k.copy_(angle.cos_())
                else:
                    torch.mul(cos_before, cos_x, out=cos_k).addcmul_(sin_before, sin_x, value=-1)
                    torch.mul(sin_before, cos_x, out=sin_k).addcmul_(cos_before, sin_x)
            yield first, block

    def add_input_grad(
        self, grad_x: Tensor, first: int, block: Tensor, slot: int, grad_phi: Tensor
    ) -> None:
        """Add what one function contributes to the gradient of x, in place.

        Args:
            grad_x: shape `(rows, in_features)`.
            first, block: as `blocks` yielded them.
            slot: the position of the function in the block.
            grad_phi: the gradient with respect to its values, shape `(rows, in_features)`.
        """
        k = (first + slot) // 2 + 1
        if slot % 2:  # sin(kx)' = k cos(kx)
            grad_x.addcmul_(grad_phi, block[:, slot - 1], value=k)
        else:  # cos(kx)' = -k sin(kx)
            grad_x.addcmul_(grad_phi, block[:, slot + 1], value=-k)


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
