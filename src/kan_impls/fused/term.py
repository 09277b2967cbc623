"""One sum of a product: a basis, its weights, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch
from kan_impls.fused.compiled import CompiledBasis


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
        a scale is to be applied, where 16 bits are too few for a sum, and where the weights are
        no matrix in memory."""
        is_narrow = self.weight.dtype.itemsize < 4
        return self.scale is not None or is_narrow or not self.weight.is_contiguous()

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

    def multiply_functions(self, grad: Tensor, out: Tensor) -> None:
        """Write to `out[i, k, l]` the product of the weights of function k and the gradient of
        those of function l, of input i.

        Args:
            grad: shape of the weights, which have no scale, and in their dtype.
            out: contiguous.
        """
        are_rows = all(t.stride()[-2:] == (t.shape[-1], 1) for t in (self.weight, grad))
        if isinstance(self.basis, CompiledBasis) and are_rows:
            self.basis.multiply_functions(self.weight, grad, out)
            return
        torch.bmm(self.weight.transpose(0, 1), grad.permute(1, 2, 0), out=out)

    def write_grads(self, total: Tensor, grad: TermGrad) -> None:
        """Write the gradients of weights and scale, from that of the scaled weights, whose memory
        is used."""
        if isinstance(self.basis, CompiledBasis) and self.scale is not None:
            given = (self.weight, self.scale, grad.weight, grad.scale)
            # It steps through a gradient as through the weights, which may have strides of a user.
            are_alike = grad.weight is None or grad.weight.stride() == self.weight.stride()
            if are_alike and all(t is None or t.stride()[-2:] == (t.shape[-1], 1) for t in given):
                self.basis.write_grads(total, *given)
                return
        if grad.weight is not None:
            _write_product(total, self.scale, grad.weight)
        if grad.scale is not None:
            if total.dtype == self.weight.dtype:
                total.mul_(self.weight)
            else:  # in 16 bits function by function, each with a copy in float32
                for own, weight in zip(total, self.weight, strict=True):
                    own.mul_(weight)
            if total.dtype == grad.scale.dtype:
                torch.sum(total, 0, out=grad.scale)
            else:
                grad.scale.copy_(total.sum(0))


def _write_product(total: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """Write `total * scale`; in 16 bits function by function, each with a copy in float32."""
    if scale is None:
        out.copy_(total)
    elif out.dtype == total.dtype:
        torch.mul(total, scale, out=out)
    else:
        for own, part in zip(total, out, strict=True):
            torch.mul(own, scale, out=part)


@dataclass(frozen=True)
class TermGrad:
    """The gradients of a term's tensors; None where not needed, and for `params` nothing.

    Args:
        are_spanned: whether those of `params` follow from that of `weight`, see `Basis`.
    """

    weight: Tensor | None
    scale: Tensor | None
    params: Sequence[Tensor] = ()
    are_spanned: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether there is any."""
        return self.weight is not None or self.scale is not None or bool(self.params)

    def of_inputs(self, inputs: slice) -> TermGrad:
        """Those of some of the inputs."""
        weight = None if self.weight is None else self.weight[:, inputs]
        scale = None if self.scale is None else self.scale[inputs]
        return TermGrad(weight, scale, [param[inputs] for param in self.params], self.are_spanned)
