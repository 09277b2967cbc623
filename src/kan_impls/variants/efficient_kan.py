"""efficient-kan: B-splines and a SiLU branch as two matrix products.

`y = SiLU(x) base_weight^T + sum_ik B_k(x_i) (spline_weight * spline_scaler)_oik`

Paper: arXiv 2404.19756. Published implementation: https://github.com/Blealtan/efficient-kan,
whose parameter names, shapes and initialisation are kept.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from kan_impls.checks import check_input
from kan_impls.layer import basis_linear, silu_linear
from kan_impls.published import UNCHANGED, Layout
from kan_impls.spline_layer import SplineKAN, SplineLayer, functions_per_input
from kan_impls.variant import Variant


class EfficientKANLayer(SplineLayer):
    """A KAN layer of B-splines with a SiLU base branch, its parameters stored as published.

    Arguments, parameters and behaviour outside the grid: see `SplineLayer`.
    """

    layout: ClassVar[Layout] = UNCHANGED

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_features, self.base_weight)
        # 16-bit knots and differences of them would cost the splines most of their digits.
        wide = torch.promote_types(x.dtype, torch.float32)
        phi = self.basis.value(x.to(wide), self.grid.to(wide)).to(x.dtype)
        return silu_linear(x, self.base_weight) + basis_linear(phi, self._edge_weight())

    def grid_changed(self) -> None:
        """Nothing: the recurrence takes any knots as they are."""

    def _edge_weight(self) -> Tensor:
        if self.spline_scaler is None:
            return self.spline_weight
        return self.spline_weight * self.spline_scaler.unsqueeze(-1)


VARIANT = Variant(
    name="efficient_kan",
    formula="SiLU(x) Wb^T + sum_ik B_k(x_i) (w * s)_oik",
    paper="arXiv 2404.19756",
    layer=EfficientKANLayer,
    model=partial(SplineKAN, EfficientKANLayer),
    functions_per_input=functions_per_input,
    reference_config={"grid_size": 5, "spline_order": 3},
)
