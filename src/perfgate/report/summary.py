"""The report as Markdown, for a step summary or a comment on a pull request.

What a reader must act on comes first; everything that comes from data is escaped, since a
benchmark's name is whatever a test or a branch calls it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from perfgate.report import words
from perfgate.report.rows import Row, rows, samples
from perfgate.report.templates import template

if TYPE_CHECKING:
    from markupsafe import Markup

# GitHub takes 65,536 characters for a comment; what posts it adds some lines.
LIMIT = 60_000
# The first table, which names what must be looked at, takes at most this part of it.
_FIRST_PART = 0.6
_LONGEST_CELL = 600
_MOST_SELECTED = 3
_MORE = "\n\n{} more are not shown here; report.json and report.html hold them all."

_COLUMNS = ("change", "limit", "visible", "memory", "processes", "cause")
_HEADER = (
    "| verdict | benchmark | time | limit | not excluded | memory | processes | why |\n"
    "|:--------|:----------|-----:|------:|-------------:|-------:|----------:|:----|"
)

# What Markdown or HTML would read as more than text. Entities, because in a table a pipe ends
# a cell even in a code span.
_SPECIAL = {character: f"&#{ord(character)};" for character in "&<>|`*~\\$"}
# Emphasis begins outside a word only; a link or its definition needs what follows the bracket.
_SPECIAL_HERE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=\])[(:]")
# GitHub calls people by @name, links issues by #number and makes addresses links.
_CALLS = re.compile(r"@(?=\w)|(?<!&)#(?=\d)|://|www\.", re.IGNORECASE)
# At its beginning a paragraph may be a heading, a list, a rule or a check box.
_BLOCK = re.compile(r"[#+\-=\[]|\d+[.)]")


def escape(text: str, longest: int = _LONGEST_CELL) -> str:
    """Text that Markdown shows as it is, in one line, and that calls nobody and links nothing."""
    cut = words.one_line(text)
    if len(cut) > longest:
        cut = f"{cut[: longest - 1]}…"
    quoted = "".join(_SPECIAL.get(character, character) for character in cut)
    quoted = _SPECIAL_HERE.sub(lambda found: f"&#{ord(found[0])};", quoted)
    return _CALLS.sub(lambda found: f"{found[0]}<!-- -->", quoted)


def code(text: str, longest: int = _LONGEST_CELL) -> Markup:
    """The same as code. A code span of backticks could not hold a pipe or a backtick."""
    from markupsafe import Markup

    return Markup(f"<code>{escape(text, longest)}</code>")


def paragraph(text: str) -> Markup:
    """Escaped text that stands at the beginning of a block."""
    from markupsafe import Markup

    quoted = escape(text.strip())
    return Markup(f"&#{ord(quoted[0])};{quoted[1:]}" if _BLOCK.match(quoted) else quoted)


def source(run: Mapping[str, Any] | None) -> Markup:
    """A run that this one was compared with."""
    from markupsafe import Markup

    if run is None:
        return Markup("none")
    path = f"{code(run['path'])}, " if run["path"] else ""
    date = escape(words.date(run["datetime"]))
    return Markup(f"{path}commit {code(run['commit'][:10])}, {date}")


def summary_markdown(document: Mapping[str, Any], limit: int = LIMIT) -> str:
    """The report as Markdown, of at most `limit` bytes."""
    from markupsafe import Markup

    found = rows(document["verdicts"], worst_first=True)
    lines = [_line(row) for row in found]
    render = partial(
        template("summary.md.j2", escape, False, code, paragraph, source).render,
        _values(document, found),
    )
    room = limit - _size(render(loud="", everything="")) - 50  # for line ends around the tables
    loud = lines[: sum(row.status != "unchanged" for row in found)]
    first = Markup(_table(loud, int(room * _FIRST_PART)) if loud else "")
    everything = Markup(_table(lines, room - _size(first)))
    return _within(render(loud=first, everything=everything), limit)


def _values(document: Mapping[str, Any], found: Sequence[Row]) -> dict[str, Any]:
    """What the template shows, but for the tables of verdicts."""
    measured, commands = document["measurements"], document["commands"]
    worth = {row.status for row in found} & {"regressed", "improved", "no_baseline", "incomparable"}
    return {
        "document": document,
        "measured": measured,
        "rows": found,
        "samples": [sample for entry in measured for sample in samples(entry)],
        "span": _span([len(samples(entry)) for entry in measured]),
        "again": _again(commands["reproduce"], found),
        "accept": commands["accept"] if worth else None,
        "notes": [note for note in document["notes"] if note.strip()],
    }


def _within(text: str, limit: int) -> str:
    """At most that many bytes, even if the names alone are longer."""
    note = "\n\nThe rest is not shown here; report.json and report.html hold it all.\n"
    if _size(text) <= limit:
        return text
    return text.encode()[: limit - _size(note)].decode(errors="ignore") + note


def _size(text: str) -> int:
    return len(text.encode())


def _table(lines: Sequence[str], room: int) -> str:
    """As many rows as there is room for, and how many are not shown."""
    room -= _size(_HEADER) + _size(_MORE) + 10  # digits
    shown = sum(size <= room for size in accumulate(_size(line) + 1 for line in lines))
    more = _MORE.format(len(lines) - shown) if shown < len(lines) else ""
    return "\n".join([_HEADER, *lines[:shown]]) + more


def _line(row: Row) -> str:
    cells = [words.status_words(row.status), code(row.short)]
    cells += [escape(getattr(row, column)) for column in _COLUMNS]
    return f"| {' | '.join(cells)} |"


def _span(counts: Sequence[int]) -> str:
    """The least and the greatest."""
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "none"


def _again(command: str, found: Sequence[Row]) -> str:
    """The command for the benchmarks to measure again, where it takes them and they are few."""
    names = [row.name for row in found if row.status in ("regressed", "inconclusive")]
    program, _, options = command.partition(" ")
    if program != "pytest" or len(names) > _MOST_SELECTED:
        return command
    # Before the options: --benchmark-compare takes what follows it for the baseline.
    return " ".join([program, *map(shlex.quote, names), options])
