"""The interleaved reference: plain work of the same kind as what it stands beside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perfgate.measure.timing import Timed
from perfgate.network.case import FLOAT_BYTES, Case, Pass, Product
from perfgate.network.precision import element_of, products_in

# A materialising implementation streams gigabytes; a reference of this size already sees
# the same allocator, page faults and memory bus.
STREAM_BYTES = 256 * 2**20


def like_kind_reference(case: Case, pass_name: Pass, device: torch.device) -> Timed:
    """Work of the kind that bounds the implementation, at the size of the case.

    For `product` the pass's own matrix products; for `stream` the same pass over some rows of a
    product that is materialised and summed. Results are allocated anew in each run, as the
    implementation's are. The products have the precision of the case.
    """
    if case.variant.bound == "stream":
        stream = _Stream(case, pass_name, device)
        return Timed(stream.run, stream.prepare, stream.release)
    random, element = _random_on(device), element_of(case.precision)
    operands = [
        (random(m, k).to(element), random(k, n).to(element)) for m, k, n in case.products(pass_name)
    ]

    def multiply() -> list[Tensor]:
        return [left @ right for left, right in operands]

    def multiply_as_set() -> list[Tensor]:
        with products_in(case.precision):
            return multiply()

    return Timed(multiply if case.precision is None else multiply_as_set)


class _Stream:
    """`(x * w).sum(-1)` of the case's largest layer, forward and backward."""

    def __init__(self, case: Case, pass_name: Pass, device: torch.device) -> None:
        _, k, n = largest = max(case.products("forward"), key=lambda product: product.flops)
        rows = rows_within(STREAM_BYTES, largest)
        random = _random_on(device)
        self.pass_name = pass_name
        self.x = random(rows, 1, k).requires_grad_(pass_name == "backward_with_input_grad")
        self.weight = random(1, n, k).requires_grad_()
        self.total: Tensor | None = None

    def prepare(self) -> None:
        if self.pass_name.startswith("backward"):
            self.total = self._forward()

    def run(self) -> None:
        if self.pass_name == "forward":
            self.total = self._forward()
        elif self.pass_name == "training_step":
            self._forward().backward()
        elif self.total is not None:
            self.total.backward()

    def release(self) -> None:
        self.total = self.x.grad = self.weight.grad = None

    def _forward(self) -> Tensor:
        return (self.x * self.weight).sum(-1).mean()


def rows_within(num_bytes: int, product: Product) -> int:
    """How many rows of the materialised product fill that many bytes, at least one."""
    return min(product.m, max(1, num_bytes // (product.k * product.n * FLOAT_BYTES)))


def _random_on(device: torch.device) -> Callable[..., Tensor]:
    """`random(*shape)`, the same numbers in every process."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, generator=generator)

    return random
