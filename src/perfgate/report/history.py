"""The history of each benchmark over the stored baselines, up to this run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perfgate.judge.record import Run
from perfgate.report.measured import measurement_entry
from perfgate.report.plot import GREY, Plot, Section, linear_axis, text
from perfgate.report.rows import decisive
from perfgate.report.words import STATUSES, kind_words, short_names, status_words

Entry = Mapping[str, Any]

_HEIGHT = 560
_TIME_COLOUR = "#0072B2"
_MEMORY_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
_MEMORY_SYMBOLS = ("square", "diamond", "triangle-up", "cross")
_FIGURES = {
    "ratio": "time over the reference's",
    "median_ns": "median time, ms",
}


def history_section(document: Mapping[str, Any], history: Sequence[Run]) -> Section | None:
    """A plot for each benchmark of this run, the worst first; None without stored runs."""
    earlier = [run for run in history if not _is_same(run, document)]
    if not earlier or document["kind"] == "ab" or not document["measurements"]:
        return None
    runs = [_Point(run.commit, run.datetime, _entries(run), run.anchor) for run in earlier]
    runs.append(_this(document))
    verdicts = {verdict["name"]: verdict for verdict in document["verdicts"]}
    names = sorted(
        (entry["name"] for entry in document["measurements"]),
        key=lambda name: -STATUSES.index(verdicts[name]["status"]) if name in verdicts else 0,
    )
    short = short_names(names)
    words = (
        "Each point is a stored baseline, the last one is this run. The band is what a run may "
        "differ from its baseline; the dashed lines of memory are the baseline's."
    )
    plots = [_plot(name, short[name], runs, document, verdicts.get(name)) for name in names]
    return Section("History", words, plots, choose=True)


class _Point:
    """A run of the history."""

    def __init__(
        self, commit: str, datetime: str, entries: Mapping[str, Entry], anchor: str | None
    ) -> None:
        self.label = f"{text(commit[:7])}<br>{text(datetime[:10])}"
        self.identity = (commit, datetime)
        self.entries = entries
        self.anchor = anchor


def _is_same(run: Run, document: Mapping[str, Any]) -> bool:
    """A report that is made again, after its run was accepted, has it in its history."""
    return (run.commit, run.datetime) == (document["commit"], document["datetime"])


def _entries(run: Run) -> dict[str, Entry]:
    return {name: measurement_entry(m) for name, m in run.measurements.items()}


def _this(document: Mapping[str, Any]) -> _Point:
    entries = {entry["name"]: entry for entry in document["measurements"]}
    because = document["new_history_because"]
    return _Point(document["commit"], document["datetime"], entries, because)


def _plot(
    name: str,
    short: str,
    runs: Sequence[_Point],
    document: Mapping[str, Any],
    verdict: Mapping[str, Any] | None,
) -> Plot:
    found = [(index, run.entries[name]) for index, run in enumerate(runs) if name in run.entries]
    figure = _figure(found[-1][1], verdict)
    accepted = _accepted(runs, document)
    status = status_words(verdict["status"]) if verdict else "not judged"
    layout = {
        "xaxis": {
            "title": {"text": "run: commit and date"}, "anchor": "y2", "automargin": True,
            "tickmode": "array", "tickvals": [*range(len(runs))],
            "ticktext": [run.label for run in runs],
            "range": [-0.5, len(runs) - 0.5],
        },
        "yaxis": linear_axis(_FIGURES[figure], domain=[0.56, 1]),
        "yaxis2": linear_axis("memory, MB of 10⁶ bytes", domain=[0, 0.44], rangemode="tozero"),
        "shapes": [
            *_band(found[-1][1], figure, verdict, accepted, len(runs) - 1),
            *_memory_lines(found[-1][1], accepted, len(runs) - 1),
            *_anchors(runs),
        ],
    }  # fmt: skip
    values = [entry[figure] for _, entry in found if entry[figure] is not None]
    alt = (
        f"History of {short} ({status}): {_FIGURES[figure]} in {len(found)} runs, "
        f"{', '.join(f'{value * _scale(figure):.3g}' for value in values[-8:])}; and its memory."
    )
    data = [_time_trace(found, figure), *_memory_traces(found)]
    return Plot(f"{short} ({status})", alt, data, layout, _HEIGHT)


def _figure(entry: Entry, verdict: Mapping[str, Any] | None) -> str:
    """What was compared; else the first ratio that there is."""
    time = _compared(verdict)
    if time is not None and entry[time["figure"]] is not None:
        return str(time["figure"])
    return next((figure for figure in _FIGURES if entry[figure] is not None), "median_ns")


def _compared(verdict: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The comparison with the baseline that decided, or the first one."""
    if verdict is None:
        return None
    # What took turns is of no other run, and lies on no line.
    stored = [
        time
        for time in verdict["times"]
        if time["against"] == "baseline" and not time.get("in_turns_with")
    ]
    return decisive({**verdict, "times": stored})


def _scale(figure: str) -> float:
    return 1e-6 if figure == "median_ns" else 1


def _time_trace(found: Sequence[tuple[int, Entry]], figure: str) -> dict[str, Any]:
    scale = _scale(figure)
    known = [(index, entry[figure] * scale) for index, entry in found if entry[figure] is not None]
    return {
        "type": "scatter", "mode": "lines+markers", "name": _FIGURES[figure],
        "x": [index for index, _ in known], "y": [value for _, value in known],
        "line": {"color": _TIME_COLOUR, "width": 2}, "marker": {"size": 9}, "showlegend": False,
        "hovertemplate": "%{y:.4~g}<extra></extra>",
    }  # fmt: skip


def _memory_traces(found: Sequence[tuple[int, Entry]]) -> Iterator[dict[str, Any]]:
    kinds = dict.fromkeys(kind for _, entry in found for kind in entry["memory_bytes"])
    for number, kind in enumerate(kinds):
        known = [(index, entry["memory_bytes"].get(kind)) for index, entry in found]
        yield {
            "type": "scatter", "mode": "lines+markers", "name": text(kind_words(kind)),
            "yaxis": "y2",
            "x": [index for index, size in known if size is not None],
            "y": [size / 1e6 for _, size in known if size is not None],
            "customdata": [f"{size:,}" for _, size in known if size is not None],
            "line": {"color": _MEMORY_COLOURS[number % 4], "width": 2},
            "marker": {"size": 8, "symbol": _MEMORY_SYMBOLS[number % 4]},
            "hovertemplate": "%{fullData.name}: %{customdata} B<extra></extra>",
        }  # fmt: skip


def _accepted(runs: Sequence[_Point], document: Mapping[str, Any]) -> int | None:
    """The place of the baseline that this run was compared with."""
    source = document["baseline"] or {}
    identity = (source.get("commit"), source.get("datetime"))
    places = [index for index, run in enumerate(runs[:-1]) if run.identity == identity]
    return places[-1] if places else None


def _band(
    entry: Entry, figure: str, verdict: Mapping[str, Any] | None, accepted: int | None, now: int
) -> Iterator[dict[str, Any]]:
    """The limits around the baseline's figure, from its run to this one."""
    before = (entry["baseline"] or {}).get(figure)
    time = _compared(verdict)
    if not before or time is None or time["limit_fraction"] is None or time["figure"] != figure:
        return
    middle, factor = before * _scale(figure), 1 + time["limit_fraction"]
    yield {
        "type": "rect", "xref": "x", "yref": "y",
        "x0": (now - 1 if accepted is None else accepted) - 0.3, "x1": now + 0.3,
        "y0": middle / factor, "y1": middle * factor,
        "fillcolor": GREY, "opacity": 0.25, "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _memory_lines(entry: Entry, accepted: int | None, now: int) -> Iterator[dict[str, Any]]:
    for size in (entry["baseline"] or {}).get("memory_bytes", {}).values():
        yield {
            "type": "line", "xref": "x", "yref": "y2",
            "x0": (now - 1 if accepted is None else accepted) - 0.3, "x1": now + 0.3,
            "y0": size / 1e6, "y1": size / 1e6,
            "line": {"color": GREY, "width": 1, "dash": "dash"}, "layer": "below",
        }  # fmt: skip


def _anchors(runs: Sequence[_Point]) -> Iterator[dict[str, Any]]:
    """Where a new history begins."""
    for index, run in enumerate(runs):
        if run.anchor is not None and index > 0:
            yield {
                "type": "line", "xref": "x", "yref": "paper", "x0": index - 0.5,
                "x1": index - 0.5, "y0": 0, "y1": 1, "line": {"color": GREY, "width": 2},
                "label": {"text": "new history", "textposition": "end", "textangle": 0},
            }  # fmt: skip
