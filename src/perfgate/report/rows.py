"""The rows of a table of verdicts: of all that was compared, what decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perfgate.report.words import STATUSES, byte_change, one_line, percent, short_names


@dataclass(frozen=True)
class Row:
    """One verdict, as text; empty where there is nothing to say.

    Args:
        verdict: as the document holds it.
        time: the comparison of time that decided, or the first; empty where there is none.
        growth: bytes, of the kind of memory that decided, or of that which changed most.
        name, short: pytest's node id, and what is left of it where the rest is obvious.
    """

    verdict: Mapping[str, Any]
    time: Mapping[str, Any]
    growth: int | None
    name: str
    short: str
    change: str
    limit: str
    visible: str
    memory: str
    processes: str
    status: str
    cause: str


def rank(verdict: Mapping[str, Any]) -> int:
    """The greater, the worse."""
    return STATUSES.index(verdict["status"])


def rows(verdicts: Iterable[Mapping[str, Any]], worst_first: bool) -> list[Row]:
    """Rows of a document's verdicts, by status and else in their order."""
    found = list(verdicts)
    short = short_names(verdict["name"] for verdict in found)
    sign = -1 if worst_first else 1
    ranked = sorted(found, key=lambda verdict: sign * rank(verdict))
    return [_row(verdict, short[verdict["name"]]) for verdict in ranked]


def decisive(verdict: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The time comparison that the verdict follows, or the first one."""
    times = verdict["times"]
    agreeing = [time for time in times if time["status"] == verdict["status"]]
    return next(iter([*agreeing, *times]), None)


def _row(verdict: Mapping[str, Any], short: str) -> Row:
    time, growth = decisive(verdict) or {}, _growth(verdict)
    return Row(
        verdict=verdict,
        time=time,
        growth=growth,
        name=one_line(verdict["name"]),
        short=one_line(short),
        change=percent(time.get("change_fraction"), sign=True),
        limit=percent(time.get("limit_fraction")),
        visible=percent(time.get("visible_fraction")),
        memory="" if growth is None else byte_change(0, growth),
        processes=str(time.get("processes", "")),
        status=verdict["status"],
        cause=one_line(verdict["cause"]),
    )


def _growth(verdict: Mapping[str, Any]) -> int | None:
    changes = verdict["memory"]
    agreeing = [change for change in changes if change["status"] == verdict["status"]]
    grown = [change["now_bytes"] - change["before_bytes"] for change in agreeing or changes]
    return max(grown, key=abs, default=None)


def samples(measurement: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a judgement rests on: pairs of processes of two revisions, or else processes."""
    found: list[Mapping[str, Any]] = measurement["pairs"] or measurement["processes"]
    return found
