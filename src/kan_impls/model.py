"""A network of layers of one variant, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kan_impls.checks import check_widths


class KAN(nn.Module):
    """KAN layers in sequence; their parameters are `layers.0.*`, `layers.1.*` and so on.

    Args:
        layer: makes a layer, called as `layer(in_features, out_features, **config)`.
        widths: number of features at the input and after each layer; two or more.
        per_layer: options of each layer alone, which go before those of all.
        config: options of all layers.

    Shapes: `(..., widths[0])` to `(..., widths[-1])`.

    Raises:
        ValueError: a width that is not positive, or `per_layer` of another number of layers.
    """

    def __init__(
        self,
        layer: Callable[..., nn.Module],
        widths: Sequence[int],
        per_layer: Sequence[Mapping[str, Any]] | None = None,
        **config: Any,
    ) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(check_widths(widths)))
        own = [{} for _ in pairs] if per_layer is None else list(per_layer)
        if len(own) != len(pairs):
            raise ValueError(
                f"per_layer has options of {len(own)} layers; expected {len(pairs)}, one for each "
                "pair of neighbouring widths: give {} for a layer without any"
            )
        self.layers = nn.ModuleList(
            layer(*pair, **{**config, **options}) for pair, options in zip(pairs, own, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
