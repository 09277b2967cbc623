"""SineKAN: `y_o = bias_o + sum_i sum_g a_oig sin(f_g x_i + p_ig)`, with trained frequencies f.

Paper: arXiv 2407.04149. Published implementation: https://github.com/ereinha/SineKAN, whose
parameter names, shapes and initialisation are kept. The phases are a buffer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kan_impls.basis.sine import SineBasis
from kan_impls.layer import KANLayer, both_forms
from kan_impls.model import KAN
from kan_impls.published import Stored
from kan_impls.variant import Spec

# From a grid of g to one of g + 1 the phases grow by the factor A g^-K + C: fitted constants of the
# paper, with which the sum of the sines keeps its size.
A, K, C = 0.9724108095811765, 0.9884401790754128, 0.999449553483052


class SineKAN(KAN):
    """Layers of which the first starts as `is_first` says, and the others as hidden ones."""

    def __init__(
        self,
        layer: Callable[..., nn.Module],
        widths: Sequence[int],
        is_first: bool = True,
        **config: Any,
    ) -> None:
        starts = itertools.chain([is_first], itertools.repeat(False))

        def make(*sizes: int, **options: Any) -> nn.Module:
            return layer(*sizes, **{"is_first": next(starts), **options})

        super().__init__(make, widths, **config)


def draw(layer: KANLayer) -> None:
    """An amplitude for each edge, which the frequency divides; frequencies 1 to G of a first layer,
    and within 1 of a hidden one; a bias of 1 / out_features."""
    is_first, size = layer.options["is_first"], layer.options["grid_size"]

    def amplitudes(value: Tensor) -> None:
        edges = value.new_empty(*value.shape[:2], 1)
        _ = nn.init.normal_(edges, std=0.4) if is_first else nn.init.uniform_(edges, -1, 1)
        value.copy_(edges / layer.out_features / numbers(value))

    def numbers(value: Tensor) -> Tensor:
        return torch.arange(1, size + 1, device=value.device, dtype=torch.float64)

    def frequencies(value: Tensor) -> None:
        is_narrow = layer.options["norm_freq"] and not is_first
        value.copy_(numbers(value) / (size + 1 if is_narrow else 1))

    def phases(value: Tensor) -> None:
        of_inputs = torch.linspace(0, math.pi, layer.in_features, device=value.device)
        growth = math.prod(A * g**-K + C for g in range(1, size))
        value.copy_((numbers(value) / (size + 1) + of_inputs.unsqueeze(1)) * growth)

    layer.start("weight", amplitudes)
    layer.start("frequencies", frequencies)
    layer.start("phases", phases)
    if layer.stored("bias") is not None:
        layer.start("bias", lambda value: nn.init.constant_(value, 1 / layer.out_features))


SPEC = Spec(
    formula="b + sum_ig a_oig sin(f_g x_i + p_ig)",
    paper="arXiv 2407.04149",
    basis=SineBasis,
    weight=Stored("amplitudes", "o i g", fused="g i o"),
    bias=Stored("bias", "1 o", fused="o", option="bias"),
    params={
        "frequencies": Stored("freq", "1 1 1 g", fused="1 g"),
        "phases": Stored("phase", "1 1 i g", fused="i g"),
    },
    init=draw,
    options={"grid_size": 5, "is_first": False, "bias": True, "norm_freq": True},
    size="grid_size",
    model=SineKAN,
    reference_config={"grid_size": 10},
)

VARIANTS = both_forms("sine_kan", SPEC)
