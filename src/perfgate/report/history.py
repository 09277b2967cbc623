"""The history of each benchmark over the stored baselines, up to this run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from perfgate.judge.record import Run
from perfgate.report.measured import conditions, measurement_entry
from perfgate.report.plot import COLOURS, GREY, SYMBOLS, Plot, Section, look, new_figure, text
from perfgate.report.rows import decisive, rank
from perfgate.report.words import kind_words, short_names, status_words

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Entry = Mapping[str, Any]

_HEIGHT = 560
# What is drawn, by what it is called and what makes it of the unit's size.
_FIGURES = {"ratio": ("time over the reference's", 1.0), "median_ns": ("median time, ms", 1e-6)}


@dataclass(frozen=True)
class _Point:
    """A run of the history."""

    commit: str
    datetime: str
    entries: Mapping[str, Entry]
    begins_anew: bool


def history_section(document: Mapping[str, Any], history: Sequence[Run]) -> Section | None:
    """A plot for each benchmark of this run, the worst first; None without stored runs."""
    now = (document["commit"], document["datetime"])
    # A report that is made again, after its run was accepted, has it in its history.
    earlier = [run for run in history if (run.commit, run.datetime) != now]
    if not earlier or document["kind"] == "ab" or not document["measurements"]:
        return None
    runs = [_stored(run) for run in earlier]
    entries = {entry["name"]: entry for entry in document["measurements"]}
    runs.append(_Point(*now, entries, document["new_history_because"] is not None))
    verdicts = {verdict["name"]: verdict for verdict in document["verdicts"]}
    names = sorted(entries, key=lambda name: -rank(verdicts[name]) if name in verdicts else 0)
    short = short_names(names)
    since = _accepted(runs, document["baseline"] or {})
    words = (
        "Each point is a stored baseline, the last one is this run. The band is what a run may "
        "differ from its baseline; the dashed lines of memory are the baseline's."
    )
    plots = [_plot(name, short[name], runs, since, verdicts.get(name)) for name in names]
    return Section("History", words, plots, choose=True)


def _stored(run: Run) -> _Point:
    entries = {name: measurement_entry(m) for name, m in run.measurements.items()}
    return _Point(run.commit, run.datetime, entries, run.anchor is not None)


def _accepted(runs: Sequence[_Point], source: Mapping[str, Any]) -> int:
    """The place of the baseline that this run was compared with; else of the run before."""
    identity = (source.get("commit"), source.get("datetime"))
    places = [
        place for place, run in enumerate(runs[:-1]) if (run.commit, run.datetime) == identity
    ]
    return places[-1] if places else len(runs) - 2


def _plot(
    name: str,
    short: str,
    runs: Sequence[_Point],
    since: int,
    verdict: Mapping[str, Any] | None,
) -> Plot:
    time, entry = _compared(verdict), runs[-1].entries[name]
    how = conditions(entry["measured"])
    found = {
        place: run.entries[name]
        for place, run in enumerate(runs)
        if name in run.entries and conditions(run.entries[name]["measured"]) == how
    }
    shown = _figure(entry, time)
    figure = _empty(runs, _FIGURES[shown][0])
    values = _add_time(figure, found, shown)
    _add_memory(figure, found)
    _add_limits(figure, entry, shown, time, (since - 0.3, len(runs) - 0.7))
    _add_beginnings(figure, runs)
    status = status_words(verdict["status"]) if verdict else "not judged"
    alt = (
        f"History of {short} ({status}): {_FIGURES[shown][0]} in {len(found)} runs, "
        f"{', '.join(f'{value:.3g}' for value in values[-8:])}; and its memory."
    )
    return Plot(f"{short} ({status})", alt, figure)


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


def _figure(entry: Entry, time: Mapping[str, Any] | None) -> str:
    """What was compared; else the first figure that there is."""
    wanted = ([] if time is None else [time["figure"]]) + [*_FIGURES]
    return next((figure for figure in wanted if entry[figure] is not None), "median_ns")


def _empty(runs: Sequence[_Point], title: str) -> Figure:
    """Axes for time above those for memory, over the runs."""
    labels = [f"{text(run.commit[:7])}<br>{text(run.datetime[:10])}" for run in runs]
    return new_figure(
        _HEIGHT,
        xaxis={
            "title": {"text": "run: commit and date"},
            "anchor": "y2",
            "tickvals": [*range(len(runs))],
            "ticktext": labels,
            "range": [-0.5, len(runs) - 0.5],
        },
        yaxis={"title": {"text": title}, "domain": [0.56, 1]},
        yaxis2={
            "title": {"text": "memory, MB of 10⁶ bytes"},
            "domain": [0, 0.44],
            "rangemode": "tozero",
        },
    )


def _add_time(figure: Figure, found: Mapping[int, Entry], shown: str) -> list[float]:
    """The values that are drawn, in the unit of the axis."""
    title, scale = _FIGURES[shown]
    known = {place: entry[shown] for place, entry in found.items() if entry[shown] is not None}
    values = [value * scale for value in known.values()]
    figure.add_scatter(
        name=title,
        x=list(known),
        y=values,
        mode="lines+markers",
        showlegend=False,
        hovertemplate="%{y:.4~g}<extra></extra>",
        **look(COLOURS[0], "circle"),
    )
    return values


def _add_memory(figure: Figure, found: Mapping[int, Entry]) -> None:
    kinds = dict.fromkeys(kind for entry in found.values() for kind in entry["memory_bytes"])
    styles = zip(cycle(COLOURS[1:]), cycle(SYMBOLS), strict=False)
    for kind, style in zip(kinds, styles, strict=False):
        sizes = {
            place: entry["memory_bytes"][kind]
            for place, entry in found.items()
            if kind in entry["memory_bytes"]
        }
        figure.add_scatter(
            name=text(kind_words(kind)),
            yaxis="y2",
            mode="lines+markers",
            x=list(sizes),
            y=[size / 1e6 for size in sizes.values()],
            customdata=[f"{size:,}" for size in sizes.values()],
            hovertemplate="%{fullData.name}: %{customdata} B<extra></extra>",
            **look(*style),
        )


def _add_limits(
    figure: Figure,
    entry: Entry,
    shown: str,
    time: Mapping[str, Any] | None,
    span: tuple[float, float],
) -> None:
    """What a run may differ from the baseline, and the baseline's memory, from its run to this."""
    before = entry["baseline"] or {}
    middle = (before.get(shown) or 0) * _FIGURES[shown][1]
    across = {"x0": span[0], "x1": span[1], "layer": "below"}
    if middle and time and time["figure"] == shown and time["limit_fraction"] is not None:
        factor = 1 + time["limit_fraction"]
        figure.add_shape(
            type="rect",
            y0=middle / factor,
            y1=middle * factor,
            fillcolor=GREY,
            opacity=0.25,
            line_width=0,
            **across,
        )
    for size in before.get("memory_bytes", {}).values():
        figure.add_shape(
            type="line",
            yref="y2",
            y0=size / 1e6,
            y1=size / 1e6,
            line={"color": GREY, "width": 1, "dash": "dash"},
            **across,
        )


def _add_beginnings(figure: Figure, runs: Sequence[_Point]) -> None:
    """A line where a new history begins."""
    for place, run in enumerate(runs):
        if run.begins_anew and place > 0:
            figure.add_shape(
                type="line",
                x0=place - 0.5,
                x1=place - 0.5,
                yref="paper",
                y0=0,
                y1=1,
                line={"color": GREY, "width": 2},
                label={"text": "new history", "textposition": "end", "textangle": 0},
            )
