"""Benchmarks that failed: a row of their own in the table, with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perfgate.plain_text import one_line

LONGEST = 300


@dataclass(frozen=True)
class Failure:
    """A benchmark that failed.

    Args:
        name: pytest's node id.
        work: what it measured, if it said so before it failed.
        reason: why, in one line.
    """

    name: str
    work: Mapping[str, Any]
    reason: str


def reason_of(error: BaseException) -> str:
    """The first line of an exception, after its kind; that of a test's own `fail` alone."""
    said = one_line(str(error).strip().partition("\n")[0])
    is_own = type(error).__module__.startswith("_pytest.")
    whole = said if is_own and said else f"{type(error).__name__}: {said}".removesuffix(": ")
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 1]}…"


def skip_reason(report: Any) -> str:
    """Why pytest's report of a test is one that was skipped, or expected to fail."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return getattr(report, "wasxfail", said.removeprefix("Skipped: "))


def failure_notes(failures: Iterable[Failure]) -> list[str]:
    """A sentence for each implementation and reason."""
    passes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for failure in failures:
        work = failure.work
        of = f"{work['implementation']} at {work['case']}" if work else failure.name
        passes[of, failure.reason].append(str(work.get("pass", "")))
    return [
        f"{of} failed ({reason}): {', '.join(found)}" if any(found) else f"{of} failed ({reason})"
        for (of, reason), found in passes.items()
    ]
