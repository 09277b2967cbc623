"""Time, memory and ratios of each case: one row for each pass, a point for each
implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from perfgate.judge.record import BESIDE
from perfgate.report.measured import companions, extremes, heading, label, says_all
from perfgate.report.pareto import time_against_memory
from perfgate.report.plot import GREY, Look, Plot, Section, log_axis, looks, new_figure, text
from perfgate.report.words import PASSES, kind_words, pass_words, short_names

_ROW = 17  # pixels for each point of a row
_FRAME = 130  # legend, axis and margins
_ORDER = (*PASSES.values(), "forward peak", "backward peak", "backward+dx peak", "saved")

Entry = Mapping[str, Any]
# label of a work -> row -> (value, least, greatest)
Points = dict[str, dict[str, tuple[float, float, float]]]


def case_sections(
    measurements: Sequence[Entry], looks_of: Mapping[str, Look], is_growth: Callable[[str], bool]
) -> list[Section]:
    """A section for each heading, and one for benchmarks that do not say what they are."""
    found: dict[str, list[Entry]] = {}
    others = []
    for entry in measurements:
        work = entry["measured"]
        if not says_all(work):
            others.append(entry)
        elif not is_growth(work["case"]):
            found.setdefault(heading(work), []).append(entry)
    sections = [
        Section(title, _shape(entries), list(_case_plots(entries, looks_of)))
        for title, entries in found.items()
    ]
    if others:
        sections.append(Section("Other benchmarks", "", list(_other_times(others))))
    return sections


def _shape(entries: Sequence[Entry]) -> str:
    """The widths, where the implementations have the same or few different ones."""
    widths: dict[str, dict[str, None]] = {}
    for entry in entries:
        work = entry["measured"]
        shape = " → ".join(map(str, work.get("widths", ())))
        widths.setdefault(shape, {})[work["implementation"]] = None
    parts = [f"{shape} ({', '.join(names)})" for shape, names in widths.items() if shape]
    return f"Widths: {'; '.join(parts)}." if parts else ""


def _case_plots(entries: Sequence[Entry], looks_of: Mapping[str, Look]) -> Iterator[Plot]:
    times = _by_pass(entries, "median_ns", 1e-6)
    yield from _dots("Time", "median time, ms", times, looks_of)
    yield from _dots("Memory", "memory, MB of 10⁶ bytes", _memory(entries), looks_of)
    yield from time_against_memory(entries, looks_of)
    for name in companions(entries):
        ratios = _by_pass(entries, f"{BESIDE}{name}", 1)
        for plot in _dots(f"Time over {name}", f"time over that of {name}", ratios, looks_of):
            plot.figure.add_vline(1, line={"color": GREY, "dash": "dash"}, layer="below")
            yield plot


def _by_pass(entries: Sequence[Entry], figure: str, scale: float) -> Points:
    points: Points = {}
    for entry in entries:
        if value := entry.get(figure):
            row = points.setdefault(label(entry["measured"]), {})
            row[pass_words(entry["measured"]["pass"])] = _point(value, entry, figure, scale)
    return points


def _point(value: float, entry: Entry, figure: str, scale: float) -> tuple[float, float, float]:
    least, greatest = extremes(entry, figure)
    return value * scale, least * scale, greatest * scale


def _memory(entries: Sequence[Entry]) -> Points:
    """The kinds of memory; the backward peak twice, without and with the input's gradient."""
    points: Points = {}
    for entry in entries:
        row = points.setdefault(label(entry["measured"]), {})
        with_dx = entry["measured"]["pass"] == "backward_with_input_grad"
        for kind, size in entry["memory_bytes"].items():
            words = kind_words(kind)
            if with_dx and "backward" in kind:
                words = words.replace("backward", PASSES["backward_with_input_grad"])
            if size > 0:
                row[words] = (size / 1e6,) * 3
    return points


def _other_times(entries: Sequence[Entry]) -> Iterator[Plot]:
    """The times of benchmarks that say nothing of themselves, in one plot."""
    short = short_names(entry["name"] for entry in entries)
    times = {
        short[entry["name"]]: _point(entry["median_ns"], entry, "median_ns", 1e-6)
        for entry in entries
        if entry["median_ns"]
    }
    return _dots("Time", "median time, ms", {"time": times}, looks(["time"]))


def _dots(title: str, unit: str, points: Points, looks_of: Mapping[str, Look]) -> Iterator[Plot]:
    """One plot, or none if there is no point."""
    points = {name: found for name, found in points.items() if found}
    rows = sorted(
        dict.fromkeys(row for found in points.values() for row in found),
        key=lambda row: _ORDER.index(row) if row in _ORDER else len(_ORDER),
    )
    if not rows:
        return
    values = [value for found in points.values() for value in found.values()]
    order = {"categoryarray": list(map(text, rows)), "autorange": "reversed"}
    figure = new_figure(
        _FRAME + _ROW * len(rows) * len(points),
        scattermode="group",
        scattergap=0.25,
        xaxis=log_axis(unit, chain.from_iterable(values)),
        yaxis={"type": "category", **order},
    )
    for name, found in points.items():
        figure.add_scatter(
            name=text(name),
            x=[value for value, _, _ in found.values()],
            y=list(map(text, found)),
            error_x={
                "symmetric": False,
                "thickness": 1,
                "width": 3,
                "array": [greatest - value for value, _, greatest in found.values()],
                "arrayminus": [value - least for value, least, _ in found.values()],
            },
            mode="markers",
            orientation="h",
            offsetgroup=text(name),
            hovertemplate="%{fullData.name}, %{y}: %{x:,.4~g}<extra></extra>",
            **looks_of[name],
        )
    yield Plot(title, _alt(title, unit, points), figure)


def _alt(title: str, unit: str, points: Points) -> str:
    """The least and the greatest of each implementation, in words."""
    values = {name: [value for value, _, _ in found.values()] for name, found in points.items()}
    parts = [f"{name} {min(found):.3g} to {max(found):.3g}" for name, found in values.items()]
    return f"{title} ({unit}), a row for each pass: {'; '.join(parts)}. The table has all figures."
