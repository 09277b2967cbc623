"""What PyTorch does to a call besides running it, and what an own backward pass must know of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad


def needs_formula(tensors: Iterable[Tensor | None], is_compiling: bool) -> bool:
    """Whether only PyTorch's own operators will do: under torch.func, for forward-mode
    derivatives, and where `torch.jit.trace` records or `torch.export` does, whose programs run, and
    become ONNX, without this package."""
    if torch._C._are_functorch_transforms_active() or torch.compiler.is_exporting():
        return True
    return not is_compiling and (_is_dual(tensors) or _is_traced())


def is_fake(tensors: Iterable[Tensor | None]) -> bool:
    """Whether there are shapes only: of fake tensors, which have no memory, or in their mode."""
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    return mode is not None or any(isinstance(tensor, FakeTensor) for tensor in tensors)


def _is_traced() -> bool:
    """Whether `torch.jit.trace` records: it knows neither this package's function nor operator."""
    return torch._C._is_tracing()


def _is_dual(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a tensor carries a tangent of `torch.autograd.forward_ad`."""
    if forward_ad._current_level < 0:
        return False
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def is_batched(grad_y: Tensor) -> bool:
    """Whether it stands for several cotangents: `is_grads_batched`, a vectorised Jacobian, vmap."""
    # By name: of the two kinds of batched tensors, only that of torch.func can be asked for.
    return "Batched" in str(torch._C._dispatch_keys(grad_y))
