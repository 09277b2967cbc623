"""A network of layers of one variant, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from kan_impls.checks import check_widths


class KAN(nn.Module):
    """KAN layers in sequence; their parameters are `layers.0.*`, `layers.1.*` and so on.

    Args:
        layer: makes a layer, called as `layer(in_features, out_features, **config)`.
        widths: number of features at the input and after each layer; two or more.

    Shapes: `(..., widths[0])` to `(..., widths[-1])`.
    """

    def __init__(
        self, layer: Callable[..., nn.Module], widths: Sequence[int], **config: Any
    ) -> None:
        super().__init__()
        widths = check_widths(widths)
        self.layers = nn.ModuleList(
            layer(width_in, width_out, **config)
            for width_in, width_out in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
