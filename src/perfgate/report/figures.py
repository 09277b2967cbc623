"""Time, memory and ratios of each case: one row for each pass, a point for each
implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from perfgate.judge.record import BESIDE
from perfgate.report.measured import companions
from perfgate.report.plot import (
    Plot,
    Section,
    Style,
    log_axis,
    spread,
    styles,
    text,
    vertical_line,
)
from perfgate.report.words import PASSES, kind_words, pass_words, short_names

_ROW = 17  # pixels for each point of a row
_FRAME = 130  # legend, axis and margins

Entry = Mapping[str, Any]
# implementation -> row -> (value, below, above)
Points = dict[str, dict[str, tuple[float, float, float]]]


def case_sections(
    measurements: Sequence[Entry], looks: Mapping[str, Style], is_growth: Callable[[str], bool]
) -> list[Section]:
    """A section for each case and batch, and one for benchmarks that do not say what they are."""
    cases: dict[tuple[str, int], list[Entry]] = {}
    others = []
    for entry in measurements:
        work = entry["measured"]
        if not {"case", "batch", "implementation", "pass"} <= work.keys():
            others.append(entry)
        elif not is_growth(work["case"]):
            cases.setdefault((work["case"], work["batch"]), []).append(entry)
    sections = [
        Section(f"{case}, batch {batch:,}", _shape(entries), list(_case_plots(entries, looks)))
        for (case, batch), entries in cases.items()
    ]
    if others:
        sections.append(Section("Other benchmarks", "", [_other_times(others)]))
    return sections


def _shape(entries: Sequence[Entry]) -> str:
    """The widths, where the implementations have the same or few different ones."""
    widths: dict[str, list[str]] = {}
    for entry in entries:
        work = entry["measured"]
        shape = " → ".join(map(str, work.get("widths", ())))
        names = widths.setdefault(shape, [])
        if work["implementation"] not in names:
            names.append(work["implementation"])
    parts = [f"{shape} ({', '.join(names)})" for shape, names in widths.items() if shape]
    return f"Widths: {'; '.join(parts)}." if parts else ""


def _case_plots(entries: Sequence[Entry], looks: Mapping[str, Style]) -> Iterator[Plot]:
    times = _by_pass(entries, "median_ns", 1e-6)
    yield from _dots("Time", "median time, ms", times, looks)
    yield from _dots("Memory", "memory, MB of 10⁶ bytes", _memory(entries), looks)
    for name in companions(entries):
        ratios = _by_pass(entries, f"{BESIDE}{name}", 1)
        for plot in _dots(f"Time over {name}", f"time over that of {name}", ratios, looks):
            layout = {**plot.layout, "shapes": [vertical_line(1)]}
            yield Plot(plot.title, plot.alt, plot.data, layout, plot.height)


def _by_pass(entries: Sequence[Entry], figure: str, scale: float) -> Points:
    points: Points = {}
    for entry in entries:
        if value := entry.get(figure):
            below, above = spread(entry, figure)
            row = points.setdefault(entry["measured"]["implementation"], {})
            row[pass_words(entry["measured"]["pass"])] = (
                value * scale,
                below * scale,
                above * scale,
            )
    return points


def _memory(entries: Sequence[Entry]) -> Points:
    """The kinds of memory; the backward peak twice, without and with the input's gradient."""
    points: Points = {}
    for entry in entries:
        row = points.setdefault(entry["measured"]["implementation"], {})
        with_dx = entry["measured"]["pass"] == "backward_with_input_grad"
        for kind, size in entry["memory_bytes"].items():
            words = kind_words(kind)
            if with_dx and "backward" in kind:
                words = words.replace("backward", PASSES["backward_with_input_grad"])
            if size > 0:
                row[words] = (size / 1e6, 0, 0)
    return points


def _dots(title: str, unit: str, points: Points, looks: Mapping[str, Style]) -> Iterator[Plot]:
    """One plot, or none if there is no point."""
    rows = list(dict.fromkeys(row for found in points.values() for row in found))
    ranked = sorted(rows, key=lambda row: _ORDER.index(row) if row in _ORDER else len(_ORDER))
    if not rows:
        return
    values = [value for found in points.values() for value, _, _ in found.values()]
    data = [
        {
            "type": "scatter", "mode": "markers", "orientation": "h", "name": text(name),
            "offsetgroup": text(name),
            "y": [text(row) for row in found],
            "x": [value for value, _, _ in found.values()],
            "error_x": {
                "type": "data", "symmetric": False, "thickness": 1, "width": 3,
                "array": [above for _, _, above in found.values()],
                "arrayminus": [below for _, below, _ in found.values()],
            },
            "marker": {"color": looks[name].colour, "symbol": looks[name].symbol, "size": 9},
            "hovertemplate": "%{fullData.name}, %{y}: %{x:,.4~g}<extra></extra>",
        }
        for name, found in points.items() if found
    ]  # fmt: skip
    layout = {
        "scattermode": "group", "scattergap": 0.25,
        "xaxis": log_axis(unit, values),
        "yaxis": {
            "type": "category", "categoryarray": [text(row) for row in ranked],
            "autorange": "reversed", "automargin": True,
        },
    }  # fmt: skip
    yield Plot(
        title, _alt(title, unit, points), data, layout, _FRAME + _ROW * len(rows) * len(data)
    )


_ORDER = (*PASSES.values(), "forward peak", "backward peak", "backward+dx peak", "saved")


def _alt(title: str, unit: str, points: Points) -> str:
    """The least and the greatest of each implementation, in words."""
    parts = [
        f"{name} {min(v for v, _, _ in found.values()):.3g} to "
        f"{max(v for v, _, _ in found.values()):.3g}"
        for name, found in points.items()
        if found
    ]
    return f"{title} ({unit}), a row for each pass: {'; '.join(parts)}. The table has all figures."


def _other_times(entries: Sequence[Entry]) -> Plot:
    """The times of benchmarks that say nothing of themselves, in one plot."""
    short = short_names(entry["name"] for entry in entries)
    points: Points = {"time": {}}
    for entry in entries:
        if value := entry["median_ns"]:
            below, above = spread(entry, "median_ns")
            points["time"][short[entry["name"]]] = (value / 1e6, below / 1e6, above / 1e6)
    return next(_dots("Time", "median time, ms", points, styles(["time"])), _NOTHING)


_NOTHING = Plot("Time", "Nothing to show.", [], {}, _FRAME)
