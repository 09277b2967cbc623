"""The fused CUDA kernels on tensors: planned once for each shape, proven once for each device, then
packed and launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kan_impls.basis.base import Basis
from kan_impls.fused import jit, kernels, proof
from kan_impls.fused.kernels import Device, Element, Functions, Layer, Plan, Precision
from kan_impls.fused.operands import Needs, Operands, of_sets
from kan_impls.fused.tiles import SUGGESTED, Tiling

ELEMENTS = {torch.float32: Element.FLOAT, torch.bfloat16: Element.BFLOAT16}


def forward(operands: Operands, functions: Functions, tiling: Tiling = SUGGESTED) -> Tensor:
    """`y` as `product.forward` computes it, for operands on one CUDA device.

    Raises:
        KernelUnavailable, CompileError: a kernel cannot be had, or has not passed its test.
    """
    plan = _proven("forward", operands, functions, tiling)  # before anything is copied for it
    operands = _plain(operands)
    weight, tensors = operands.weight, operands.named()
    y = tensors["y"] = weight.new_empty(operands.x.shape[0], weight.shape[2])
    if plan.workspace_bytes:
        tensors["workspace"] = weight.new_empty(plan.workspace_bytes, dtype=torch.uint8)
    launch(plan, tensors, operands.params, weight.device)
    return y


def backward(
    grad_y: Tensor,
    operands: Operands,
    functions: Functions,
    needs: Needs,
    tiling: Tiling = SUGGESTED,
) -> list[Tensor | None]:
    """The gradients of those operands that need one, in their places.

    One kernel gives the gradients of all weights, another that of x, another those of the basis's
    parameters. All of them are proven before the first one is launched.
    """
    of_weights = needs.weight or needs.scale or needs.base_weight
    sizes = {"size": sum(param.shape[1] for param in operands.params)}
    plans = {
        which: _proven(which, operands, functions, own, **options)
        for which, is_needed, own, options in (
            ("input_grad", needs.x, tiling, {}),
            ("weight_grad", of_weights, SUGGESTED, {}),
            ("param_grad", any(needs.params), tiling, sizes),
        )
        if is_needed
    }
    given, operands = operands, _plain(operands)
    grads = dict[str, Tensor]()
    where = operands.params, operands.weight.device
    read = {**operands.named(), "grad_y": grad_y.contiguous()}
    if needs.x:
        grads["x"] = torch.empty_like(operands.x)
        launch(plans["input_grad"], {**read, "grad_x": grads["x"]}, *where)
        grads["x"] = grads["x"].to(given.x.dtype)
    if of_weights:
        for name in ("weight", "scale", "base_weight"):
            if name in read:
                grads[name] = torch.empty_like(read[name])
        written = {f"grad_{name}": grad for name, grad in grads.items() if name != "x"}
        launch(plans["weight_grad"], {**read, **written}, *where)
    if any(needs.params):
        grads |= _param_grads(plans["param_grad"], read, operands)
    if needs.bias:
        grads["bias"] = read["grad_y"].sum(0)
    pairs = zip(operands.names, needs.flat, strict=True)
    return [grads[name] if needed else None for name, needed in pairs]


def _param_grads(plan: Plan, read: Mapping[str, Tensor], operands: Operands) -> dict[str, Tensor]:
    sizes = [param.shape[1] for param in operands.params]
    count = plan.workspace_bytes // 4
    parts = operands.x.new_empty(count).view(-1, operands.x.shape[1], sum(sizes))
    launch(plan, {**read, "grad_params": parts}, operands.params, operands.weight.device)
    # A sum for each: as views of one sum they would share memory, which no operator's results may.
    own = [of_param.sum(0) for of_param in parts.split(sizes, 2)]
    return {
        f"params{n}": of_sets(grad, param)
        for n, (grad, param) in enumerate(zip(own, operands.params, strict=True))
    }


def launch(
    plan: Plan, tensors: Mapping[str, Tensor], params: Sequence[Tensor], device: torch.device
) -> None:
    """Launch on tensors by the names of their addresses; `params` are those of the basis."""
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    sets = [param.shape[0] for param in params]
    for part in plan.at(addresses, sets):
        jit.launch(part, device)


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


def functions_of(operands: Operands, basis: Basis) -> Functions:
    """What the kernels evaluate of each input."""
    return Functions(basis, operands.base_weight is not None, operands.scale is not None)


def layer_of(operands: Operands, functions: Functions) -> Layer:
    """What decides the plans of a product."""
    return _layer(*_shape_of(operands, functions))


def _shape_of(operands: Operands, functions: Functions) -> tuple[Any, ...]:
    """Arguments of `_layer`."""
    x, weight = operands.x, operands.weight
    element = ELEMENTS[weight.dtype]
    sizes = (x.shape[0], x.shape[1], weight.shape[2])
    return functions, *sizes, element, precision_of(element), weight.device.index


def _proven(
    which: str, operands: Operands, functions: Functions, tiling: Tiling, **options: int
) -> Plan:
    """The plan of a pass, whose kernels have passed their test on this device.

    Raises:
        KernelUnavailable, CompileError: as `proof.require`.
    """
    plan = _plan(which, tiling, *_shape_of(operands, functions), **options)
    proof.require(which, plan, operands.weight.device, **options)
    return plan


@lru_cache(maxsize=4096)
def _plan(which: str, tiling: Tiling, *shape: Any, **options: int) -> Plan:
    own = {} if tiling == SUGGESTED else {"tiling": tiling}
    return getattr(kernels, which)(_layer(*shape), **options, **own)


def _layer(
    functions: Functions,
    rows: int,
    inputs: int,
    outputs: int,
    element: Element,
    precision: Precision,
    device: int,
) -> Layer:
    return Layer(functions, rows, inputs, outputs, element, precision, device_of(device))
