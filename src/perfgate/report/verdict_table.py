"""The verdicts as lines for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from perfgate.judge.verdict import Verdict
from perfgate.plain_text import printable
from perfgate.report.document import verdict_entry
from perfgate.report.rows import Row, rows
from perfgate.report.words import count_words, status_words

WIDTH = 100
_GAP = "  "
# The limit of two pairs is wide, and stands in the causes; what is not excluded is what counts.
_COLUMNS = ("verdict", "benchmark", "change", "at most", "memory", "processes")
_ALIGNED = ("left", "left", "right", "right", "right", "right")


def verdict_lines(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """Status and line, aligned; the worst last, where the eye is.

    What is not `unchanged` has its cause below; verdicts with the same cause share it. The
    header has an empty status.
    """
    found = rows(map(verdict_entry, verdicts), worst_first=False)
    if not found:
        return []
    header, *aligned = _aligned(found)
    lines = [("", header)]
    margin = " " * (max(len(status_words(row.status)) for row in found) + len(_GAP))
    for row, following, line in zip(found, [*found[1:], None], aligned, strict=True):
        lines.append((row.status, line))
        shared = following and (following.status, following.cause) == (row.status, row.cause)
        if row.status != "unchanged" and not shared:
            cause = textwrap.wrap(row.cause, WIDTH, initial_indent=margin, subsequent_indent=margin)
            lines += [(row.status, line) for line in cause]
    return [(status, printable(line)) for status, line in lines]


def _aligned(found: Sequence[Row]) -> list[str]:
    """A header and a line for each row; names take the room that the other columns leave."""
    from tabulate import tabulate

    cells = [_COLUMNS, *map(_cells, found)]
    widths = [max(map(len, column)) + len(_GAP) for column in zip(*cells, strict=True)]
    room = WIDTH - sum(widths) + widths[1]
    lines = [(status, _cut(name, room), *figures) for status, name, *figures in cells]
    table = tabulate(lines, tablefmt="plain", colalign=_ALIGNED, disable_numparse=True)
    return str(table).splitlines()


def _cells(row: Row) -> tuple[str, ...]:
    return (status_words(row.status), row.short, row.change, row.visible, row.memory, row.processes)


def _cut(text: str, width: int) -> str:
    """A text without its middle, if it is too long: ends tell parametrised names apart."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]


def verdict_summary(verdicts: Sequence[Verdict]) -> str:
    """How many of each, in one line, the worst first."""
    return count_words(verdict.status for verdict in verdicts)
