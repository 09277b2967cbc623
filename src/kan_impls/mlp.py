"""The multi-layer perceptron that every KAN is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kan_impls.checks import check_dtype, check_input, check_widths
from kan_impls.variant import Variant


class MLP(nn.Module):
    """Affine maps with ReLU between them and a sigmoid after the last.

    Parameters are `layer1.weight`, `layer1.bias`, `layer2.weight` and so on, initialised
    as `torch.nn.Linear` does.

    Args:
        widths: number of features at the input and after each affine map.
        sigmoid: whether a sigmoid ends the network.

    Shapes: `(..., widths[0])` to `(..., widths[-1])`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        sigmoid: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        widths = check_widths(widths)
        check_dtype(dtype)
        self.sigmoid = sigmoid
        for index, (width_in, width_out) in enumerate(itertools.pairwise(widths), start=1):
            layer = nn.Linear(width_in, width_out, device=device, dtype=dtype)
            self.add_module(f"layer{index}", layer)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = cast("list[nn.Linear]", list(self.children()))
        check_input(x, first.in_features, first.weight)
        x = first(x)
        for layer in rest:
            x = layer(x.relu())
        return x.sigmoid() if self.sigmoid else x


def _affine_layer(
    in_features: int,
    out_features: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> MLP:
    return MLP((in_features, out_features), sigmoid=False, device=device, dtype=dtype)


VARIANT = Variant(
    name="mlp",
    formula="sigmoid(W2 relu(W1 x + b1) + b2)",
    paper="Rumelhart, Hinton & Williams, Nature 323 (1986)",
    layer=_affine_layer,
    model=MLP,
    functions_per_input=lambda config: 1,
    reference_widths=(1000, 10000, 1),
)
