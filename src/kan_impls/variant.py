"""What the registry knows of an implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn


@dataclass(frozen=True)
class Variant:
    """One implementation: how to build it, and what a measurement must know of it.

    Args:
        name: what users call it.
        formula: the mathematics, in one line.
        paper: where it comes from.
        layer: `layer(in_features, out_features, **config)` builds one layer.
        model: `model(widths, **config)` builds a network.
        functions_per_input: from the config to the number of functions that each input
            passes through, base branch included; an affine layer has 1. With M rows, N
            outputs and I inputs a layer is a product of M x (I * functions) by N.
        reference_widths: widths of the network of about 10M parameters that is compared.
        reference_config: options of that network where they differ from the defaults.
        bound: what its time is made of, a matrix `product` or an element-wise `stream`;
            the interleaved reference is of the same kind.
    """

    name: str
    formula: str
    paper: str
    layer: Callable[..., nn.Module]
    model: Callable[..., nn.Module]
    functions_per_input: Callable[[Mapping[str, Any]], int]
    reference_widths: Sequence[int] = (1000, 1000, 1)
    reference_config: Mapping[str, Any] = field(default_factory=dict)
    bound: Literal["product", "stream"] = "product"
