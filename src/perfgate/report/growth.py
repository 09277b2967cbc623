"""How time and memory grow with batch, width and grid, on logarithmic axes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perfgate.judge.record import Run
from perfgate.report.measured import measurement_entry
from perfgate.report.plot import Plot, Section, Style, log_axis, text
from perfgate.report.words import date, pass_words

Entry = Mapping[str, Any]

# What grows, by the beginning of the case's name, and what its axis is called.
AXES: Mapping[str, str] = {
    "batch": "batch, rows",
    "width": "width, features",
    "grid": "grid size, intervals or frequencies",
}
_CASE = re.compile(rf"({'|'.join(AXES)})-(\d+)")
_HEIGHT = 340


def is_growth(case: str) -> bool:
    """Whether a case is one of a growing series, such as `batch-1000`."""
    return _CASE.fullmatch(case) is not None


def growth_sections(
    document: Mapping[str, Any], history: Sequence[Run], looks: Mapping[str, Style]
) -> Iterator[Section]:
    """A section for each thing that grows, of this run or else of the newest one that has it."""
    for what, axis in AXES.items():
        entries, source = _newest(what, document, history)
        plots = [
            plot
            for pass_name in dict.fromkeys(entry["measured"]["pass"] for entry in entries)
            for plot in _plots(what, axis, pass_name, entries, looks)
        ]
        if plots:
            yield Section(f"Growth with {what}", source, plots)


def _newest(
    what: str, document: Mapping[str, Any], history: Sequence[Run]
) -> tuple[list[Entry], str]:
    """The measurements of a series, and a sentence if they are not this run's."""
    entries = _series(what, document["measurements"])
    if entries:
        return entries, ""
    for run in reversed(history):
        entries = _series(what, [measurement_entry(m) for m in run.measurements.values()])
        if entries:
            return entries, f"Not of this run, but of {run.commit[:10]}, {date(run.datetime)}."
    return [], ""


def _series(what: str, measurements: Sequence[Entry]) -> list[Entry]:
    return [
        entry
        for entry in measurements
        if {"case", "implementation", "pass"} <= entry["measured"].keys()
        and (found := _CASE.fullmatch(entry["measured"]["case"]))
        and found[1] == what
    ]


def _plots(
    what: str, axis: str, pass_name: str, entries: Sequence[Entry], looks: Mapping[str, Style]
) -> Iterator[Plot]:
    of_pass = [entry for entry in entries if entry["measured"]["pass"] == pass_name]
    peak = "forward_peak_bytes" if pass_name == "forward" else "backward_peak_bytes"
    times, sizes = {}, {}
    for entry in of_pass:
        place = (entry["measured"]["implementation"], _size(entry))
        times[place] = (entry["median_ns"] or 0) / 1e6
        sizes[place] = entry["memory_bytes"].get(peak, 0) / 1e6
    words = pass_words(pass_name)
    yield from _lines(f"{words}: time", axis, "median time, ms", times, looks)
    yield from _lines(f"{words}: peak memory", axis, "memory, MB of 10⁶ bytes", sizes, looks)


def _size(entry: Entry) -> int:
    found = _CASE.fullmatch(entry["measured"]["case"])
    assert found is not None
    return int(found[2])


def _lines(
    title: str,
    axis: str,
    unit: str,
    values: Mapping[tuple[str, int], float],
    looks: Mapping[str, Style],
) -> Iterator[Plot]:
    lines: dict[str, list[tuple[int, float]]] = {}
    for (name, size), value in sorted(values.items(), key=lambda item: item[0][1]):
        if size > 0 and value > 0:
            lines.setdefault(name, []).append((size, value))
    if not lines:
        return
    data = [
        {
            "type": "scatter", "mode": "lines+markers", "name": text(name),
            "x": [size for size, _ in line],
            "y": [value for _, value in line],
            "line": {"color": looks[name].colour, "dash": looks[name].dash, "width": 2},
            "marker": {"color": looks[name].colour, "symbol": looks[name].symbol, "size": 8},
            "hovertemplate": "%{fullData.name} at %{x:,}: %{y:,.4~g}<extra></extra>",
        }
        for name, line in sorted(lines.items(), key=lambda item: list(looks).index(item[0]))
    ]  # fmt: skip
    ends = "; ".join(
        f"{name} from {line[0][1]:.3g} at {line[0][0]:,} to {line[-1][1]:.3g} at {line[-1][0]:,}"
        for name, line in lines.items()
    )
    sizes = sorted({size for line in lines.values() for size, _ in line})
    figures = [value for line in lines.values() for _, value in line]
    layout = {"xaxis": log_axis(axis, sizes, ticks=sizes), "yaxis": log_axis(unit, figures)}
    yield Plot(title, f"{title} ({unit}) over {axis}: {ends}.", data, layout, _HEIGHT)
