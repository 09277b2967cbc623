"""What a product is of: its tensors, in the one order that every form of it takes them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from kan_impls.basis.base import Basis
from kan_impls.basis.silu import SiluBasis
from kan_impls.fused.term import Term

# The tensors of `Operands` as the arguments of an operator.
SCHEMA = (
    "Tensor x, Tensor weight, Tensor? scale, Tensor? base_weight, Tensor? bias, Tensor[] params"
)


class Operands(NamedTuple):
    """The tensors of a product.

    Args:
        x: shape `(rows, in_features)`.
        weight: shape `(num_basis, in_features, out_features)`.
        scale: shape `(in_features, out_features)`, multiplies the weights of all functions.
        base_weight: shape `(in_features, out_features)`, the weights of SiLU(x).
        bias: shape `(out_features,)`.
        params: the parameters of the basis, see `kan_impls.basis.base`.
    """

    x: Tensor
    weight: Tensor
    scale: Tensor | None = None
    base_weight: Tensor | None = None
    bias: Tensor | None = None
    params: Sequence[Tensor] = ()

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None]) -> Operands:
        """The inverse of `flat`."""
        x, weight, scale, base_weight, bias, *params = tensors
        return cls(x, weight, scale, base_weight, bias, params)  # type: ignore[arg-type]

    @property
    def flat(self) -> tuple[Tensor | None, ...]:
        """All tensors, the parameters of the basis last."""
        return (self.x, self.weight, self.scale, self.base_weight, self.bias, *self.params)

    def named(self, prefix: str = "") -> dict[str, Tensor]:
        """The tensors that there are; `params` have a number, from 0."""
        return {
            prefix + key: t for key, t in zip(self.names, self.flat, strict=True) if t is not None
        }

    @property
    def names(self) -> list[str]:
        return [*self._fields[:-1], *(f"params{n}" for n in range(len(self.params)))]


class Needs(NamedTuple):
    """Which operands need a gradient, as `Operands`."""

    x: bool
    weight: bool
    scale: bool = False
    base_weight: bool = False
    bias: bool = False
    params: Sequence[bool] = ()

    @classmethod
    def of(cls, needs: Iterable[bool]) -> Needs:
        x, weight, scale, base_weight, bias, *params = needs
        return cls(x, weight, scale, base_weight, bias, params)

    @property
    def flat(self) -> tuple[bool, ...]:
        return (self.x, self.weight, self.scale, self.base_weight, self.bias, *self.params)


def terms_of(operands: Operands, basis: Basis) -> list[Term]:
    """The sum over the basis and, where there are base weights, that over SiLU."""
    params = [of_inputs(param, operands.x.shape[-1]) for param in operands.params]
    terms = [Term(basis, operands.weight, operands.scale, params)]
    if operands.base_weight is not None:
        terms.append(Term(SiluBasis(), operands.base_weight.unsqueeze(0)))
    return terms


def of_inputs(param: Tensor, in_features: int) -> Tensor:
    """Each input's own, but where one is for all."""
    sets = param.shape[0]
    return param if sets in (1, in_features) else param.repeat_interleave(in_features // sets, 0)


def of_sets(grad: Tensor, param: Tensor) -> Tensor:
    """The gradient of a parameter, shape `(sets, size)`, from those of the inputs' own."""
    sets = param.shape[0]
    if sets == grad.shape[0]:
        return grad.to(param.dtype)
    return grad.view(sets, -1, grad.shape[1]).sum(1).to(param.dtype)
