"""How time, memory and ratios go with batch, width and grid, on logarithmic axes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import methodcaller
from typing import Any

from perfgate.judge.record import BESIDE, Run
from perfgate.report.measured import companions, conditions, label, measurement_entry, says_all
from perfgate.report.plot import GREY, Look, Plot, Section, log_axis, new_figure, text
from perfgate.report.words import date, pass_words

Entry = Mapping[str, Any]

# What grows, by the beginning of the case's name: the heading, and what its axis is called.
AXES: Mapping[str, tuple[str, str]] = {
    "batch": ("Growth with batch", "batch, rows"),
    "width": ("Growth with width", "width, features"),
    "grid": ("Growth with grid", "grid size, intervals or frequencies"),
    "small": ("Small networks", "width, features"),
}
_CASE = re.compile(rf"({'|'.join(AXES)})-(\d+)")
_HEIGHT = 340


def is_growth(case: str) -> bool:
    """Whether a case is one of a growing series, such as `batch-1000`."""
    return _CASE.fullmatch(case) is not None


def growth_sections(
    document: Mapping[str, Any], history: Sequence[Run], looks: Mapping[str, Look]
) -> Iterator[Section]:
    """A section for each thing that grows, of this run or else of the newest one that has it."""
    for what, (title, axis) in AXES.items():
        series, source = _newest(what, document, history)
        plots = [
            plot
            for pass_name, how in dict.fromkeys(_column(entry) for _, entry in series)
            for plot in _plots(axis, pass_name, how, series, looks)
        ]
        if plots:
            yield Section(title, source, plots)


def _newest(
    what: str, document: Mapping[str, Any], history: Sequence[Run]
) -> tuple[list[tuple[int, Entry]], str]:
    """The measurements of a series, and a sentence if they are not this run's."""
    if series := _series(what, document["measurements"]):
        return series, ""
    for run in reversed(history):
        if series := _series(what, map(measurement_entry, run.measurements.values())):
            return series, f"Not of this run, but of {run.commit[:10]}, {date(run.datetime)}."
    return [], ""


def _series(what: str, measurements: Iterable[Entry]) -> list[tuple[int, Entry]]:
    """Sizes, in ascending order, and what was measured of them."""
    found = [
        (int(case[2]), entry)
        for entry in measurements
        if says_all(entry["measured"])
        and (case := _CASE.fullmatch(entry["measured"]["case"]))
        and case[1] == what
    ]
    return sorted(found, key=lambda part: part[0])


def _column(entry: Entry) -> tuple[str, str]:
    """What figures of a series must share: the pass, and how time was taken."""
    return entry["measured"]["pass"], conditions(entry["measured"])


def _plots(
    axis: str,
    pass_name: str,
    how: str,
    series: Sequence[tuple[int, Entry]],
    looks: Mapping[str, Look],
) -> Iterator[Plot]:
    peak = "forward_peak_bytes" if pass_name == "forward" else "backward_peak_bytes"
    shown = [(size, entry) for size, entry in series if _column(entry) == (pass_name, how)]

    def lines(name: str, unit: str, figure: Callable[[Entry], float | None]) -> Iterator[Plot]:
        values: dict[str, dict[int, float]] = {}
        for size, entry in shown:
            values.setdefault(label(entry["measured"]), {})[size] = figure(entry) or 0
        return _lines(f"{pass_words(pass_name)}{how}: {name}", axis, unit, values, looks)

    yield from lines("time", "median time, ms", lambda entry: (entry["median_ns"] or 0) / 1e6)
    yield from lines(
        "peak memory",
        "memory, MB of 10⁶ bytes",
        lambda entry: entry["memory_bytes"].get(peak, 0) / 1e6,
    )
    for other in companions(entry for _, entry in shown):
        ratio = methodcaller("get", f"{BESIDE}{other}")
        for plot in lines(f"time over {other}", f"time over that of {other}", ratio):
            plot.figure.add_hline(1, line={"color": GREY, "dash": "dash"}, layer="below")
            yield plot


def _lines(
    title: str,
    axis: str,
    unit: str,
    values: Mapping[str, Mapping[int, float]],
    looks: Mapping[str, Look],
) -> Iterator[Plot]:
    """One plot, or none if nothing of it can be on a logarithmic axis."""
    lines = {
        name: {size: value for size, value in values[name].items() if size > 0 and value > 0}
        for name in looks
        if name in values
    }
    lines = {name: line for name, line in lines.items() if line}
    if not lines:
        return
    sizes = sorted({size for line in lines.values() for size in line})
    figures = [value for line in lines.values() for value in line.values()]
    figure = new_figure(
        _HEIGHT, xaxis=log_axis(axis, sizes, tickvals=sizes), yaxis=log_axis(unit, figures)
    )
    for name, line in lines.items():
        figure.add_scatter(
            name=text(name),
            x=list(line),
            y=list(line.values()),
            mode="lines+markers",
            hovertemplate="%{fullData.name} at %{x:,}: %{y:,.4~g}<extra></extra>",
            **looks[name],
        )
    ends = "; ".join(
        f"{name} from {line[min(line)]:.3g} at {min(line):,} to {line[max(line)]:.3g} at "
        f"{max(line):,}"
        for name, line in lines.items()
    )
    yield Plot(title, f"{title} ({unit}) over {axis}: {ends}.", figure)
