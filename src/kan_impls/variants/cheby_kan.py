"""ChebyKAN: `y_o = sum_i sum_d c_iod T_d(tanh x_i), d = 0..D`; no bias.

Published implementation: https://github.com/SynodicMonth/ChebyKAN, whose parameter names, shapes
and initialisation are kept. Its gradient is not a number where tanh(x) rounds to 1, in float32 from
|x| of about 9, because it takes an arc cosine. This one's is finite, and right, at any x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kan_impls.basis.chebyshev import ChebyshevBasis
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


def draw(layer: KANLayer) -> None:
    """Normal coefficients of deviation 1 / (in_features * (degree + 1))."""
    deviation = 1 / (layer.in_features * layer.basis.num_basis)
    layer.start("weight", lambda value: nn.init.normal_(value, std=deviation))


def degrees(options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The published buffer of the degrees."""
    return {"arange": torch.arange(options["degree"] + 1)}


SPEC = Spec(
    formula="sum_id c_iod T_d(tanh x_i)",
    paper="https://github.com/SynodicMonth/ChebyKAN",
    basis=ChebyshevBasis,
    weight=Stored("cheby_coeffs", "i o k", fused="k i o"),
    init=draw,
    derived=degrees,
    options={"degree": 4},
    size="degree",
    reference_config={"degree": 9},
)

VARIANTS = both_forms("cheby_kan", SPEC)
