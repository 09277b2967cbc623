"""Wav-KAN: a wavelet of its own on every edge, and a BatchNorm of the sums.

`y_o = BN(sum_i w_oi psi((x_i - t_oi) / s_oi))`

Paper: arXiv 2405.12832. Published implementation: https://github.com/zavareh1/Wav-KAN, whose
parameter names, shapes and initialisation are kept, `weight1` included, which nothing uses.

Translations and scales belong to edges: there is no basis of x alone, and no matrix product of one.
The direct form materialises (batch, out, in) tensors; the fused form computes the same values, as
many as fit a fixed workspace, and again in the backward pass. It saves memory, and the time that
moving those tensors takes, but evaluates batch x in x out wavelets all the same: it has no CUDA
kernels, and is far from the time of a product.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kan_impls.checks import check_dtype, check_input, check_size
from kan_impls.model import KAN
from kan_impls.variant import Variant
from kan_impls.wavelets import WAVELETS, bounded, materialised


class WavKANLayer(nn.Module):
    """A layer of wavelets, see the module.

    Args:
        is_fused: whether the values are computed in bounded memory.
        in_features, out_features: sizes of the last dimension of input and output.
        wavelet_type: `"mexican_hat"`, `"morlet"` or `"dog"`, the derivative of a Gaussian.

    Shapes: `(..., in_features)` to `(..., out_features)`; the BatchNorm takes all leading
    dimensions as one batch.

    Raises:
        TypeError, ValueError: a size that is no positive integer.
        TypeError: a dtype that holds no real floating-point numbers.
        ValueError: an unknown wavelet.
    """

    scale: nn.Parameter
    translation: nn.Parameter
    weight1: nn.Parameter
    wavelet_weights: nn.Parameter

    def __init__(
        self,
        is_fused: bool,
        in_features: int,
        out_features: int,
        wavelet_type: str = "mexican_hat",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        check_dtype(dtype)
        if wavelet_type not in WAVELETS:
            raise ValueError(
                f"wavelet_type is {wavelet_type!r}; expected one of {', '.join(WAVELETS)}: choose "
                "one of these"
            )
        self.wavelet_type, self.is_fused = wavelet_type, is_fused
        for name in ("scale", "translation", "weight1", "wavelet_weights"):
            value = torch.empty(out_features, in_features, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(value))
        self.bn = nn.BatchNorm1d(out_features, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scales of 1, translations of 0, Kaiming-uniform weights, a fresh BatchNorm."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.translation)
        for weight in (self.wavelet_weights, self.weight1):
            bound = self.in_features**-0.5  # a = sqrt(5)
            nn.init.uniform_(weight, -bound, bound)
        self.bn.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_features, self.wavelet_weights)
        weight: Tensor = self.wavelet_weights
        if torch.is_autocast_enabled(x.device.type) and weight.dtype != torch.float64:
            weight = weight.to(torch.get_autocast_dtype(x.device.type))
        form = bounded if self.is_fused else materialised
        y = form(x, self.translation, self.scale, weight, name=self.wavelet_type)
        return self.bn(y.reshape(-1, self.out_features)).view(y.shape)

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, wavelet_type={self.wavelet_type!r}"


def _one_function(config: Mapping[str, Any]) -> int:
    return 1


def _variant(name: str, is_fused: bool) -> Variant:
    layer = partial(WavKANLayer, is_fused)
    return Variant(
        name=name,
        formula="BN(sum_i w_oi psi((x_i - t_oi) / s_oi))",
        paper="arXiv 2405.12832",
        layer=layer,
        model=partial(KAN, layer),
        functions_per_input=_one_function,
        reference_widths=(1000, 2000, 1),
        bound="stream",
        options=("wavelet_type", "device", "dtype"),
        is_fused=is_fused,
    )


VARIANTS = (_variant("wav_kan", False), _variant("fused_wav_kan", True))
