"""The verdicts as lines for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from perfgate.judge.verdict import Verdict
from perfgate.plain_text import printable
from perfgate.report.document import verdict_entry
from perfgate.report.rows import Row, rows
from perfgate.report.words import count_words, status_words

WIDTH = 100
_GAP = "  "
# The limit of two pairs is wide, and stands in the causes; what is not excluded is what counts.
_COLUMNS = ("verdict", "benchmark", "change", "at most", "memory", "processes")
_LEFT = 2  # columns that are aligned to the left


def verdict_lines(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """Status and line, aligned; the worst last, where the eye is.

    What is not `unchanged` has its cause below; verdicts with the same cause share it. The
    header has an empty status.
    """
    found = rows(map(verdict_entry, verdicts), worst_first=False)
    if not found:
        return []
    cells = [_cells(row) for row in found]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    widths[1] = min(widths[1], WIDTH - sum(widths) + widths[1] - len(_GAP) * (len(widths) - 1))
    lines = [("", _line(_COLUMNS, widths))]
    for index, row in enumerate(found):
        lines.append((row.status, _line(cells[index], widths)))
        following = found[index + 1] if index + 1 < len(found) else None
        shared = following and (following.status, following.cause) == (row.status, row.cause)
        if row.status != "unchanged" and not shared:
            lines += [(row.status, line) for line in _cause(row.cause, widths[0])]
    return [(status, printable(line)) for status, line in lines]


def _cells(row: Row) -> tuple[str, ...]:
    return (status_words(row.status), row.short, row.change, row.visible, row.memory, row.processes)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        _cut(cell, width).ljust(width) if index < _LEFT else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return _GAP.join(padded).rstrip()


def _cut(text: str, width: int) -> str:
    """A text without its middle, if it is too long: ends tell parametrised names apart."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]


def _cause(text: str, indentation: int) -> Iterator[str]:
    margin = " " * indentation + _GAP
    return iter(textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin))


def verdict_summary(verdicts: Sequence[Verdict]) -> str:
    """How many of each, in one line, the worst first."""
    return count_words(verdict.status for verdict in verdicts)
