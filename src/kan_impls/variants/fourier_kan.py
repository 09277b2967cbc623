"""FourierKAN by its definition, which materialises two (batch, out, in, grid) products.

`y_o = bias_o + sum_i sum_k (a_oik cos(k x_i) + b_oik sin(k x_i)), k = 1..G`

Published implementation: https://github.com/GistNoesis/FourierKAN, whose parameter names,
shapes and initialisation are kept. Here to be compared with: `fused_fourier_kan` is the
same function in a hundredth of the memory.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from kan_impls.basis.fourier import initial_coefficients
from kan_impls.checks import check_input, check_size
from kan_impls.model import KAN
from kan_impls.published import UNCHANGED, Layout
from kan_impls.variant import Variant


class FourierKANLayer(nn.Module):
    """A KAN layer of Fourier series, 2 pi-periodic in every input.

    Args:
        in_features, out_features: sizes of the last dimension of input and output.
        grid_size: number of harmonics G.
        bias: whether to add a trained bias.
        smooth_initialization: divide the initial coefficients of harmonic k by k**2
            instead of sqrt(G).

    Parameters: `fouriercoeffs` of shape `(2, out_features, in_features, grid_size)`, the
    cosines' first; `bias` of shape `(1, out_features)`.

    Shapes: `(..., in_features)` to `(..., out_features)`. Memory: several times
    `batch * out_features * in_features * grid_size` elements in forward and backward.

    Raises:
        ValueError: a size that is not positive.
    """

    # Published fused layers store inputs before outputs, and a bias without a row.
    published: ClassVar = {
        "fouriercoeffs": (
            "fouriercoeffs",
            {
                "out_in": UNCHANGED,
                "in_out": Layout(lambda c: c.transpose(1, 2), lambda c: c.transpose(1, 2)),
            },
        ),
        "bias": (
            "bias",
            {
                "out_in": UNCHANGED,
                "in_out": Layout(lambda bias: bias.squeeze(0), lambda bias: bias.unsqueeze(0)),
            },
        ),
    }

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        bias: bool = True,
        smooth_initialization: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.grid_size = check_size("grid_size", grid_size)
        self.smooth_initialization = smooth_initialization
        shape = (2, out_features, in_features, grid_size)
        self.fouriercoeffs = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(1, out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the coefficients anew and set the bias to 0."""
        coeffs = self.fouriercoeffs
        coeffs.copy_(
            initial_coefficients(
                self.in_features,
                self.out_features,
                self.grid_size,
                self.smooth_initialization,
                coeffs.device,
                coeffs.dtype,
            )
        )
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_features, self.fouriercoeffs)
        # In x's dtype an angle k x would be wrong by |k x| roundings: in 16 bits, or at large x,
        # by whole radians. Of a float32 x it is exact here.
        harmonics = torch.arange(1, self.grid_size + 1, device=x.device, dtype=torch.float64)
        angle = (x.double().unsqueeze(-1) * harmonics).unsqueeze(-3)  # (..., 1, in, grid)
        cosines, sines = self.fouriercoeffs
        y = (angle.cos().to(x.dtype) * cosines).sum((-2, -1))
        y = y + (angle.sin().to(x.dtype) * sines).sum((-2, -1))
        return y if self.bias is None else y + self.bias.squeeze(0)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"grid_size={self.grid_size}"
        )


VARIANT = Variant(
    name="fourier_kan",
    formula="b + sum_ik (a_oik cos(k x_i) + b_oik sin(k x_i))",
    paper="https://github.com/GistNoesis/FourierKAN",
    layer=FourierKANLayer,
    model=partial(KAN, FourierKANLayer),
    functions_per_input=lambda config: 2 * config.get("grid_size", 5),
    reference_config={"grid_size": 5},
    bound="stream",
)
