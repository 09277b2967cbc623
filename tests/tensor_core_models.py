"""How tensor cores may add up: models of mma.m16n8k8 for TF32, and operands that tell them apart.

The products of a step are exact. Before they are added, hardware may shift all terms to the
exponent of the largest and cut off what lies `extra` bits below the last bit of a float; it may
add 4 products at a time; and it may take the exponent of a product from its factors, before
their significands are multiplied. The sum is cut to a float.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ROWS, COLUMNS, DEPTH = 16, 8, 8
LOW_BITS = np.uint32(0x1FFF)  # of an operand, which hardware ignores

# One warp per block, one product per warp; `a`, `b` and `c` as matrices, row by row.
PROBE = r"""
#include "primitives.cuh"

struct Probe { const u32* a; const u32* b; const float* c; float* d; };

template <int STEPS>
__global__ void probe(const Probe probe) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const u32* left = probe.a + blockIdx.x * 128;
  const u32* right = probe.b + blockIdx.x * 64;
  u32 a[4] = {left[g * 8 + t], left[(g + 8) * 8 + t], left[g * 8 + t + 4],
              left[(g + 8) * 8 + t + 4]};
  u32 b[2] = {right[t * 8 + g], right[(t + 4) * 8 + g]};
  float d[4];
  for (int i = 0; i < 4; i++)
    d[i] = probe.c[blockIdx.x * 128 + (g + i / 2 * 8) * 8 + 2 * t + i % 2];
  for (int step = 0; step < STEPS; step++) mma_m16n8k8_tf32(d, a, b);
  for (int i = 0; i < 4; i++)
    probe.d[blockIdx.x * 128 + (g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}
"""
KERNEL = "probe<1>"


@dataclass(frozen=True)
class Probe:
    """A launch of the probe; see `kan_impls.fused.jit.Plan`."""

    grid: tuple[int, int, int]
    arguments: bytes
    kernel: str = KERNEL
    threads: int = 32
    shared_bytes: int = 0


def launch_of(count: int, *addresses: int) -> Probe:
    """Of `count` products; the addresses are those of a, b, c and d."""
    return Probe((count, 1, 1), struct.pack("4Q", *addresses))


class Operands(NamedTuple):
    """Shapes `(products, 16, 8)`, `(products, 8, 8)` and `(products, 16, 8)`."""

    a: Floats
    b: Floats
    c: Floats

    @classmethod
    def of(cls, a: NDArray, b: NDArray, c: NDArray) -> Operands:
        return cls(*(np.ascontiguousarray(value, np.float32) for value in (a, b, c)))


def exact_operands(count: int = 64) -> dict[str, Operands]:
    """Sums that a float holds: every model has the same result."""
    rng = np.random.default_rng(0)

    def integers(*shape: int) -> NDArray:
        return rng.integers(-1000, 1000, (count, *shape)).astype(np.float32)

    a, b, c = integers(ROWS, DEPTH), integers(DEPTH, COLUMNS), integers(ROWS, COLUMNS)
    low = (a.view(np.uint32) | LOW_BITS).view(np.float32)
    noise = rng.integers(0, 2**13, b.shape, dtype=np.uint32)
    single = a * (np.arange(DEPTH) == np.arange(count)[:, None, None] % DEPTH)
    return {
        "integers": Operands.of(a, b, c),
        "low bits": Operands.of(low, (b.view(np.uint32) | noise).view(np.float32), c),
        "one product": Operands.of(single, b, 0 * c),
        "cancelled": Operands.of(
            np.concatenate([a[..., :4], -a[..., :4]], -1), np.concatenate([b[:, :4]] * 2, 1), c
        ),
        "only the sum": Operands.of(0 * a, b, rng.standard_normal(c.shape)),
    }


def rounded_operands(count: int = 256) -> dict[str, Operands]:
    """Sums that a float does not hold: these tell the models apart."""
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> NDArray:
        return rng.standard_normal((count, *shape))

    def spread(*shape: int) -> NDArray:
        return np.ldexp(normal(*shape), rng.integers(-10, 11, (count, *shape)))

    a, b, c = normal(ROWS, DEPTH), normal(DEPTH, COLUMNS), normal(ROWS, COLUMNS)
    total = (a @ b).astype(np.float32)
    ones = np.ones((count, ROWS, DEPTH))
    tiny = rng.integers(-3, 4, (count, DEPTH, COLUMNS)) * 2.0**-25
    return {
        "normal": Operands.of(a, b, c),
        "spread": Operands.of(spread(ROWS, DEPTH), spread(DEPTH, COLUMNS), spread(ROWS, COLUMNS)),
        "cancellation": Operands.of(a, b, -total),
        "large sum": Operands.of(a, b, 1e4 * c),
        "below the last bit": Operands.of(ones, tiny, np.sign(c) + (c == 0)),
    }


class Model(NamedTuple):
    """`chunk` products at a time, `extra` bits kept; `from_factors`: see above."""

    chunk: int
    extra: int
    from_factors: bool

    def __str__(self) -> str:
        source = "of the factors" if self.from_factors else "of the products"
        return f"{self.chunk} products at a time, {self.extra} extra bits, exponents {source}"

    def result(self, operands: Operands) -> Floats:
        a, b = (_tf32(operands.a), _tf32(operands.b))
        total = operands.c.astype(np.float64)
        for first in range(0, DEPTH, self.chunk):
            part = slice(first, first + self.chunk)
            left, right = a[:, :, None, part], b[:, part].swapaxes(1, 2)[:, None]
            products = left * right
            exponents = _exponent(products)
            if self.from_factors:
                exponents = _exponent(left) + _exponent(right)
            terms = np.concatenate([total[..., None], products], -1)
            exponents = np.concatenate([_exponent(total)[..., None], exponents], -1)
            exponents = np.where(terms == 0, -10_000, exponents)
            unit = np.ldexp(1.0, np.maximum(exponents.max(-1), -900) - 23 - self.extra)
            total = (np.trunc(terms / unit[..., None]) * unit[..., None]).sum(-1)
            total = _cut(total)
        return total.astype(np.float32)


def models() -> Iterator[Model]:
    for chunk in (8, 4):
        for extra in range(5):
            for from_factors in (True, False):
                yield Model(chunk, extra, from_factors)


def _tf32(values: Floats) -> NDArray[np.float64]:
    return (values.view(np.uint32) & ~LOW_BITS).view(np.float32).astype(np.float64)


def _exponent(values: NDArray) -> NDArray:
    """`e` of `1.xxx * 2^e`."""
    return np.frexp(values)[1] - 1


def _cut(values: NDArray) -> NDArray:
    """To the 24 bits of a float, toward zero."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.trunc(np.ldexp(mantissa, 24)), exponent - 24)


def largest_terms(operands: Operands) -> NDArray:
    """For each sum, the magnitude of its largest term."""
    products = np.abs(_tf32(operands.a)[:, :, None] * _tf32(operands.b).swapaxes(1, 2)[:, None])
    return np.maximum(products.max(-1), np.abs(operands.c))
