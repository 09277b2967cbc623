"""What the plots of the page have in common: colours, symbols and axes.

Colours of text and grid are the page's, which sets them when it is shown.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

from perfgate.report.words import one_line

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Okabe and Ito's colours, which the colour-blind tell apart, without the two that are hard to
# see on white or on black; symbols and dashes say the same again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("square", "diamond", "triangle-up", "cross", "star", "triangle-down", "x")
_DASHES = ("dash", "dashdot", "longdash", "dot", "longdashdot")
GREY = "#808890"

# Attributes of a trace by which the points and lines of one implementation are known.
Look = Mapping[str, Any]


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Args:
        title: its heading.
        alt: what it shows, for those who do not see it.
        figure: plotly's.
    """

    title: str
    alt: str
    figure: Figure

    @property
    def json(self) -> dict[str, Any]:
        """What plotly.js draws."""
        return {"alt": self.alt, **self.figure.to_plotly_json()}


@dataclass
class Section:
    """A heading of the page with its plots, side by side or one at a time from a list."""

    title: str
    text: str
    plots: list[Plot] = field(default_factory=list)
    choose: bool = False


def look(colour: str, symbol: str, dash: str = "solid") -> Look:
    """The same colour for points and lines."""
    return {
        "marker": {"color": colour, "symbol": symbol, "size": 9},
        "line": {"color": colour, "dash": dash, "width": 2},
    }


def looks(implementations: Iterable[str], companions: Collection[str] = ()) -> dict[str, Look]:
    """A look for each, the same wherever it is drawn. What others are shown beside stands back."""
    names = list(dict.fromkeys(implementations))
    found = {name: look(GREY, "circle") for name in names if name in companions}
    styles = zip(cycle(COLOURS), cycle(SYMBOLS), cycle(_DASHES), strict=False)
    return found | {
        name: look(*style)
        for name, style in zip((name for name in names if name not in found), styles, strict=False)
    }


def new_figure(height: int, **layout: Any) -> Figure:
    """A figure without plotly's own colours, so many pixels high."""
    from plotly.graph_objects import Figure

    return Figure(layout={"template": {}, "height": height, **layout})


def log_axis(title: str, values: Iterable[float], **more: Any) -> dict[str, Any]:
    """A logarithmic axis around these values, whose ticks are whole numbers and no powers."""
    known = [math.log10(value) for value in values if value > 0]
    margin = 0.05 * (max(known) - min(known)) + 0.08  # one value has one, too
    lowest, highest = min(known) - margin, max(known) + margin
    # Side by side there is room for 1, 2 and 5 of up to two decades, or else for powers of ten.
    decades = highest - lowest
    ticks = {"nticks": 3} if decades < 2.1 else {"dtick": math.ceil(decades / 6)}
    return {
        "type": "log",
        "title": {"text": title},
        "tickformat": ",",
        "range": [lowest, highest],
        **ticks,
        **more,
    }


def text(value: str) -> str:
    """Data as text of a plot: plotly reads a little HTML."""
    return html.escape(one_line(value), quote=False)
