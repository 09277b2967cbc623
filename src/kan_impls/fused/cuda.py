"""The fused CUDA kernels on tensors: planned once for each shape, then packed and launched."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kan_impls.fused import jit, kernels
from kan_impls.fused.kernels import Device, Element, Functions, Layer, Plan, Precision
from kan_impls.fused.operands import Needs, Operands, of_sets

ELEMENTS = {torch.float32: Element.FLOAT, torch.bfloat16: Element.BFLOAT16}


def forward(operands: Operands, functions: Functions) -> Tensor:
    """`y` as `product.forward` computes it, for operands on one CUDA device."""
    operands = _plain(operands)
    weight = operands.weight
    plan = _plan("forward", *_shape_of(operands, functions))
    tensors = operands.named()
    y = tensors["y"] = weight.new_empty(operands.x.shape[0], weight.shape[2])
    if plan.workspace_bytes:
        tensors["workspace"] = weight.new_empty(plan.workspace_bytes, dtype=torch.uint8)
    launch(plan, tensors, operands)
    return y


def backward(
    grad_y: Tensor, operands: Operands, functions: Functions, needs: Needs
) -> list[Tensor | None]:
    """The gradients of those operands that need one, in their places.

    One kernel gives the gradients of all weights, another that of x, another those of the basis's
    parameters.
    """
    given, operands = operands, _plain(operands)
    shape, grads = _shape_of(operands, functions), dict[str, Tensor]()
    read = {**operands.named(), "grad_y": grad_y.contiguous()}
    if needs.x:
        grads["x"] = torch.empty_like(operands.x)
        launch(_plan("input_grad", *shape), {**read, "grad_x": grads["x"]}, operands)
        grads["x"] = grads["x"].to(given.x.dtype)
    if needs.weight or needs.scale or needs.base_weight:
        for name in ("weight", "scale", "base_weight"):
            if name in read:
                grads[name] = torch.empty_like(read[name])
        written = {f"grad_{name}": grad for name, grad in grads.items() if name != "x"}
        launch(_plan("weight_grad", *shape), {**read, **written}, operands)
    if any(needs.params):
        grads |= _param_grads(read, operands, shape)
    if needs.bias:
        grads["bias"] = read["grad_y"].sum(0)
    pairs = zip(operands.names, needs.flat, strict=True)
    return [grads[name] if needed else None for name, needed in pairs]


def _param_grads(
    read: Mapping[str, Tensor], operands: Operands, shape: tuple[Any, ...]
) -> dict[str, Tensor]:
    sizes = [param.shape[1] for param in operands.params]
    plan = _plan("param_grad", *shape, size=sum(sizes))
    count = plan.workspace_bytes // 4
    parts = operands.x.new_empty(count).view(-1, operands.x.shape[1], sum(sizes))
    launch(plan, {**read, "grad_params": parts}, operands)
    own = parts.sum(0).split(sizes, 1)
    return {
        f"params{n}": of_sets(grad, param)
        for n, (grad, param) in enumerate(zip(own, operands.params, strict=True))
    }


def launch(plan: Plan, tensors: Mapping[str, Tensor], operands: Operands) -> None:
    """Launch on tensors by the names of their addresses."""
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    sets = [param.shape[0] for param in operands.params]
    for part in plan.at(addresses, sets):
        jit.launch(part, operands.weight.device)


def _plain(operands: Operands) -> Operands:
    """Contiguous: a kernel knows no strides. x and the basis's parameters are in float32."""
    x = operands.x.detach().float().contiguous()
    weights = [None if t is None else t.detach().contiguous() for t in operands.flat[1:5]]
    params = [param.detach().float().contiguous() for param in operands.params]
    return Operands.of([x, *weights, *params])


def precision_of(element: Element) -> Precision:
    """As torch's own products: TF32 if torch is set so, else as exact as float32."""
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return Precision.TF32 if allowed or element is Element.BFLOAT16 else Precision.ACCURATE


@lru_cache
def device_of(index: int) -> Device:
    """What planning needs to know of a GPU."""
    found = torch.cuda.get_device_properties(index)
    return Device(10 * found.major + found.minor, found.multi_processor_count)


def _shape_of(operands: Operands, functions: Functions) -> tuple[Any, ...]:
    """What decides the plans of a product: arguments of `_plan`."""
    x, weight = operands.x, operands.weight
    element = ELEMENTS[weight.dtype]
    sizes = (x.shape[0], x.shape[1], weight.shape[2])
    return functions, *sizes, element, precision_of(element), weight.device.index


@lru_cache(maxsize=4096)
def _plan(
    which: str,
    functions: Functions,
    rows: int,
    inputs: int,
    outputs: int,
    element: Element,
    precision: Precision,
    device: int,
    **options: int,
) -> Plan:
    layer = Layer(functions, rows, inputs, outputs, element, precision, device_of(device))
    return getattr(kernels, which)(layer, **options)
