"""A basis that kernels evaluate: all its values in one launch, and all its slopes in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch
from kan_impls.fused import cuda, kernels, proof
from kan_impls.fused.kernels import Element, Functions, Layer, Plan, Precision


def can_evaluate(basis: Basis, dtype: torch.dtype) -> bool:
    """Whether there are kernels for a basis that is evaluated in this dtype."""
    return basis.obstacle is None and dtype == torch.float32


class EvaluatedBasis(Basis):
    """The functions of another basis, for one pass of the product form in float32 on a GPU.

    The kernels pass their known-answer test before they are used.

    Raises:
        KernelUnavailable, CompileError: from its methods, see `proof.require`.
    """

    def __init__(self, basis: Basis) -> None:
        self.basis, self.num_basis, self.text = basis, basis.num_basis, basis.text
        self.spans_param_grads = basis.spans_param_grads
        self._params: list[Tensor] = []

    @property
    def cuda(self) -> str:
        return self.basis.cuda

    def elements_held(self, with_slopes: bool) -> int:
        # The parameters' gradients take what the basis prepares.
        return self.basis.elements_held(with_slopes) if self.basis.trained else 1

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.basis.value(x, *params)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        """`Basis.evaluate`; x stands for the slopes, which `add_input_grad` evaluates."""
        (x,) = prepared
        self._params = [param.float().contiguous() for param in params]
        written = values if values.is_contiguous() else scratch.empty(values, values.shape)
        self._launch("basis_values", x, {"y": written})
        if written is not values:
            values.copy_(written)
        return x if with_slopes else None

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        assert slopes is not None
        is_shared = grad_phi.shape[2] == 1
        tensors = {"grad_y": grad_phi.contiguous(), "grad_x": grad_x}
        self._launch("basis_slopes", slopes, tensors, is_shared=is_shared)

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        own = self.basis.prepare(prepared[0])
        self.basis.add_param_grads(grads, own, params, values, grad_phi)

    def param_grads_of_weights(
        self, products: Tensor, params: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        return self.basis.param_grads_of_weights(products, params)

    def _launch(
        self, which: str, x: Tensor, tensors: Mapping[str, Tensor], **options: bool
    ) -> None:
        inputs, rows = x.shape
        if rows == 0:
            return
        device = cuda.device_of(x.device.index)
        layer = Layer(
            Functions(self.basis), rows, inputs, 1, Element.FLOAT, Precision.ACCURATE, device
        )
        plan: Plan = getattr(kernels, which)(layer, **options)
        proof.require(which, plan, x.device)
        named = {f"params{n}": param for n, param in enumerate(self._params)}
        cuda.launch(plan, {"x": x, **named, **tensors}, self._params, x.device)
