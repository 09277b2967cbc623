"""How reports name and round: the same words and digits in all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from perfgate.judge.verdict import COMPANIONS, Status
from perfgate.plain_text import one_line as one_line

# From what needs no look to what does.
STATUSES: tuple[Status, ...] = (
    "unchanged",
    "improved",
    "no_baseline",
    "inconclusive",
    "unjudged",
    "incomparable",
    "missing",
    "regressed",
)
assert set(STATUSES) == set(get_args(Status))
# Those that say neither yes nor no.
SILENT: tuple[Status, ...] = ("inconclusive", "unjudged", "no_baseline")

EXITS: Mapping[str, str] = {
    "PASSED": "nothing is worse",
    "REGRESSED": "something became slower or larger",
    "MISSING": "something of the baseline was not measured",
    "NOTHING_MEASURED": "nothing was measured",
    "INCOMPARABLE": "not the same work or device as in the baseline",
    "CORRUPT_BASELINE": "the baseline cannot be read",
    "NO_BASELINE": "there is nothing to compare with",
    "IMPROVED": "something became faster or smaller and is not accepted yet",
    "INCONCLUSIVE": "something could not be told from noise",
    "UNJUDGED": "of something no time could be judged",
    "STOPPED": "a measuring process hung or was killed",
    "TESTS_FAILED": "a benchmark or test failed",
    "INTERRUPTED": "the run was interrupted",
    "INTERNAL_ERROR": "pytest had an internal error",
    "USAGE_ERROR": "pytest was called with arguments that it does not know",
    "NO_TESTS_COLLECTED": "pytest found no test",
    "OTHER": "the run failed",
}

# What a benchmark measured, in the order of a training step.
PASSES: Mapping[str, str] = {
    "forward": "forward",
    "backward": "backward",
    "backward_with_input_grad": "backward+dx",
    "training_step": "step",
}


def status_words(status: str) -> str:
    return status.replace("_", " ")


def pass_words(name: str) -> str:
    return PASSES.get(name, name.replace("_", " "))


def kind_words(kind: str) -> str:
    """`forward_peak_bytes` in words; the unit stands elsewhere."""
    return kind.removesuffix("_bytes").replace("_", " ")


def figure_words(figure: str, base: str | None) -> str:
    """What a figure is; between two revisions it is that of the one over the other."""
    words = dict(COMPANIONS).get(figure, figure)  # type: ignore[call-overload]
    return f"{words}, over that of {base}" if base else str(words)


def exit_words(document: Mapping[str, Any]) -> str:
    """What the exit status of a document says, in a sentence without a full stop."""
    name = document["exit"]["name"]
    if name != "PASSED":
        return EXITS[name]
    if not document["verdicts"]:
        return "measured, nothing was judged"
    if unclear := unjudged(document):
        return f"nothing is known to be worse; {unclear} of {len(document['verdicts'])} are unclear"
    return EXITS[name]


def unjudged(document: Mapping[str, Any]) -> int:
    """How many verdicts say neither yes nor no."""
    return sum(verdict["status"] in SILENT for verdict in document["verdicts"])


def counts(statuses: Iterable[str]) -> list[tuple[str, int]]:
    """Each status that there is and how often, the worst first."""
    found = Counter(statuses)
    return [(status, found[status]) for status in reversed(STATUSES) if found[status]]


def count_words(statuses: Iterable[str]) -> str:
    """The same in words."""
    return ", ".join(f"{count} {status_words(status)}" for status, count in counts(statuses))


def milliseconds(ns: float | None) -> str:
    """Three significant digits, but no fewer than the whole milliseconds."""
    if ns is None:
        return ""
    ms = ns / 1e6
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:#.3g}"


def megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.2f}"


def factor(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def percent(fraction: float | None, sign: bool = False) -> str:
    """With one digit after the point below 100%, and none above."""
    if fraction is None:
        return ""
    digits = 0 if abs(fraction) >= 0.9995 else 1
    rounded = round(fraction, digits + 2) + 0.0  # no "-0.0%"
    return f"{rounded:{'+' if sign else ''}.{digits}%}"


def byte_change(before: int, now: int) -> str:
    return f"{now - before:+,} B" if now != before else "0 B"


def date(datetime: str) -> str:
    """An ISO date and time to the second; the runs are in UTC."""
    return f"{datetime[:19].replace('T', ' ')} UTC" if datetime else "unknown date"


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names without their files, where that leaves them different."""
    whole = list(dict.fromkeys(names))
    short = {name: _short(name) for name in whole}
    taken = list(short.values())
    return {name: value if taken.count(value) == 1 else name for name, value in short.items()}


def name_parts(name: str) -> tuple[str, str, str]:
    """File, function with its classes, and parameters, which may hold colons, too."""
    file, colons, rest = name.partition("::")
    if not colons or "[" in file.rpartition("/")[2]:
        file, rest = "", name
    function, bracket, parameters = rest.partition("[")
    return file, function, bracket + parameters


def _short(name: str) -> str:
    file, function, parameters = name_parts(name)
    test = name
    if file:
        test = function.rpartition("::")[2].removeprefix("test_") + parameters
    for long, words in PASSES.items():
        test = re.sub(rf"(?<=[-\[]){long}(?=[-\]])", words, test)
    return test or name


def device_words(environment: Mapping[str, Any]) -> str:
    """The device and what its figures depend on."""
    parts = [str(environment.get("device_model", "an unknown device"))]
    known = {
        "torch": "torch {}",
        "cuda": "CUDA {}",
        "threads": "{} threads",
        "matmul_precision": "matmul precision {}",
    }
    parts += [text.format(environment[key]) for key, text in known.items() if key in environment]
    return ", ".join(parts)
