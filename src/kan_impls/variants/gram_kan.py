"""GRAM-KAN: `y_o = sum_i u_oi SiLU(x_i) + sum_i sum_d c_iod P_d(tanh x_i), d = 0..D`, where the
recurrence of the polynomials P is trained.

Published implementation: https://github.com/Khochawongwat/GRAMKAN, whose names, shapes and initial
values of these parameters are kept. It keeps the polynomials of its last inputs alive in a cache;
this one keeps nothing. Its LayerNorm and SiLU behind the sum, and the bias between them, are not
part of this layer: put `nn.LayerNorm` and `nn.SiLU` behind it.
"""

from __future__ import annotations

from torch import nn

from kan_impls.basis.gram import GramBasis
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


def draw(layer: KANLayer) -> None:
    """Glorot's uniform weights; a recurrence of deviation 1 / (in_features * (degree + 1))."""
    deviation = 1 / (layer.in_features * layer.basis.num_basis)
    layer.start("recurrence", lambda value: nn.init.normal_(value, std=deviation))
    for name in ("weight", "base_weight"):
        layer.start(name, nn.init.xavier_uniform_)


SPEC = Spec(
    formula="SiLU(x) u^T + sum_id c_iod P_d(tanh x_i)",
    paper="https://github.com/Khochawongwat/GRAMKAN",
    basis=GramBasis,
    weight=Stored("grams_basis_weights", "i o k", fused="k i o"),
    base=Stored("base_weights", "o i", fused="i o"),
    params={"recurrence": Stored("beta_weights", "n", fused="1 n")},
    init=draw,
    options={"degree": 3},
    size="degree",
    reference_config={"degree": 8},  # with SiLU as many parameters as the others
)

VARIANTS = both_forms("gram_kan", SPEC)
