"""What is timed: whole training steps, and the passes of the hidden layer alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kan_impls import get_variant
from kan_impls.basis.base import Basis
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import dispatch
from kan_impls.fused.operands import Needs, Operands
from perfgate.measure import memory
from perfgate.network.case import Case, Product
from perfgate.network.workload import pass_of

MODES = ("fp32", "tf32", "bf16")
PASSES = ("forward", "weight_grad", "input_grad")


@contextlib.contextmanager
def products_in(mode: str) -> Iterator[None]:
    """Set what torch does with float32 products, as long as this lasts."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if mode == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def element_of(mode: str) -> torch.dtype:
    return torch.bfloat16 if mode == "bf16" else torch.float32


# Whole models


@dataclass(frozen=True)
class Implementation:
    """A row of the table of training steps; `config` is over the reference configuration."""

    label: str
    variant: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_cuda(self) -> bool:
        return self.config.get("backend") == "fused"

    def case(self, batch: int, width: int) -> Case:
        """That of the reference, with another width of the input and another batch."""
        variant = get_variant(self.variant)
        widths = [max(1, size * width // 1000) for size in variant.reference_widths]
        config = {**variant.reference_config, **self.config}
        return Case("reference", variant, batch, widths, config)


MLP = "mlp"
IMPLEMENTATIONS = (
    Implementation(MLP, "mlp"),
    Implementation("fused_fourier_kan fused", "fused_fourier_kan", {"backend": "fused"}),
    Implementation("fused_fourier_kan product", "fused_fourier_kan", {"backend": "product"}),
    Implementation("fused_efficient_kan fused", "fused_efficient_kan", {"backend": "fused"}),
    Implementation("fused_efficient_kan product", "fused_efficient_kan", {"backend": "product"}),
    Implementation("efficient_kan", "efficient_kan"),
    Implementation("fourier_kan", "fourier_kan"),
)


class Step:
    """A training step: forward, loss and backward, the gradients left in place."""

    def __init__(self, case: Case, device: torch.device, mode: str) -> None:
        self._workload = pass_of(case, "training_step", device)
        self._device, self._mode = device, mode

    def clear(self) -> None:
        self._workload.release()

    def __call__(self) -> None:
        self.backward(self.forward())

    def forward(self) -> Tensor:
        # Without autocast's cache: no weight is cast twice, and a graph could not keep it.
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._mode == "bf16", cache_enabled=False
        ):
            return self._workload.forward()

    def backward(self, y: Tensor) -> None:
        self._workload.loss(y.float()).backward()

    def peak_bytes(self) -> dict[str, int]:
        """Above what was allocated before, of the forward pass and of the backward pass."""
        self.clear()
        peaks = memory.measure_peaks(self._device, self.forward, self.backward)
        self.clear()
        return {
            "forward_peak_bytes": peaks.forward_peak_bytes,
            "backward_peak_bytes": peaks.backward_peak_bytes,
        }


# The hidden layer alone


@dataclass(frozen=True)
class Kind:
    """A basis of the reference configuration; `functions` without the base branch."""

    name: str
    basis: Basis
    functions: int
    has_base: bool

    @property
    def terms(self) -> int:
        return self.functions + self.has_base


KINDS = (
    Kind("fourier", FourierBasis(5), 10, False),
    Kind("splines", UniformBSplineBasis(8, 3, -2.2, 2.2), 8, True),
)


class LayerPasses:
    """The three passes of a hidden layer of `width` inputs and outputs, without autograd."""

    def __init__(self, kind: Kind, rows: int, width: int, device: torch.device, mode: str) -> None:
        self.kind = kind
        dtype = element_of(mode)
        generator = torch.Generator(device).manual_seed(0)

        def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            values = torch.rand(shape, device=device, generator=generator) * 2 - 1
            return values.to(dtype)

        base = kind.has_base
        self._operands = Operands(
            random(rows, width, dtype=torch.float32),
            random(kind.functions, width, width),
            scale=random(width, width) if base else None,
            base_weight=random(width, width) if base else None,
            bias=None if base else random(width),
        )
        self._grad_y = random(rows, width)

    def work(self, which: str, backend: str) -> Callable[[], Any]:
        """One of PASSES, by `backend` "fused" or "product"."""
        operands, basis, grad_y = self._operands, self.kind.basis, self._grad_y
        if which == "forward":
            return lambda: dispatch.forward(operands, basis, backend)
        base = self.kind.has_base
        needs = Needs(False, True, base, base)
        if which == "input_grad":
            needs = Needs(True, False)
        return lambda: dispatch.backward(grad_y, operands, basis, backend, needs)


def mlp_pass(which: str, rows: int, width: int, device: torch.device, mode: str) -> Callable:
    """The same pass of the MLP's hidden layer, ten times as wide at its output."""
    dtype = element_of(mode)
    x = torch.rand(rows, width, device=device).to(dtype)
    weight = torch.rand(10 * width, width, device=device).to(dtype)
    bias, grad_y = weight[:, 0].clone(), torch.rand(rows, 10 * width, device=device).to(dtype)
    return {
        "forward": lambda: F.linear(x, weight, bias),
        "weight_grad": lambda: grad_y.t() @ x,
        "input_grad": lambda: grad_y @ weight,
    }[which]


def product_of(which: str, rows: int, depth: int, width: int) -> Product:
    """The matrix product that a pass of a layer is at least."""
    return {
        "forward": Product(rows, depth, width),
        "weight_grad": Product(depth, rows, width),
        "input_grad": Product(rows, width, depth),
    }[which]


# The floor


def products_work(
    products: list[Product], device: torch.device, dtype: torch.dtype
) -> Callable[[], None]:
    """The library's products of these sizes, into results allocated before."""

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, device=device).to(dtype)

    operands = [(random(m, k), random(k, n), random(m, n)) for m, k, n in products]

    def multiply() -> None:
        for left, right, out in operands:
            torch.mm(left, right, out=out)

    return multiply


def copy_work(num_bytes: int, device: torch.device) -> Callable[[], Any]:
    """A copy that moves so many bytes, each read once or written once."""
    source = torch.rand(max(1, num_bytes // 8), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
