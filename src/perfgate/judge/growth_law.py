"""Growth laws: with which powers of batch, width and grid an implementation's figures grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

# By so much each size grows.
FACTOR = 4

# At the sizes of a law, what grows with a lower power (or not at all, as a bounded workspace) is
# at most a tenth of the figure, which takes from the measured exponent less than this; a fault
# that makes other tensors than the law's the largest adds a whole power, or most of one.
TOLERANCE = 0.1


class Exponents(NamedTuple):
    """Powers; the width is that of inputs and outputs together, and None is no grid at all."""

    batch: int
    width: int
    grid: int | None = None


class Sizes(NamedTuple):
    """A layer and its input."""

    batch: int
    inputs: int
    outputs: int
    grid: int | None = None

    def grown(self, axis: str) -> Sizes:
        """`FACTOR` times as large along batch, width or grid."""
        fields = {"batch": ["batch"], "width": ["inputs", "outputs"], "grid": ["grid"]}[axis]
        return self._replace(**{name: FACTOR * getattr(self, name) for name in fields})

    def __str__(self) -> str:
        grid = "" if self.grid is None else f", grid {self.grid}"
        return f"batch {self.batch}, {self.inputs}->{self.outputs}{grid}"


@dataclass(frozen=True)
class Law:
    """How figures of one layer grow.

    Args:
        at: sizes where the highest power outweighs the others.
        powers: of each kind of figure, named in words that a message can use: `forward bytes`,
            `backward FLOPs`; None of one that is 0.
        in_blocks: whether the layer takes a large case in blocks, each of which takes time even
            where no device computes it: a reason for small sizes.
    """

    at: Sizes
    powers: Mapping[str, Exponents | None]
    in_blocks: bool = False


Figures = Mapping[str, int]


def deviations(name: str, law: Law, measure: Callable[[Sizes], Figures]) -> list[str]:
    """What grows otherwise than declared, a sentence each; empty if nothing does.

    Args:
        name: the implementation.
        law: what is declared.
        measure: from sizes to the figure of each kind that the law names.
    """
    start = measure(law.at)
    found: list[str] = []
    for axis in Exponents._fields:
        if axis != "grid" or law.at.grid is not None:
            sizes = law.at.grown(axis)
            found += _along(name, law, axis, start, sizes, measure(sizes))
    return found


def _along(
    name: str, law: Law, axis: str, start: Figures, sizes: Sizes, grown: Figures
) -> Iterator[str]:
    for kind, exponents in law.powers.items():
        few, many = start[kind], grown[kind]
        unit = "FLOP" if kind.endswith("FLOPs") else "B"
        measured = f"({few:,} {unit} at {law.at}, {many:,} {unit} at {sizes})"
        if exponents is None:
            if few or many:
                yield (
                    f"{name}: {kind} are not 0 {measured}; expected none, by its law: take them "
                    f"back, or declare how they grow"
                )
            continue
        expected = getattr(exponents, axis)
        exponent = exponent_of(few, many)
        if not abs(exponent - expected) <= TOLERANCE:
            yield (
                f"{name}: {kind} grow as {axis}^{exponent:.2f} {measured}; expected "
                f"{axis}^{expected} within {TOLERANCE}, by its law: undo what makes the "
                "difference, or declare the new exponent"
            )


def exponent_of(few: int, many: int) -> float:
    """The power with which `few` become `many` where a size grows by `FACTOR`; infinite or
    NaN where there are none to begin with."""
    if few <= 0 or many <= 0:
        return math.inf if many > 0 else math.nan
    return math.log(many / few, FACTOR)
