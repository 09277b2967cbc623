"""What a product is of: tensors, and a basis by name and numbers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kan_impls.basis.block import BlockBasis
from kan_impls.basis.bspline import BSplineBasis, KnotBSplineBasis
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.silu import SiluBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused.product import Term


class BasisSpec(NamedTuple):
    """A basis by name and numbers, which is what an operator can take as arguments.

    Args:
        kind: "fourier"; "uniform_bspline" with the options spline order, first knot and step;
            or "bspline" with the option spline order, and knots of each input.
        options: its numbers.
    """

    kind: str
    options: tuple[float, ...] = ()


class Operands(NamedTuple):
    """The tensors of a product, in the order of the operator's arguments.

    Args:
        x: shape `(rows, in_features)`.
        weight: shape `(num_basis, in_features, out_features)`.
        scale: shape `(in_features, out_features)`, multiplies the weights of all functions.
        base_weight: shape `(in_features, out_features)`, the weights of SiLU(x).
        bias: shape `(out_features,)`.
        knots: shape `(in_features, number of knots)`, of the kind "bspline".
    """

    x: Tensor
    weight: Tensor
    scale: Tensor | None = None
    base_weight: Tensor | None = None
    bias: Tensor | None = None
    knots: Tensor | None = None


def terms_of(operands: Operands, basis: BasisSpec) -> list[Term]:
    """The sum over the basis and, where there are base weights, that over SiLU."""
    terms = [Term(_basis(operands, basis), operands.weight, operands.scale)]
    if operands.base_weight is not None:
        terms.append(Term(SiluBasis(), operands.base_weight.unsqueeze(0)))
    return terms


def _basis(operands: Operands, basis: BasisSpec) -> BlockBasis:
    num_basis = operands.weight.shape[0]
    if basis.kind == "fourier":
        return FourierBasis(num_basis // 2)
    order = int(basis.options[0])
    if basis.kind == "uniform_bspline":
        return UniformBSplineBasis(num_basis, order, *basis.options[1:])
    if basis.kind == "bspline" and operands.knots is not None:
        return KnotBSplineBasis(BSplineBasis(num_basis - order, order), operands.knots)
    raise ValueError(
        f"the basis is {basis.kind!r}; expected 'fourier', 'uniform_bspline', or 'bspline' with "
        "knots: pass one of these"
    )
