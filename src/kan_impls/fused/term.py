"""One sum of a product: a basis, its weights, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch


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
        if inputs.start == 0 and inputs.stop == self.weight.shape[1]:
            return self
        scale = None if self.scale is None else self.scale[inputs]
        params = [param if param.shape[0] == 1 else param[inputs] for param in self.params]
        return Term(self.basis, self.weight[:, inputs], scale, params)

    def matrix(self, stage: Scratch | None) -> Tensor:
        """The scaled weights, shape `(num_basis * in_features, out_features)`: a copy in `stage`,
        or the weights where they are."""
        weight = self.weight
        if stage is not None:
            copy = stage.empty(weight, weight.shape)
            if self.scale is None:
                weight = copy.copy_(weight)
            else:
                weight = torch.mul(weight, self.scale, out=copy)
        return weight.flatten(0, 1)

    def write_grads(self, total: Tensor, grad: TermGrad) -> None:
        """Write the gradients of weights and scale, from that of the scaled weights, whose memory
        is used."""
        if grad.weight is not None:
            if self.scale is None:
                grad.weight.copy_(total)
            else:
                torch.mul(total, self.scale, out=grad.weight)
        if grad.scale is not None:
            own = total.mul_(self.weight)
            if own.dtype == grad.scale.dtype:
                torch.sum(own, 0, out=grad.scale)
            else:
                grad.scale.copy_(own.sum(0))


@dataclass(frozen=True)
class TermGrad:
    """The gradients of a term's tensors; None where not needed, and for `params` nothing."""

    weight: Tensor | None
    scale: Tensor | None
    params: Sequence[Tensor] = ()

    @property
    def is_needed(self) -> bool:
        """Whether there is any."""
        return self.weight is not None or self.scale is not None or bool(self.params)

    def of_inputs(self, inputs: slice) -> TermGrad:
        """Those of some of the inputs."""
        weight = None if self.weight is None else self.weight[:, inputs]
        scale = None if self.scale is None else self.scale[inputs]
        return TermGrad(weight, scale, [param[inputs] for param in self.params])
