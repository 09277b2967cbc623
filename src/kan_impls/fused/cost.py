"""What the operators of this package cost, by formula: they are opaque where the kernels run.

Operators, FLOPs, bytes read and bytes written are what the fused kernels are made for: each
operand of a kernel once, each result once, and the matrix products of the mathematics (2mkn FLOPs,
whatever the number of tensor-core products that one in float32 takes). Left out are rows and
weights that blocks of a kernel read again, which the second-level cache is to deliver, and the
partial sums of at most `kan_impls.fused.kernels.WORKSPACE_BYTES`, which depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from kan_impls.fused.operands import Needs, Operands


class Cost(NamedTuple):
    """What a call costs.

    Args:
        operators: kernels, or operators of torch.
        flops: floating-point operations of matrix products.
        bytes_read, bytes_written: traffic with memory.
    """

    operators: int
    flops: int
    bytes_read: int
    bytes_written: int


def forward(*arguments: Any) -> Cost:
    """Of `kan_impls::basis_product`, whose arguments these are: one kernel."""
    *tensors, _, _ = arguments
    operands = Operands(*tensors)
    x, weight = operands.x, operands.weight
    written = x.shape[0] * weight.shape[2] * weight.element_size()
    flops = _flops(x, weight) + _flops(x, operands.base_weight)
    return Cost(1, flops, _bytes(*operands.flat), written)


def backward(*arguments: Any) -> Cost:
    """Of `kan_impls::basis_product_backward`, whose arguments these are: a kernel for the gradient
    of x, one for those of the weights, one for those of the basis's parameters, and the sum of the
    bias's."""
    grad_y, *tensors, _, _, flags = arguments
    operands, needs = Operands(*tensors), Needs.of(flags)
    x, weight, scale, base_weight, bias, params = operands
    operators = flops = read = written = 0
    if needs.x:
        operators += 1
        flops += _flops(x, weight) + _flops(x, base_weight)
        read += _bytes(grad_y, x, weight, scale, base_weight, *params)
        written += _bytes(x)
    own, of_scale, of_base = needs[1:4]
    if own or of_scale or of_base:
        operators += 1
        flops += (_flops(x, weight) if own or of_scale else 0) + of_base * _flops(x, base_weight)
        # The gradient of a scale takes the weights, that of the weights takes the scale.
        read += _bytes(grad_y, x, weight if of_scale else None, scale if own else None, *params)
        grads = (weight, own), (scale, of_scale), (base_weight, of_base)
        written += _bytes(*(tensor for tensor, needed in grads if needed))
    if any(needs.params):
        operators += 1
        # The gradients of the values are those that the gradient of x takes, too.
        flops += 0 if needs.x else _flops(x, weight)
        read += _bytes(grad_y, x, weight, scale, *params)
        written += _bytes(
            *(param for param, needed in zip(params, needs.params, strict=True) if needed)
        )
    if needs.bias:
        operators += 1
        read += _bytes(grad_y)
        written += _bytes(bias)
    return Cost(operators, flops, read, written)


def _flops(x: Tensor, weight: Tensor | None) -> int:
    """Of one product of a basis of x with its weights, or of its gradients."""
    return 0 if weight is None else 2 * x.shape[0] * weight.numel()


def _bytes(*tensors: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


# By the name of the operator.
DECLARED: dict[str, Callable[..., Cost]] = {
    "kan_impls::basis_product": forward,
    "kan_impls::basis_product_backward": backward,
}
