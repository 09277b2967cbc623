"""What the plots of the page have in common: colours, axes, and plots as plain data.

A plot is what plotly.js draws, as JSON; colours of text and grid are the page's and are set there.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perfgate.report.words import one_line

# Okabe and Ito's colours, which the colour-blind tell apart, without the two that are hard to
# see on white or on black; symbols and dashes say the same again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SYMBOLS = ("square", "diamond", "triangle-up", "cross", "star", "triangle-down", "x")
_DASHES = ("dash", "dashdot", "longdash", "dot", "longdashdot")
GREY = "#808890"


@dataclass(frozen=True)
class Style:
    """How the points and lines of one implementation look."""

    colour: str
    symbol: str
    dash: str


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Args:
        title: its heading.
        alt: what it shows, for those who do not see it.
        data, layout: plotly's.
        height: in pixels.
    """

    title: str
    alt: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int


@dataclass
class Section:
    """A heading of the page with its plots, side by side or one at a time from a list."""

    title: str
    text: str
    plots: list[Plot] = field(default_factory=list)
    choose: bool = False


def styles(implementations: Iterable[str], companions: Collection[str] = ()) -> dict[str, Style]:
    """A style for each, the same wherever it is drawn. What others are shown beside stands back."""
    names = list(dict.fromkeys(implementations))
    found = {name: Style(GREY, "circle", "solid") for name in names if name in companions}
    for index, name in enumerate(name for name in names if name not in companions):
        found[name] = Style(
            _COLOURS[index % len(_COLOURS)],
            _SYMBOLS[index % len(_SYMBOLS)],
            _DASHES[index % len(_DASHES)],
        )
    return found


def text(value: str) -> str:
    """Data as text of a plot: plotly reads a little HTML."""
    return html.escape(one_line(value), quote=False)


def log_axis(title: str, values: Iterable[float], ticks: Sequence[float] = ()) -> dict[str, Any]:
    """A logarithmic axis with whole numbers at its ticks.

    Args:
        title: with the unit.
        values: all that is drawn on it.
        ticks: where ticks are; by default at round numbers.
    """
    known = [value for value in values if value > 0] or [1.0]
    lowest, highest = min(known), max(known)
    margin = 0.05 * math.log10(highest / lowest) + 0.08
    at = list(ticks) or _round_numbers(lowest / 10**margin, highest * 10**margin)
    return {
        "type": "log", "title": {"text": title}, "automargin": True,
        "range": [math.log10(lowest) - margin, math.log10(highest) + margin],
        "tickmode": "array", "tickvals": at, "ticktext": [f"{value:,.12g}" for value in at],
    }  # fmt: skip


def _round_numbers(lowest: float, highest: float) -> list[float]:
    """From 2 to some 7 of them."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), range(10, 100)):
        scale = 0.1 if digits == range(10, 100) else 1
        found = [
            float(f"{digit * scale:.3g}e{exponent}")
            for exponent in range(first, last + 1)
            for digit in digits
        ]
        found = [value for value in found if lowest <= value <= highest]
        if len(found) >= 3:
            break
    # Of many decades, not all have room.
    return found[:: math.ceil(len(found) / 7)] if found else [lowest, highest]


def linear_axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "linear",
        "title": {"text": title},
        "automargin": True,
        "zeroline": False,
        **more,
    }


def vertical_line(x: float) -> dict[str, Any]:
    """Across the whole plot; on a logarithmic axis x is the value itself."""
    return {"type": "line", "xref": "x", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": GREY, "width": 1.5, "dash": "dash"}, "layer": "below"}  # fmt: skip


def spread(measurement: Mapping[str, Any], figure: str) -> tuple[float, float]:
    """How far the least and the greatest process are below and above the median."""
    middle = measurement[figure]
    found = [process.get(figure) for process in measurement["processes"]]
    values = [value for value in [*found, middle] if value is not None]
    return middle - min(values), max(values) - middle
