"""The operator `basis_product`: autocast, autograd, torch.func, and what torch.compile sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, basis_of
from kan_impls.fused import dispatch, formula
from kan_impls.fused.operands import SCHEMA, Needs, Operands
from kan_impls.fused.transforms import is_batched, needs_formula


def basis_product(operands: Operands, basis: Basis, backend: str = "auto") -> Tensor:
    """`y = bias + SiLU(x) base_weight + sum_ki phi_k(x_i) scale_io weight_kio`.

    Saves x and the parameters for the backward pass, nothing of the basis. Under autocast
    the basis is evaluated in float32 and the product taken in the autocast dtype.

    Args:
        operands: x of any leading shape `(..., in_features)`; tensors that are None are left out.
        basis: the functions phi.
        backend: as in `kan_impls.fused.dispatch`.

    Returns:
        Shape `(..., out_features)`.

    Raises:
        ValueError: a parameter of the basis requires a gradient that the product does not have.
    """
    for name, param in zip(basis.params, operands.params, strict=True):
        if param.requires_grad and name not in basis.trained:
            raise ValueError(
                f"the {name} require a gradient; expected a buffer, because the product has no "
                f"gradient with respect to {name}: call .requires_grad_(False) of the tensor"
            )
    operands = _autocast(operands)
    is_compiling = torch.compiler.is_compiling()
    if needs_formula(operands.flat, is_compiling):
        return formula.forward(operands, basis)
    x = operands.x
    if x.ndim != 2:
        operands = operands._replace(x=x.reshape(-1, x.shape[-1]))
    if is_compiling:
        y = _forward_op(*operands, basis.text, backend)
    elif not torch.is_grad_enabled():
        y = dispatch.forward(operands, basis, backend)
    else:
        # An autograd.Function costs the host a fifth of what a custom operator does.
        y = _BasisProduct.apply(basis, backend, *operands.flat)
    return y if x.ndim == 2 else y.view(*x.shape[:-1], y.shape[-1])


def _autocast(operands: Operands) -> Operands:
    device = operands.x.device.type
    if not torch.is_autocast_enabled(device) or operands.weight.dtype == torch.float64:
        return operands
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(dtype)

    return operands._replace(
        weight=operands.weight.to(dtype),
        scale=cast(operands.scale),
        base_weight=cast(operands.base_weight),
        bias=cast(operands.bias),
    )


class _BasisProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, basis: Basis, backend: str, *tensors: Tensor | None) -> Tensor:
        operands = Operands.of(tensors)
        ctx.save_for_backward(*tensors)
        ctx.basis, ctx.backend = basis, backend
        return dispatch.forward(operands, basis, backend)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        operands, needs = Operands.of(ctx.saved_tensors), Needs.of(ctx.needs_input_grad[2:])
        if torch.is_grad_enabled() or is_batched(grad_y):
            grads = formula.backward(grad_y, operands, ctx.basis, needs)
        else:
            grads = dispatch.backward(grad_y, operands, ctx.basis, ctx.backend, needs)
        return (None, None, *grads)


# What torch.compile sees: two opaque operators, because the blocks' buffers and their
# reuse are what keeps the memory small, and a traced graph would not keep them.


@torch.library.custom_op(
    "kan_impls::basis_product",
    mutates_args=(),
    schema=f"({SCHEMA}, str basis, str backend) -> Tensor",
)
def _forward_op(*arguments: Any) -> Tensor:
    *tensors, basis, backend = arguments
    return dispatch.forward(Operands(*tensors), basis_of(basis), backend, is_fixed=True)


@_forward_op.register_fake
def _(*arguments: Any) -> Tensor:
    operands = Operands(*arguments[: len(Operands._fields)])
    return operands.weight.new_empty(operands.x.shape[0], operands.weight.shape[2])


@torch.library.custom_op(
    "kan_impls::basis_product_backward",
    mutates_args=(),
    schema=f"(Tensor grad_y, {SCHEMA}, str basis, str backend, bool[] needs) -> Tensor[]",
)
def _backward_op(*arguments: Any) -> list[Tensor]:
    grad_y, *tensors, basis, backend, needs = arguments
    operands = Operands(*tensors)
    known = basis_of(basis)
    grads = dispatch.backward(grad_y, operands, known, backend, Needs.of(needs), is_fixed=True)
    return [grad for grad in grads if grad is not None]


@_backward_op.register_fake
def _(*arguments: Any) -> list[Tensor]:
    _, *tensors, _, _, needs = arguments
    return [
        torch.empty_like(value, memory_format=torch.contiguous_format)
        for value, needed in zip(Operands(*tensors).flat, needs, strict=True)
        if needed and value is not None
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    count = len(Operands._fields)
    ctx.save_for_backward(*Operands(*inputs[:count]).flat)
    ctx.rest = inputs[count:]


def _compiled_backward(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:
    *needs, of_params = ctx.needs_input_grad[: len(Operands._fields)]
    operands = Operands.of(ctx.saved_tensors)
    needs += of_params or [False] * len(operands.params)  # nothing if none of them needs one
    found = iter(_backward_op(grad_y, *operands, *ctx.rest, needs))
    *grads, params = Operands.of([next(found) if needed else None for needed in needs])
    return (*grads, list(params), *(None for _ in ctx.rest))


_forward_op.register_autograd(_compiled_backward, setup_context=_setup_context)
