"""What the machine itself needs: a product of the same size, a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch

from perfgate.measure.timing import SynchronizedTimer, Timed, Timer
from perfgate.network.case import FLOAT_BYTES, Precision, Product
from perfgate.network.precision import element_of, products_in

REPEATS = 5


class Floor(NamedTuple):
    """The two ceilings of a machine at one size, as times."""

    product_ns: float
    copy_ns: float

    @property
    def ns(self) -> float:
        """Neither the products nor the bytes can be had for less."""
        return max(self.product_ns, self.copy_ns)


@cache
def measure_floor(
    device: torch.device,
    products: tuple[Product, ...],
    num_bytes: int,
    precision: Precision | None = None,
    timer: Timer | None = None,
) -> Floor:
    """The shortest of `REPEATS` runs of the products, and of a copy that moves `num_bytes`.

    Operands and results are allocated before: pages that the system must first find are
    a cost of the implementation.

    Args:
        device: where.
        products: sizes of the products.
        num_bytes: each of them is read or written once.
        precision: that of the products.
        timer: what times both, as it times the implementation; by default the wall clock.
    """
    timer = timer or SynchronizedTimer(device)
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device=device, generator=generator)

    element = element_of(precision)
    operands = [
        tuple(random(*shape).to(element) for shape in ((m, k), (k, n), (m, n)))
        for m, k, n in products
    ]

    def multiply() -> None:
        for left, right, out in operands:
            torch.mm(left, right, out=out)

    with products_in(precision):
        product_ns = _shortest_ns(timer, multiply)
    source = random(max(1, num_bytes // (2 * FLOAT_BYTES)))  # each byte is read and written
    target = source.clone()
    return Floor(product_ns, _shortest_ns(timer, lambda: target.copy_(source)))


def _shortest_ns(timer: Timer, run: Callable[[], object]) -> float:
    run()
    work = Timed(run)
    return min(timer.time(work) for _ in range(REPEATS)) * 1e9
