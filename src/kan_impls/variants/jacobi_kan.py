"""JacobiKAN: `y_o = sum_i sum_d c_iod P_d^(a,b)(tanh x_i), d = 0..D`; no bias.

Published implementation: https://github.com/SpaceLearner/JacobiKAN, whose parameter name, shape and
initialisation are kept. It evaluates the polynomials in float32, whatever the dtype of x; this one
does in the dtype of x. `legendre_kan` is the case a = b = 0.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from kan_impls.basis.jacobi import JacobiBasis
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


def draw(layer: KANLayer) -> None:
    """Normal coefficients of deviation 1 / (in_features * (degree + 1))."""
    deviation = 1 / (layer.in_features * layer.basis.num_basis)
    layer.start("weight", lambda value: nn.init.normal_(value, std=deviation))


def legendre(degree: int) -> JacobiBasis:
    """The basis of Legendre polynomials."""
    return JacobiBasis(degree, 0.0, 0.0)


SPEC = Spec(
    formula="sum_id c_iod P_d^(a,b)(tanh x_i)",
    paper="https://github.com/SpaceLearner/JacobiKAN",
    basis=JacobiBasis,
    weight=Stored("jacobi_coeffs", "i o k", fused="k i o"),
    init=draw,
    options={"degree": 3, "a": 1.0, "b": 1.0},
    size="degree",
    reference_config={"degree": 9},
)

LEGENDRE = replace(
    SPEC,
    formula="sum_id c_iod P_d(tanh x_i)",
    basis=legendre,
    options={"degree": 3},
)

VARIANTS = (*both_forms("jacobi_kan", SPEC), *both_forms("legendre_kan", LEGENDRE))
