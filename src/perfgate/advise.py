"""Which implementation to take at a shape, by what was measured at the nearest one."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfgate.judge.record import Run
from perfgate.report.measured import (
    cost_of_step,
    label,
    measurement_entry,
    says_all,
    work_entry,
)
from perfgate.report.tables import markdown_table
from perfgate.report.words import date, device_words, milliseconds


class NoAdviceError(Exception):
    """No measured figure answers; the message says what to do."""


@dataclass(frozen=True)
class Choice:
    """An implementation at a shape.

    Args:
        name: what reports call it.
        widths: of its network.
        step_ns: time of a training step, or of forward and backward.
        num_bytes: parameters, and the peak of forward and backward above them.
    """

    name: str
    widths: Sequence[int]
    step_ns: float
    num_bytes: int

    def is_beaten_by(self, other: Choice) -> bool:
        """Whether the other one is faster and smaller."""
        return other.step_ns < self.step_ns and other.num_bytes < self.num_bytes


@dataclass(frozen=True)
class Shape:
    """What was measured at one shape in one run."""

    run: Run
    batch: int
    choices: Sequence[Choice]

    @property
    def edges(self) -> float:
        """Products of widths, in the middle: an MLP beside KANs may be wider than they."""
        return statistics.median_low(edges_of(choice.widths) for choice in self.choices)


def edges_of(widths: Sequence[int]) -> int:
    """How many pairs of an input and an output a network has."""
    return sum(width_in * width_out for width_in, width_out in itertools.pairwise(widths))


def advise(
    runs: Iterable[Run],
    batch: int,
    widths: Sequence[int],
    device: str | None = None,
    memory_bytes: float = math.inf,
) -> str:
    """The fastest and the smallest choice, and what they are chosen from, as Markdown.

    Args:
        runs: measured ones.
        batch, widths: the shape that is asked for; the nearest one that was measured answers.
        device: a part of the device's key or model; any if None.
        memory_bytes: what may be needed at most.

    Raises:
        NoAdviceError: nothing was measured there, or nothing fits.
    """
    shapes = [shape for run in runs if _is_on(run, device) for shape in _shapes(run)]
    if not shapes:
        raise NoAdviceError(
            f"nothing is stored of {device or 'any device'}; expected measured figures: "
            "pytest --benchmark-only, then kan-bench accept"
        )
    edges = edges_of(widths)

    def distance(shape: Shape) -> float:
        return abs(math.log(shape.batch / batch)) + abs(math.log(shape.edges / edges))

    nearest = min(shapes, key=distance)  # the first of equals, which is the newest
    fitting = [choice for choice in nearest.choices if choice.num_bytes <= memory_bytes]
    where = f"batch {nearest.batch:,} on {device_words(nearest.run.environment)}"
    if not fitting:
        least = min(choice.num_bytes for choice in nearest.choices)
        raise NoAdviceError(
            f"at {where} nothing fits into {memory_bytes / 1e6:,.0f} MB, and the smallest takes "
            f"{least / 1e6:,.1f} MB; expected more: give more --memory, or ask for a smaller shape"
        )
    fastest = min(fitting, key=lambda choice: choice.step_ns)
    smallest = min(fitting, key=lambda choice: choice.num_bytes)
    asked = f"batch {batch:,}, {_arrows(widths)}"
    return (
        f"Measured at {where}, {date(nearest.run.datetime)}; asked for {asked}.\n\n"
        f"{_table(fitting)}\n\n"
        f"fastest:  {_words(fastest)}\nsmallest: {_words(smallest)}\n"
    )


def _is_on(run: Run, device: str | None) -> bool:
    named = f"{run.device_key} {run.environment.get('device_model', '')}".lower()
    return device is None or device.lower() in named


def _shapes(run: Run) -> list[Shape]:
    passes: dict[tuple[str, int], dict[tuple[str, str], dict[str, Any]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for measurement in run.measurements.values():
        work = work_entry(measurement.measured)
        if says_all(work) and len(work.get("widths", ())) > 1:
            row = label(work), repr((work["widths"], work.get("config")))
            found = passes[work["case"], work["batch"]][row]
            found[work["pass"]] = measurement_entry(measurement)
    shapes = [
        Shape(run, batch, [c for (name, _), of in rows.items() if (c := _choice(name, of))])
        for (_, batch), rows in passes.items()
    ]
    return [shape for shape in shapes if shape.choices]


def _choice(name: str, passes: Mapping[str, Mapping[str, Any]]) -> Choice | None:
    """None where the time or the memory of a step was not measured."""
    cost = cost_of_step(passes)
    if cost is None:
        return None
    widths = next(iter(passes.values()))["measured"]["widths"]
    return Choice(name, widths, *cost)


def _table(choices: Sequence[Choice]) -> str:
    rows = [
        [
            choice.name,
            _arrows(choice.widths),
            milliseconds(choice.step_ns),
            f"{choice.num_bytes / 1e6:,.1f}",
            next((o.name for o in ordered if choice.is_beaten_by(o)), ""),
        ]
        for ordered in [sorted(choices, key=lambda choice: choice.step_ns)]
        for choice in ordered
    ]
    return markdown_table(["implementation", "widths", "step ms", "MB", "beaten by"], rows)


def _words(choice: Choice) -> str:
    return f"{choice.name}, {milliseconds(choice.step_ns)} ms, {choice.num_bytes / 1e6:,.1f} MB"


def _arrows(widths: Sequence[int]) -> str:
    return " -> ".join(map(str, widths))
