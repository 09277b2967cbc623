"""Measurements taken in turns, within a budget of time, and what they say together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MIN_ROUNDS = 3
MAX_ROUNDS = 60


class Budget:
    """Seconds that are shared out, by a clock."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.total = seconds
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        return self._end - self.clock()

    def share(self, fraction: float) -> float:
        """That fraction of the whole budget, or what is left of it."""
        return max(0.0, min(fraction * self.total, self.left))


@dataclass
class Subject:
    """Something measured in several ways, each returning seconds.

    `samples[measure][round]` are seconds; `errors[measure]` says why there are none. A measure
    that raises is not taken again.
    """

    name: str
    measures: dict[str, Callable[[], float]] = field(default_factory=dict)
    samples: dict[str, dict[int, float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def measure(self, number: int) -> None:
        for measure, take in self.measures.items():
            if measure in self.errors:
                continue
            try:
                self.samples.setdefault(measure, {})[number] = take()
            except Exception as error:
                self.errors[measure] = first_line(error)


def first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:300]


def run_rounds(
    subjects: Sequence[Subject],
    seconds: float,
    clock: Callable[[], float],
    max_rounds: int = MAX_ROUNDS,
) -> int:
    """Measure all subjects once in every round, until time or rounds are spent.

    Each round starts with another subject. One that takes more than its part of the time
    takes part in the first MIN_ROUNDS rounds only. After the first round the time ends
    everything at once, so that a round may be incomplete.

    Returns:
        The number of rounds begun.
    """
    end = clock() + seconds
    part = seconds / (MIN_ROUNDS * max(1, len(subjects)))
    slow: set[str] = set()
    for number in range(max_rounds):
        first = number % max(1, len(subjects))
        for subject in [*subjects[first:], *subjects[:first]]:
            if number > 0 and clock() >= end:
                return number + 1
            if number >= MIN_ROUNDS and subject.name in slow:
                continue
            start = clock()
            subject.measure(number)
            if clock() - start > part:
                slow.add(subject.name)
    return max_rounds


def summarize(subject: Subject, reference: Subject | None) -> dict[str, Any]:
    """Median and quartiles of every measure in microseconds, and of the ratio to the reference
    in the same round."""
    found: dict[str, Any] = {}
    for measure, samples in subject.samples.items():
        if not samples:
            continue
        middle, low, high = spread(list(samples.values()))
        found[measure] = {
            "median_us": middle * 1e6,
            "low_us": low * 1e6,
            "high_us": high * 1e6,
            "rounds": len(samples),
        }
        if reference is not None and reference is not subject:
            ratios = ratios_of(samples, reference.samples.get(measure, {}))
            if ratios:
                middle, low, high = spread(ratios)
                found[measure] |= {"ratio": middle, "ratio_low": low, "ratio_high": high}
    if subject.errors:
        found["errors"] = dict(subject.errors)
    return found


def ratios_of(mine: Mapping[int, float], others: Mapping[int, float]) -> list[float]:
    """Round by round, where both were measured."""
    return [value / others[number] for number, value in mine.items() if others.get(number)]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), low, high


def add_floor(row: dict[str, Any], product: Mapping[str, Any], copy: Mapping[str, Any]) -> None:
    """Add to every measure which fraction of the floor it reaches: the longer of the product
    and the copy, measured in the same way, over its own time."""
    for measure, figures in row.items():
        floors = [other[measure]["median_us"] for other in (product, copy) if measure in other]
        if measure != "errors" and len(floors) == 2:
            figures["floor_us"] = max(floors)
            figures["floor_fraction"] = max(floors) / figures["median_us"]
