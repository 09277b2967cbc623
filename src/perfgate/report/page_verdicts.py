"""The verdicts of the page, with all that was compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from perfgate.judge.verdict import AGAINST
from perfgate.report.markup import Markup, element, join
from perfgate.report.page_parts import number, table
from perfgate.report.rows import Row, decisive, rows
from perfgate.report.words import (
    STATUSES,
    byte_change,
    figure_words,
    kind_words,
    percent,
    status_words,
)

_VERDICT_COLUMNS = (
    ("verdict", False), ("benchmark", False), ("time", True), ("limit", True),
    ("not excluded", True), ("memory", True), ("processes", True), ("why", False),
)  # fmt: skip


def verdict_part(document: Mapping[str, Any]) -> Markup:
    """The verdicts, the worst first, with what filters them."""
    verdicts = {verdict["name"]: verdict for verdict in document["verdicts"]}
    if not verdicts:
        return element("p", "Nothing was judged.", class_="hint")
    found = rows(verdicts.values(), worst_first=True)
    lines = [
        _verdict_line(row, verdict, document["base"])
        for row, verdict in zip(found, _ranked(verdicts.values()), strict=True)
    ]
    caption = (
        "Time and memory are changes. The limit is what unchanged code exceeds hardly ever; a "
        "change beyond what is not excluded would have been seen."
    )
    return join(_controls(found), table("verdict-table", caption, _VERDICT_COLUMNS, lines))


def _ranked(verdicts: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(verdicts, key=lambda verdict: -STATUSES.index(verdict["status"]))


def _controls(found: Sequence[Row]) -> Markup:
    """Shown by the script, without which they would do nothing."""
    statuses = [row.status for row in found]
    buttons = [
        element("button", f"{status_words(status)} {statuses.count(status)}", type="button",
                aria_pressed="false", data_status=status)
        for status in reversed(STATUSES) if status in statuses
    ]  # fmt: skip
    search = element("input", type="search", id="search", placeholder="benchmark",
                     aria_label="Part of a benchmark's name")  # fmt: skip
    count = element("span", id="count", class_="count", role="status")
    group = element("span", *buttons, role="group", aria_label="Verdicts to show", class_="group")
    return element("div", group, search, count, id="controls", class_="controls", hidden=True)


def _verdict_line(row: Row, verdict: Mapping[str, Any], base: str | None) -> Markup:
    time = decisive(verdict) or {}
    status = element("span", status_words(row.status), class_=f"status {row.status}")
    return element(
        "tr",
        element("td", status, data_value=STATUSES.index(row.status)),
        element("th", element("code", row.short, title=row.name), scope="row"),
        number(row.change, time.get("change_fraction"), "time"),
        number(row.limit, time.get("limit_fraction"), "limit"),
        number(row.visible, time.get("visible_fraction"), "not excluded"),
        number(row.memory, _growth(verdict), "memory"),
        number(row.processes, time.get("processes"), "processes"),
        element("td", _why(row, verdict, base), class_="why"),
        data_status=row.status,
        data_name=f"{row.name} {row.short}",
    )


def _growth(verdict: Mapping[str, Any]) -> int | None:
    changes = [change["now_bytes"] - change["before_bytes"] for change in verdict["memory"]]
    return max(changes, key=abs, default=None)


def _why(row: Row, verdict: Mapping[str, Any], base: str | None) -> Markup:
    details = [element("li", line) for line in _comparisons(verdict, base)]
    if not details:
        return join(row.cause)
    return element("details", element("summary", row.cause), element("ul", *details))


def _comparisons(verdict: Mapping[str, Any], base: str | None) -> Iterator[str]:
    """All that was compared, one line each."""
    for time in verdict["times"]:
        turns = time.get("in_turns_with")
        parts = [
            f"{figure_words(time['figure'], base)} {percent(time['change_fraction'], sign=True)}",
            f"limit {percent(time['limit_fraction'])}",
            f"not excluded up to {percent(time['visible_fraction']) or 'any size'}",
            f"{time['processes']} {'pairs of processes' if turns else 'processes'}",
        ]
        against = AGAINST[time["against"]]
        how = (
            f"in turns with the code of {against}, {turns[:10]}" if turns else f"against {against}"
        )
        yield f"{', '.join(parts)}: {time['status']}, {how}"
    for change in verdict["memory"]:
        before, now = change["before_bytes"], change["now_bytes"]
        yield (
            f"{kind_words(change['kind'])} {before:,} B to {now:,} B "
            f"({byte_change(before, now)}): {change['status']}"
        )
    yield verdict["name"]
