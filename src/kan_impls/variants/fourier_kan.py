"""FourierKAN: `y_o = bias_o + sum_i sum_k (a_oik cos(k x_i) + b_oik sin(k x_i)), k = 1..G`.

Published implementation: https://github.com/GistNoesis/FourierKAN, whose parameter names,
shapes and initialisation are kept. The direct form is its definition, which materialises two
(batch, out, in, grid) products: several times their size in forward and backward. It is here to be
compared with: the fused form is the same function in a hundredth of the memory.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from kan_impls.basis.fourier import FourierBasis, initial_coefficients
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


def draw(layer: KANLayer) -> None:
    """Coefficients as `initial_coefficients` draws them, and a bias of 0."""
    coefficients = layer.as_published("weight")
    coefficients.copy_(
        initial_coefficients(
            layer.in_features,
            layer.out_features,
            layer.options["grid_size"],
            layer.options["smooth_initialization"],
            coefficients.device,
            coefficients.dtype,
        )
    )
    bias = layer.stored("bias")
    if bias is not None:
        bias.zero_()


def materialised(layer: KANLayer, x: Tensor) -> Tensor:
    """The published form of the sum."""
    # In x's dtype an angle k x would be wrong by |k x| roundings: in 16 bits, or at large x,
    # by whole radians. Of a float32 x it is exact here.
    grid_size = layer.options["grid_size"]
    harmonics = torch.arange(1, grid_size + 1, device=x.device, dtype=torch.float64)
    angle = (x.double().unsqueeze(-1) * harmonics).unsqueeze(-3)  # (..., 1, in, grid)
    cosines, sines = cast(Tensor, layer.stored("weight"))
    y = (angle.cos().to(x.dtype) * cosines).sum((-2, -1))
    y = y + (angle.sin().to(x.dtype) * sines).sum((-2, -1))
    bias = layer.stored("bias")
    y = y if bias is None else y + bias.squeeze(0)
    # As a matrix product, which others end with, would: autocast takes sums in float32.
    if torch.is_autocast_enabled(x.device.type) and y.dtype == torch.float32:
        y = y.to(torch.get_autocast_dtype(x.device.type))
    return y


# Published fused layers store inputs before outputs, and a bias without a row.
SPEC = Spec(
    formula="b + sum_ik (a_oik cos(k x_i) + b_oik sin(k x_i))",
    paper="https://github.com/GistNoesis/FourierKAN",
    basis=FourierBasis,
    weight=Stored(
        "fouriercoeffs", "2 o i g", fused="(g 2) i o", name="weight", also={"in_out": "2 i o g"}
    ),
    bias=Stored("bias", "1 o", fused="o", also={"in_out": "o"}, option="bias"),
    init=draw,
    options={"grid_size": 5, "bias": True, "smooth_initialization": False},
    size="grid_size",
    direct=materialised,
    reference_config={"grid_size": 5},
    bound="stream",
)

VARIANTS = both_forms("fourier_kan", SPEC)
