"""The operator `fourier_product`: dispatch, autograd, and what torch.compile sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kan_impls.basis.fourier import FourierBasis
from kan_impls.fused import product


def fourier_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`y[...,o] = bias[o] + sum_ki phi_k(x[...,i]) weight[k,i,o]` over the Fourier basis.

    Saves x and the weights for the backward pass, nothing of the basis. Under autocast
    the basis is evaluated in float32 and the product taken in the autocast dtype.

    Args:
        x: shape `(..., in_features)`.
        weight: shape `(2 * grid_size, in_features, out_features)`; functions in the order
            cos(x), sin(x), cos(2x), and so on.
        bias: shape `(out_features,)`, or None.

    Returns:
        Shape `(..., out_features)`.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        weight = weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    rows = x.reshape(-1, x.shape[-1])
    if torch.compiler.is_compiling():
        y = _forward_op(rows, weight, bias)
    else:
        # An autograd.Function costs the host a fifth of what a custom operator does.
        y = _FourierProduct.apply(rows, weight, bias)
    return y.view(*x.shape[:-1], weight.shape[2])


def _basis(weight: Tensor) -> FourierBasis:
    return FourierBasis(weight.shape[0] // 2)


def _grad_bias(grad_y: Tensor) -> Tensor:
    return grad_y.sum(0)


class _FourierProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product.forward(x, weight, bias, _basis(weight))

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        differentiate = _differentiable_backward if torch.is_grad_enabled() else product.backward
        grad_x, grad_weight = differentiate(
            grad_y, x, weight, _basis(weight), needs_x, needs_weight
        )
        return grad_x, grad_weight, _grad_bias(grad_y) if needs_bias else None


def _differentiable_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    basis: FourierBasis,
    needs_grad_x: bool,
    needs_grad_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """`product.backward` for `create_graph=True`: by PyTorch formulas that autograd can
    differentiate again, at the price of the basis in memory."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    grad_x = grad_weight = None
    if needs_grad_x:
        grad_phi = torch.einsum("bo,kio->bik", grad_y, weight)
        grad_x = (grad_phi * basis.derivative(wide)).sum(-1).to(x.dtype)
    if needs_grad_weight:
        grad_weight = torch.einsum("bik,bo->kio", basis.value(wide).to(weight.dtype), grad_y)
    return grad_x, grad_weight


# What torch.compile sees: two opaque operators, because the blocks' buffers and their
# reuse are what keeps the memory small, and a traced graph would not keep them.


@torch.library.custom_op("kan_impls::fourier_product", mutates_args=())
def _forward_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return product.forward(x, weight, bias, _basis(weight))


@_forward_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return weight.new_empty(x.shape[0], weight.shape[2])


@torch.library.custom_op("kan_impls::fourier_product_backward", mutates_args=())
def _backward_op(
    grad_y: Tensor, x: Tensor, weight: Tensor, needs_grad_x: bool, needs_grad_weight: bool
) -> tuple[Tensor, Tensor]:
    grads = product.backward(grad_y, x, weight, _basis(weight), needs_grad_x, needs_grad_weight)
    # An operator returns tensors only: an empty one stands for "not needed".
    return tuple(x.new_empty(0) if grad is None else grad for grad in grads)  # type: ignore[return-value]


@_backward_op.register_fake
def _(
    grad_y: Tensor, x: Tensor, weight: Tensor, needs_grad_x: bool, needs_grad_weight: bool
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x) if needs_grad_x else x.new_empty(0),
        torch.empty_like(weight) if needs_grad_weight else x.new_empty(0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _compiled_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    grad_x, grad_weight = _backward_op(grad_y, x, weight, needs_x, needs_weight)
    return (
        grad_x if needs_x else None,
        grad_weight if needs_weight else None,
        _grad_bias(grad_y) if needs_bias else None,
    )


_forward_op.register_autograd(_compiled_backward, setup_context=_setup_context)
