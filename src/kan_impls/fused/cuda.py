"""The fused CUDA kernels on tensors: planned once for each shape, then packed and launched."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kan_impls.fused import jit, kernels
from kan_impls.fused.kernels import Element, Launch, Precision
from kan_impls.fused.operands import Operands

ELEMENTS = {torch.float32: Element.FLOAT, torch.bfloat16: Element.BFLOAT16}

# The addresses at the start of struct Problem: x, weight, base, scale, bias, grad_y, y,
# workspace, and the gradients of weight, base, scale and x.
NUM_ADDRESSES = 12
_ADDRESSES = struct.Struct(f"{NUM_ADDRESSES}Q")


def forward(operands: Operands, basis: kernels.Basis) -> Tensor:
    """`y` as `product.forward` computes it, for operands on one CUDA device."""
    x, weight, scale, base, bias, _ = map(_plain, operands)
    x = x.float()
    y = weight.new_empty(x.shape[0], weight.shape[2])
    plan = _plan_of("forward", basis, x, weight, scale, bias, base, y)
    workspace = None
    if plan.workspace_bytes:
        workspace = weight.new_empty(plan.workspace_bytes, dtype=torch.uint8)
    plan.launch(weight.device, x, weight, base, scale, bias, None, y, workspace)
    return y


def backward(
    grad_y: Tensor, operands: Operands, basis: kernels.Basis, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of those operands that need one, in their places.

    One kernel gives the gradients of all parameters but the bias, another that of x.
    """
    x, weight, scale, base, _, _ = map(_plain, operands)
    wide, grad_y, device = x.float(), _plain(grad_y), weight.device
    grads: list[Tensor | None] = [None, None, None, None]
    if needs[0]:
        grad_x = torch.empty_like(wide)
        plan = _plan_of("input_grad", basis, wide, weight, scale, None, base, grad_y)
        plan.launch(
            device, wide, weight, base, scale, None, grad_y, None, None, None, None, None, grad_x
        )
        grads[0] = grad_x.to(x.dtype)
    if any(needs[1:4]):
        own = [None if p is None else torch.empty_like(p) for p in (weight, base, scale)]
        plan = _plan_of("weight_grad", basis, wide, weight, scale, None, base, grad_y, *own)
        plan.launch(device, wide, weight, base, scale, None, grad_y, None, None, *own)
        grads[1], grads[3], grads[2] = own
    grads += [grad_y.sum(0) if needs[4] else None, None]
    return [grad if needed else None for grad, needed in zip(grads, needs, strict=True)]


def _plain(tensor: Any) -> Any:
    """Contiguous: a kernel knows no strides, such as the zeros of what `.sum()` sends back."""
    return None if tensor is None else tensor.detach().contiguous()


def precision_of(element: Element) -> Precision:
    """As torch's own products: TF32 if torch is set so, else as exact as float32."""
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return Precision.TF32 if allowed or element is Element.BFLOAT16 else Precision.ACCURATE


@lru_cache
def device_of(index: int) -> kernels.Device:
    """What planning needs to know of a GPU."""
    found = torch.cuda.get_device_properties(index)
    return kernels.Device(10 * found.major + found.minor, found.multi_processor_count)


class _Plan(NamedTuple):
    """The launches of a pass, but for the addresses, and the bytes of its workspace."""

    parts: tuple[Launch, ...]
    workspace_bytes: int

    def launch(self, device: torch.device, *tensors: Tensor | None) -> None:
        """Launch with the addresses of `tensors`, in the order of struct Problem."""
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        packed = _ADDRESSES.pack(*addresses, *[0] * (NUM_ADDRESSES - len(addresses)))
        for part in self.parts:
            arguments = packed + part.arguments[_ADDRESSES.size :]
            jit.launch(
                Launch(part.kernel, part.grid, part.threads, part.shared_bytes, arguments), device
            )


def _plan_of(
    which: str,
    basis: kernels.Basis,
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    *others: Tensor | None,
) -> _Plan:
    """The plan of a pass that reads or writes weight, scale and `others` row by row."""
    element = ELEMENTS[weight.dtype]
    rowwise = (weight, scale, *others)
    aligned = all(tensor is None or tensor.data_ptr() % 16 == 0 for tensor in rowwise)
    return _plan(
        which, basis, x.shape[0], x.shape[1], weight.shape[2], element, precision_of(element),
        weight.device.index, scale is not None, bias is not None, aligned,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _plan(
    which: str,
    basis: kernels.Basis,
    rows: int,
    inputs: int,
    outputs: int,
    element: Element,
    precision: Precision,
    device: int,
    has_scale: bool,
    has_bias: bool,
    is_aligned: bool,
) -> _Plan:
    # Planning asks only for alignment, and whether there is a tensor at all.
    address = 16 if is_aligned else 4
    base, scale, bias = address * basis.has_base, address * has_scale, address * has_bias
    layer = kernels.Layer(basis, rows, inputs, outputs, element, precision, device_of(device))
    read = {"x": address, "weight": address, "base": base, "scale": scale}
    if which == "forward":
        parts = kernels.forward(layer, **read, y=address, bias=bias, workspace=16)
        return _Plan(tuple(parts), kernels.workspace_bytes(layer))
    if which == "input_grad":
        return _Plan(tuple(kernels.input_grad(layer, **read, grad_y=address, grad_x=address)), 0)
    grads = {"grad_weight": address, "grad_base": base, "grad_scale": scale}
    return _Plan(tuple(kernels.weight_grad(layer, **read, grad_y=address, **grads)), 0)
