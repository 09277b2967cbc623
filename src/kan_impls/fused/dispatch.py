"""Which form of the product runs: the fused CUDA kernels, or the product form.

`backend="auto"` takes the kernels where they can be had and pay, `"product"` never does, and
`"fused"` demands them and says why they cannot be had. Whatever is asked for, an empty batch takes
the product form, and torch.func and `create_graph=True` take PyTorch's own operators.

The choices, and their reasons:

- The kernels evaluate every basis function anew for each 64 outputs, which costs nothing while
  the weights must be read from memory once anyhow. Beyond `MAX_ROWS` rows the products are what
  takes the time; then evaluating once and calling the library's product is as good.
- With at most `FEW_OUTPUTS` outputs nothing is evaluated twice, at any batch.
- On GPUs whose tensor cores do TF32 at about twice the rate of float32 arithmetic
  (`SLOW_TF32`), three products of TF32 take longer than one in float32, which the library
  does: there only batches of at most `MEMORY_BOUND_ROWS` rows take the accurate kernels.

No kernel is used on a device before it has passed its known-answer test there, see
`kan_impls.fused.proof`.

These limits are estimates from the rates of data sheets, not measurements.
"""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from kan_impls.basis.base import Basis
from kan_impls.fused import cuda, jit, kernels, product, proof
from kan_impls.fused.jit import CompileError, KernelUnavailable
from kan_impls.fused.kernels import Functions, Precision
from kan_impls.fused.operands import Needs, Operands, of_sets, terms_of

Backend = Literal["auto", "fused", "product"]

MAX_ROWS = 512
FEW_OUTPUTS = 64
MEMORY_BOUND_ROWS = 32
SLOW_TF32 = (86, 87, 89, 120, 121)


def check_backend(backend: str) -> Backend:
    """Return the backend if there is one of that name.

    Raises:
        ValueError: there is none.
    """
    if backend not in get_args(Backend):
        raise ValueError(
            f"backend is {backend!r}; expected one of {', '.join(get_args(Backend))}: "
            "pass 'auto' to let shape and device decide"
        )
    return backend  # type: ignore[return-value]


def forward(operands: Operands, basis: Basis, backend: str) -> Tensor:
    """`y = bias + SiLU(x) base_weight + sum_ki phi_k(x_i) scale_io weight_kio`, `(rows, out)`.

    Raises:
        KernelUnavailable: with `backend="fused"`, where the kernels cannot be had, or have failed
            their known-answer test (`proof.KernelRefused`); CompileError likewise.
        ValueError: operands on several devices.
    """
    if _takes_kernels(operands, basis, backend):
        functions = functions_of(operands, basis)
        try:
            return cuda.forward(operands, functions)
        except (KernelUnavailable, CompileError) as error:
            if backend == "fused":
                raise
            _say_once(str(error))
    return product.forward(operands.x, terms_of(operands, basis), operands.bias)


def backward(
    grad_y: Tensor, operands: Operands, basis: Basis, backend: str, needs: Needs
) -> list[Tensor | None]:
    """The gradients of those operands that need one, in their places.

    Raises:
        KernelUnavailable: as `forward`.
    """
    if _takes_kernels(operands, basis, backend):
        functions = functions_of(operands, basis)
        try:
            return cuda.backward(grad_y, operands, functions, needs)
        except (KernelUnavailable, CompileError) as error:
            if backend == "fused":
                raise
            _say_once(str(error))
    return _product_backward(grad_y, operands, basis, needs)


def _product_backward(
    grad_y: Tensor, operands: Operands, basis: Basis, needs: Needs
) -> list[Tensor | None]:
    terms = terms_of(operands, basis)
    of_terms = [
        (needs.weight, needs.scale, any(needs.params)),
        (needs.base_weight, False, False),
    ]
    grad_x, (own, *base) = product.backward(
        grad_y, operands.x, terms, needs.x, of_terms[: len(terms)]
    )
    params: list[Tensor | None] = [None] * len(needs.params)
    if own.params:
        params = [of_sets(*pair) for pair in zip(own.params, operands.params, strict=True)]
    grad_base = base[0].weight if base else None
    return [
        grad_x,
        own.weight,
        own.scale,
        None if grad_base is None else grad_base.squeeze(0),
        grad_y.sum(0) if needs.bias else None,
        *(grad if needed else None for grad, needed in zip(params, needs.params, strict=True)),
    ]


def _takes_kernels(operands: Operands, basis: Basis, backend: str) -> bool:
    """Whether the kernels are to run.

    Raises:
        KernelUnavailable: they are demanded, and cannot.
        ValueError: operands on several devices.
    """
    if backend == "product" or operands.x.shape[0] == 0:
        return False
    if backend == "auto" and not _pay(operands):
        return False
    _check_devices(operands)
    obstacle = _obstacle(operands, basis)
    if obstacle is None:
        return True
    if backend == "fused":
        raise KernelUnavailable(obstacle)
    _say_once(obstacle)
    return False


def _pay(operands: Operands) -> bool:
    """Whether the kernels are the faster form of this shape on this device."""
    if operands.x.device.type != "cuda":
        return False
    rows, outputs = operands.x.shape[0], operands.weight.shape[2]
    element = cuda.ELEMENTS.get(operands.weight.dtype)
    if element is None:
        return False
    is_slow = cuda.device_of(operands.x.device.index).arch in SLOW_TF32
    if is_slow and cuda.precision_of(element) is Precision.ACCURATE:
        return rows <= MEMORY_BOUND_ROWS
    return rows <= MAX_ROWS or outputs <= FEW_OUTPUTS


def _check_devices(operands: Operands) -> None:
    """A kernel would read addresses of another device as its own."""
    for name, tensor in operands.named().items():
        if tensor.device != operands.x.device:
            raise ValueError(
                f"x is on {operands.x.device} and {name} on {tensor.device}; expected one device: "
                f"move the layer or its input with .to(...)"
            )


def _obstacle(operands: Operands, basis: Basis) -> str | None:
    """Why the kernels cannot compute this, or None if they can."""
    dtype = operands.weight.dtype
    parameters = (operands.scale, operands.base_weight, operands.bias)
    if any(parameter is not None and parameter.dtype != dtype for parameter in parameters):
        return "the parameters differ in dtype, and the fused kernels take one: convert the layer"
    if dtype not in cuda.ELEMENTS:
        return (
            f"the parameters are {dtype}, and the fused kernels take float32 and bfloat16: convert "
            "them, or take backend='auto' or 'product'"
        )
    if basis.obstacle is not None:
        return basis.obstacle
    if operands.weight.shape[2] > kernels.MAX_OUTPUTS:
        return (
            f"the layer has {operands.weight.shape[2]} outputs, and a launch of the fused kernels "
            f"at most {kernels.MAX_OUTPUTS}: split the layer"
        )
    return _device_obstacle(operands.x.device)


def _device_obstacle(device: torch.device) -> str | None:
    try:
        jit.available(device)
    except KernelUnavailable as error:
        return str(error)
    return None


def _say_once(obstacle: str) -> None:
    if obstacle not in proof.known.said:
        proof.known.said.add(obstacle)
        warnings.warn(
            f"the fused kernels do not run, and the slower product form does: {obstacle}",
            stacklevel=2,
        )


def functions_of(operands: Operands, basis: Basis) -> Functions:
    """What the kernels evaluate of each input."""
    return Functions(basis, operands.base_weight is not None, operands.scale is not None)
