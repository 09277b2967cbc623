"""Time against memory of a training step, and the implementations that none beats in both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perfgate.report.measured import cost_of_step, label, row_key
from perfgate.report.plot import GREY, Look, Plot, log_axis, new_figure, text

TITLE = "Time against memory"

_HEIGHT = 420

# Milliseconds and megabytes of a step.
Cost = tuple[float, float]


def time_against_memory(
    entries: Sequence[Mapping[str, Any]], looks_of: Mapping[str, Look]
) -> Iterator[Plot]:
    """One plot of the entries of a heading; none where fewer than two have both figures."""
    costs = costs_of(entries)
    if len(costs) < 2:
        return
    times, sizes = zip(*(cost for _, cost in costs), strict=True)
    figure = new_figure(
        _HEIGHT,
        xaxis=log_axis("step, ms", times),
        yaxis=log_axis("parameters and peak, MB of 10⁶ bytes", sizes),
    )
    best = frontier(costs)
    figure.add_scatter(
        name="not beaten in both",
        x=[time for _, (time, _) in best],
        y=[size for _, (_, size) in best],
        mode="lines",
        line={"color": GREY, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )
    for name, (time, size) in costs:
        figure.add_scatter(
            name=text(name),
            x=[time],
            y=[size],
            mode="markers",
            hovertemplate="%{fullData.name}: %{x:,.4~g} ms, %{y:,.4~g} MB<extra></extra>",
            **looks_of[name],
        )
    words = "; ".join(f"{name} {time:.3g} ms, {size:.3g} MB" for name, (time, size) in best)
    yield Plot(TITLE, f"{TITLE} of a training step. Beaten by none in both: {words}.", figure)


def frontier(costs: Sequence[tuple[str, Cost]]) -> list[tuple[str, Cost]]:
    """Those than which no other one is as fast and as small, and better in one; fastest first."""
    found: list[tuple[str, Cost]] = []
    for name, cost in sorted(costs, key=lambda of: of[1]):
        if not found or cost[1] < found[-1][1][1]:
            found.append((name, cost))
    return found


def costs_of(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, Cost]]:
    """Those of each row whose step is known, by its label."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in entries:
        rows.setdefault(row_key(entry["measured"]), {})[entry["measured"]["pass"]] = entry
    found = []
    for passes in rows.values():
        cost = cost_of_step(passes)
        if cost is not None:
            name = label(next(iter(passes.values()))["measured"])
            found.append((name, (cost[0] / 1e6, cost[1] / 1e6)))
    return found
