"""Which form of the product runs: the fused CUDA kernels, the product form, or the formula.

`backend="auto"` takes what is the fastest on a CUDA device, by measurement, see
`kan_impls.fused.choosing`. `"product"` takes the product form, and `"fused"` demands the kernels
and says why they cannot be had. Whatever is asked for, an empty batch takes the product form, and
torch.func and `create_graph=True` take PyTorch's own operators.

Where nothing is measured, `"auto"` takes the kernels where they can be had and pay by these
estimates, from the rates of data sheets:

- The kernels evaluate every basis function anew for each 64 outputs, which costs nothing while
  the weights must be read from memory once anyhow. Beyond `MAX_ROWS` rows the products are what
  takes the time; then evaluating once and calling the library's product is as good.
- With at most `FEW_OUTPUTS` outputs nothing is evaluated twice, at any batch.
- On GPUs whose tensor cores do TF32 at about twice the rate of float32 arithmetic
  (`SLOW_TF32`), three products of TF32 take longer than one in float32, which the library
  does: there only batches of at most `MEMORY_BOUND_ROWS` rows take the accurate kernels.

No kernel is used on a device before it has passed its known-answer test there, see
`kan_impls.fused.proof`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from kan_impls.basis.base import Basis
from kan_impls.fused import (
    cells,
    choosing,
    cpu,
    cuda,
    forms,
    formula,
    jit,
    kernels,
    product,
    proof,
)
from kan_impls.fused.evaluated import can_evaluate
from kan_impls.fused.forms import CompiledProduct, Form, Kernels, Product
from kan_impls.fused.jit import CompileError, KernelUnavailable
from kan_impls.fused.kernels import Precision
from kan_impls.fused.operands import Needs, Operands, of_sets
from kan_impls.fused.term import Term
from kan_impls.fused.transforms import is_fake
from kan_impls.fused.workspace import Workspace

Backend = Literal["auto", "fused", "product"]
Result = TypeVar("Result")

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


def forward(operands: Operands, basis: Basis, backend: str, is_fixed: bool = False) -> Tensor:
    """`y = bias + SiLU(x) base_weight + sum_ki phi_k(x_i) scale_io weight_kio`, `(rows, out)`.

    Args:
        is_fixed: nothing is measured, and no measurement decides.

    Raises:
        KernelUnavailable: with `backend="fused"`, where the kernels cannot be had, or have failed
            their known-answer test (`proof.KernelRefused`); CompileError likewise.
        ValueError: operands on several devices.
    """

    def run(form: Form) -> Tensor:
        match form:
            case Kernels(tiling):
                return cuda.forward(operands, cuda.functions_of(operands, basis), tiling)
            case CompiledProduct(compiled):
                if plan := compiled.plan(operands):
                    return compiled.forward(operands, plan)
                return product.forward(operands.x, compiled.terms(operands), operands.bias)
            case Product(workspace):
                terms = choosing.terms_in(form, operands, basis)
                return product.forward(operands.x, terms, operands.bias, workspace)
            case _:
                return formula.forward(operands, basis)

    return _run("forward", run, operands, basis, backend, is_fixed, None)


def backward(
    grad_y: Tensor,
    operands: Operands,
    basis: Basis,
    backend: str,
    needs: Needs,
    is_fixed: bool = False,
) -> list[Tensor | None]:
    """The gradients of those operands that need one, in their places.

    Args:
        is_fixed: as in `forward`.

    Raises:
        KernelUnavailable: as `forward`.
    """

    def run(form: Form) -> list[Tensor | None]:
        match form:
            case Kernels(tiling):
                functions = cuda.functions_of(operands, basis)
                return cuda.backward(grad_y, operands, functions, needs, tiling)
            case CompiledProduct(compiled):
                if plan := compiled.plan(operands, needs):
                    return compiled.backward(grad_y, operands, needs, plan)
                return _product_backward(grad_y, operands, compiled.terms(operands), needs)
            case Product(workspace):
                terms = choosing.terms_in(form, operands, basis)
                return _product_backward(grad_y, operands, terms, needs, workspace)
            case _:
                return formula.backward(grad_y, operands, basis, needs)

    return _run("backward", run, operands, basis, backend, is_fixed, needs)


def _run(
    which: str,
    run: Callable[[Form], Result],
    operands: Operands,
    basis: Basis,
    backend: str,
    is_fixed: bool,
    needs: Needs | None,
) -> Result:
    """A pass in the form that is demanded, measured to be the fastest, or suggested."""
    instead: Form = Product()
    form: Form | None = None
    try:
        if backend == "auto" and not is_fixed and choosing.is_open(operands):
            _check_devices(operands)
            find = partial(_candidates, operands, basis)
            form = choosing.chosen(which, operands, basis, needs, find, run, _leave_out)
        else:
            form = _suggested(operands, basis, backend)
        forms.ran(which, form)
        return run(form)
    except (KernelUnavailable, CompileError) as error:
        if backend == "fused":
            raise
        _give_up(error)
    except torch.OutOfMemoryError:
        # The workspace is as large as was harmless when the process began.
        if isinstance(form, Kernels) or not _is_on_gpu(operands):
            raise
        instead = Product(cells.SMALLEST)
    forms.ran(which, instead)
    return run(instead)


def _candidates(operands: Operands, basis: Basis) -> choosing.Candidates:
    """What measurements choose from."""
    suggested = _suggested(operands, basis, "auto")
    has_kernels = _obstacle(operands, basis) is None
    return choosing.Candidates(suggested, has_kernels, _can_evaluate(operands, basis))


def _suggested(operands: Operands, basis: Basis, backend: str) -> Form:
    """The form that is demanded, or taken where nothing is measured; raises as
    `_takes_kernels`."""
    if _takes_kernels(operands, basis, backend):
        return Kernels()
    if backend == "auto" and _can_evaluate(operands, basis):
        return Product(is_evaluated=True)
    compiled = cpu.compiled(operands, basis)
    return Product() if compiled is None else CompiledProduct(compiled)


def _product_backward(
    grad_y: Tensor,
    operands: Operands,
    terms: Sequence[Term],
    needs: Needs,
    workspace: Workspace | None = None,
) -> list[Tensor | None]:
    of_terms = [
        (needs.weight, needs.scale, any(needs.params)),
        (needs.base_weight, False, False),
    ]
    grad_x, (own, *base) = product.backward(
        grad_y, operands.x, terms, needs.x, of_terms[: len(terms)], workspace
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
    if backend == "auto" and (not _pay(operands) or is_fake(operands.flat)):
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
    if not _is_on_gpu(operands):
        return False
    rows, outputs = operands.x.shape[0], operands.weight.shape[2]
    element = cuda.ELEMENTS.get(operands.weight.dtype)
    if element is None:
        return False
    is_slow = cuda.device_of(operands.x.device.index).arch in SLOW_TF32
    if is_slow and cuda.precision_of(element) is Precision.ACCURATE:
        return rows <= MEMORY_BOUND_ROWS
    return rows <= MAX_ROWS or outputs <= FEW_OUTPUTS


def _is_on_gpu(operands: Operands) -> bool:
    return operands.x.device.type == "cuda"


def _can_evaluate(operands: Operands, basis: Basis) -> bool:
    """Whether kernels may evaluate the basis for the product form."""
    if not _is_on_gpu(operands) or operands.x.shape[0] == 0 or is_fake(operands.flat):
        return False
    dtype = torch.promote_types(
        torch.promote_types(operands.x.dtype, operands.weight.dtype), torch.float32
    )
    return can_evaluate(basis, dtype) and _device_obstacle(operands.x.device) is None


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
    if is_fake(operands.flat):
        return "the tensors are fake, and the fused kernels read memory: take backend='auto'"
    return _device_obstacle(operands.x.device)


def _device_obstacle(device: torch.device) -> str | None:
    try:
        jit.available(device)
    except KernelUnavailable as error:
        return str(error)
    return None


def _give_up(error: Exception) -> None:
    _say_once(str(error))


def _leave_out(error: Exception) -> None:
    _say_once(str(error), "not all fused kernels run, and the fastest other form does")


def _say_once(
    obstacle: str, effect: str = "the fused kernels do not run, and the slower product form does"
) -> None:
    if obstacle not in proof.known.said:
        proof.known.said.add(obstacle)
        warnings.warn(f"{effect}: {obstacle}", stacklevel=2)
