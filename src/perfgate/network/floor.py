"""What the machine itself needs: a product of the same size, a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch

from perfgate.measure.timing import SynchronizedTimer
from perfgate.network.case import FLOAT_BYTES, Product

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
def measure_floor(device: torch.device, products: tuple[Product, ...], num_bytes: int) -> Floor:
    """The shortest of `REPEATS` runs of the products, and of a copy that moves `num_bytes`.

    Operands and results are allocated before: pages that the system must first find are
    a cost of the implementation.
    """
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device=device, generator=generator)

    operands = [(random(m, k), random(k, n), random(m, n)) for m, k, n in products]

    def multiply() -> None:
        for left, right, out in operands:
            torch.mm(left, right, out=out)

    product_ns = _shortest_ns(device, multiply)
    source = random(max(1, num_bytes // (2 * FLOAT_BYTES)))  # each byte is read and written
    target = source.clone()
    return Floor(product_ns, _shortest_ns(device, lambda: target.copy_(source)))


def _shortest_ns(device: torch.device, run: Callable[[], object]) -> float:
    timer = SynchronizedTimer(device)
    run()
    times: Sequence[float] = []
    for _ in range(REPEATS):
        start = timer()
        run()
        times = [*times, timer() - start]
    return min(times) * 1e9
