"""One sum of a product: a basis, its weights, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Block, Scratch


@dataclass(frozen=True)
class Term:
    """A basis and its weights, `sum_ki phi_k(x_i) scale_io weight_kio`.

    Args:
        basis: the functions.
        weight: shape `(num_basis, in_features, out_features)`.
        scale: shape `(in_features, out_features)`, or None for 1.
        params: of the basis, shape `(in_features, size)` or `(1, size)`.
    """

    basis: Basis
    weight: Tensor
    scale: Tensor | None = None
    params: Sequence[Tensor] = ()

    @property
    def is_staged(self) -> bool:
        """Whether products take a copy of the weights, and sum their gradient elsewhere: where
        a scale is to be applied, and where 16 bits are too few for a sum."""
        return self.scale is not None or self.weight.dtype.itemsize < 4

    def of_inputs(self, inputs: slice) -> Term:
        """The part of the sum that some of the inputs make."""
        scale = None if self.scale is None else self.scale[inputs]
        params = [param if param.shape[0] == 1 else param[inputs] for param in self.params]
        return Term(self.basis, self.weight[:, inputs], scale, params)

    def blocks(
        self, prepared: Sequence[Tensor], scratch: Scratch, with_slopes: bool = False
    ) -> Iterator[Block]:
        """`Basis.blocks`, with the parameters."""
        return self.basis.blocks(prepared, self.params, scratch, with_slopes)

    def matrix(self, functions: slice, scratch: Scratch) -> Tensor:
        """Scaled weights of some functions, shape `(functions * in_features, out_features)`."""
        weight = self.weight[functions]
        if self.scale is not None:
            weight = torch.mul(weight, self.scale, out=scratch.empty(weight, weight.shape))
        return weight.flatten(0, 1)


@dataclass(frozen=True)
class TermGrad:
    """The gradients of a term's tensors; None where not needed, and for `params` nothing."""

    weight: Tensor | None
    scale: Tensor | None
    params: Sequence[Tensor] = ()
