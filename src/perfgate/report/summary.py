"""The report as Markdown, for a step summary or a comment on a pull request.

What a reader must act on comes first; everything that comes from data is escaped, since a
benchmark's name is whatever a test or a branch calls it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from perfgate.report.rows import Row, rows, samples
from perfgate.report.words import (
    count_words,
    date,
    device_words,
    exit_words,
    one_line,
    status_words,
)

# GitHub takes 65,536 characters for a comment; what posts it adds some lines.
LIMIT = 60_000
# The first table, which names what must be looked at, takes at most this part of it.
_FIRST_PART = 0.6
_LONGEST_CELL = 600
_LONGEST_COMMAND = 4000  # half of one is none
_MOST_SELECTED = 3
_MOST_NOTES = 20

_COLUMNS = ("verdict", "benchmark", "change", "limit", "visible", "memory", "processes", "cause")
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
    cut = one_line(text)
    if len(cut) > longest:
        cut = f"{cut[: longest - 1]}…"
    quoted = "".join(_SPECIAL.get(character, character) for character in cut)
    quoted = _SPECIAL_HERE.sub(lambda found: f"&#{ord(found[0])};", quoted)
    return _CALLS.sub(lambda found: f"{found[0]}<!-- -->", quoted)


def _paragraph(text: str) -> str:
    """Escaped text that stands at the beginning of a block."""
    quoted = escape(text.strip())
    return f"&#{ord(quoted[0])};{quoted[1:]}" if _BLOCK.match(quoted) else quoted


def code(text: str, longest: int = _LONGEST_CELL) -> str:
    """The same as code. A code span of backticks could not hold a pipe or a backtick."""
    return f"<code>{escape(text, longest)}</code>"


def summary_markdown(document: Mapping[str, Any], limit: int = LIMIT) -> str:
    """The report as Markdown, of at most `limit` bytes."""
    found = rows(document["verdicts"], worst_first=True)
    loud = [row for row in found if row.status != "unchanged"]
    head = "\n\n".join([_headline(document), _where(document)])
    tail = "\n\n".join([_evidence(document), _commands(document, found), _notes(document)])
    room = limit - _size(head) - _size(tail) - 200  # for what stands around the tables
    parts = [head]
    if loud:
        parts.append(_table(loud, int(room * _FIRST_PART)))
        room -= _size(parts[-1])
    if found:
        everything = f"<summary>All {len(found)} verdicts</summary>\n\n{_table(found, room)}"
        parts.append(f"<details>\n{everything}\n\n</details>")
    return _within("\n\n".join([*parts, tail]).strip() + "\n", limit)


def _within(text: str, limit: int) -> str:
    """At most that many bytes, even if the names alone are longer."""
    note = "\n\nThe rest is not shown here; report.json and report.html hold it all.\n"
    if _size(text) <= limit:
        return text
    return text.encode()[: limit - _size(note)].decode(errors="ignore") + note


def _size(text: str) -> int:
    return len(text.encode())


def _headline(document: Mapping[str, Any]) -> str:
    status, words = document["exit"], exit_words(document)
    outcome = "Passed" if status["code"] == 0 else "Failed"
    counts = count_words(verdict["status"] for verdict in document["verdicts"])
    counted = f"{counts}. " if counts else ""
    return (
        f"## Benchmarks: {outcome}: {words}\n\n"
        f"{counted}Exit status {status['code']} ({status['name'].lower().replace('_', ' ')})."
    )


def _where(document: Mapping[str, Any]) -> str:
    against = {
        "compare": "against the stored baseline",
        "ab": f"against {code(document['base'] or 'the base')}, measured in turns",
        "measure": "measured only",
    }[document["kind"]]
    device = _paragraph(device_words(document["environment"]))
    return (
        f"{device}; commit {code(document['commit'][:10])}, "
        f"{escape(date(document['datetime']))}; {against}."
    )


def _table(found: Sequence[Row], room: int) -> str:
    """As many rows as there is room for, and how many are not shown."""
    note = "\n\n{} more are not shown here; report.json and report.html hold them all."
    lines, room = [], room - _size(_HEADER) - _size(note) - 10
    for row in found:
        line = _line(row)
        room -= _size(line) + 1
        if room < 0:
            break
        lines.append(line)
    hidden = len(found) - len(lines)
    return "\n".join([_HEADER, *lines]) + (note.format(hidden) if hidden else "")


def _line(row: Row) -> str:
    cells = [status_words(row.status), code(row.short)]
    cells += [escape(getattr(row, column)) for column in _COLUMNS[2:]]
    return f"| {' | '.join(cells)} |"


def _evidence(document: Mapping[str, Any]) -> str:
    measured = document["measurements"]
    used = [samples(m) for m in measured]
    rounds = sum(sample["rounds"] for of_one in used for sample in of_one)
    disturbed = sum(sample["disturbed_rounds"] for of_one in used for sample in of_one)
    unit = "pairs of processes" if any(m["pairs"] for m in measured) else "processes"
    calibrated = sum(bool(m["calibration_runs"]) for m in measured)
    facts = [
        ("device", code(str(document["environment"].get("device_key", "unknown")))),
        ("baseline", _source(document["baseline"])),
        ("oldest baseline", _source(document["anchor"])),
        ("benchmarks", str(len(measured))),
        (f"{unit} for each", _span(sorted(map(len, used)))),
        ("rounds that count", f"{rounds:,}"),
        ("rounds dropped, because others used the machine", f"{disturbed:,}"),
        ("benchmarks with calibrated noise", f"{calibrated} of {len(measured)}"),
        ("probability of any false alarm in a run of unchanged code", _alarm(document)),
    ]
    return "\n".join(["### Evidence", "", *(f"- {name}: {value}" for name, value in facts)])


def _source(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return "none"
    path = f"{code(source['path'])}, " if source["path"] else ""
    return f"{path}commit {code(source['commit'][:10])}, {escape(date(source['datetime']))}"


def _span(numbers: Sequence[int]) -> str:
    ends = sorted({*numbers[:1], *numbers[-1:]})
    return " to ".join(map(str, ends)) or "none"


def _alarm(document: Mapping[str, Any]) -> str:
    alarm = document["false_alarm_probability"]
    return "not judged" if alarm is None else f"{100 * alarm:.3g}%"


def _commands(document: Mapping[str, Any], found: Sequence[Row]) -> str:
    commands = document["commands"]
    again = [commands["reproduce"], *_selection(commands["reproduce"], found)]
    lines = ["### Commands", "", f"- measure again: {code(' '.join(again), _LONGEST_COMMAND)}"]
    worth = {row.status for row in found} & {"regressed", "improved", "no_baseline", "incomparable"}
    if commands["accept"] and worth:
        lines.append(f"- accept these figures as the new baseline: {code(commands['accept'])}")
    return "\n".join(lines)


def _selection(command: str, found: Sequence[Row]) -> list[str]:
    """The benchmarks to measure again, where the command takes them and they are few."""
    names = [row.name for row in found if row.status in ("regressed", "inconclusive")]
    takes = command.startswith("pytest ") and len(names) <= _MOST_SELECTED
    return [shlex.quote(name) for name in names] if takes else []


def _notes(document: Mapping[str, Any]) -> str:
    notes = [f"- {_paragraph(note)}" for note in document["notes"] if note.strip()]
    if len(notes) > _MOST_NOTES:
        notes[_MOST_NOTES:] = [f"- and {len(notes) - _MOST_NOTES} more, in report.json"]
    return "\n".join(["### Notes", "", *notes]) if notes else ""
