"""The report as one JSON document, from which all other reports are made.

`schema.json` describes it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NoReturn

from perfgate.judge.exit_codes import FAILING, GateExit
from perfgate.judge.record import Run
from perfgate.judge.verdict import MemoryChange, Status, TimeChange, Verdict
from perfgate.report.measured import finite, measurement_entry, plain
from perfgate.report.schema import violations

SCHEMA = "kan-impls-report/1"

Document = dict[str, Any]
Kind = Literal["compare", "ab", "measure"]

# pytest's own exit statuses; one that is not 0 stays the run's.
PYTEST_EXITS: Mapping[int, str] = {
    1: "TESTS_FAILED",
    2: "INTERRUPTED",
    3: "INTERNAL_ERROR",
    4: "USAGE_ERROR",
    5: "NO_TESTS_COLLECTED",
}


class ReportError(ValueError):
    """A report cannot be read or written; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A run that another is compared with, and the file that it is from, if it is from one."""

    run: Run
    path: Path | str | None = None


def document(
    run: Run,
    verdicts: Sequence[Verdict],
    *,
    exit_code: int,
    kind: Kind,
    baseline: Source | None = None,
    anchor: Source | None = None,
    false_alarm: float | None = None,
    base: str | None = None,
    pairs: Run | None = None,
    notes: Sequence[str] = (),
    failing: Collection[Status] = FAILING,
) -> Document:
    """The report on a run.

    Args:
        run: what was measured, in its own figures.
        verdicts: the judgement; empty where nothing was judged.
        exit_code: a `GateExit`, or one of pytest's own.
        kind: how the run was judged.
        baseline, anchor: what it was compared with.
        false_alarm: the probability that a run of unchanged code has any false alarm.
        base: for `ab`, the revision that it was compared with.
        pairs: the run whose figures are those of this code over the earlier one's, in turns.
        notes: whatever else a reader must know.
        failing: the verdicts that were not to pass.
    """
    before = baseline.run.measurements if baseline else {}
    compared = pairs.measurements if pairs else {}
    return {
        "schema": SCHEMA,
        "kind": kind,
        "exit": exit_entry(exit_code),
        "failing": sorted(failing),
        "commit": run.commit,
        "datetime": run.datetime,
        "environment": plain(dict(run.environment)),
        "new_history_because": run.anchor,
        "base": base,
        "baseline": _source(baseline),
        "anchor": _source(anchor),
        "false_alarm_probability": false_alarm,
        "commands": _commands(kind, base),
        "verdicts": [verdict_entry(verdict) for verdict in verdicts],
        "measurements": [
            measurement_entry(m, before.get(m.name), compared.get(m.name))
            for m in run.measurements.values()
        ],
        "notes": list(notes),
    }


def verdict_entry(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the document holds it."""
    return {
        "name": verdict.name,
        "status": verdict.status,
        "cause": verdict.cause,
        "times": [_time_entry(change) for change in verdict.times],
        "memory": [_memory_entry(change) for change in verdict.memory],
        "counts": [asdict(change) for change in verdict.counts],
    }


def _time_entry(change: TimeChange) -> dict[str, Any]:
    return {
        "figure": change.figure,
        "against": change.against,
        "status": change.status,
        "change_fraction": finite(change.change),
        "limit_fraction": finite(change.limit),
        "visible_fraction": finite(change.visible),
        "processes": change.processes,
        "in_turns_with": change.commit,
        "noise_of": change.noise_of or None,
        "given_up": change.given_up or None,
    }


def _memory_entry(change: MemoryChange) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "status": change.status,
        "before_bytes": change.before,
        "now_bytes": change.now,
    }


def exit_entry(code: int) -> dict[str, Any]:
    """An exit status as the document holds it."""
    return {"code": int(code), "name": _exit_name(code)}


def _exit_name(code: int) -> str:
    if code in {member.value for member in GateExit}:
        return GateExit(code).name
    return PYTEST_EXITS.get(code, "OTHER")


def _source(source: Source | None) -> dict[str, Any] | None:
    if source is None:
        return None
    run = source.run
    return {
        "path": None if source.path is None else str(source.path),
        "commit": run.commit,
        "datetime": run.datetime,
        "device_key": run.device_key,
    }


def _commands(kind: Kind, base: str | None) -> dict[str, str | None]:
    """What measures again, and what accepts the run."""
    again = {
        "compare": "pytest --benchmark-compare",
        # A revision has no blank in it; what follows one is for readers.
        "ab": f"kan-bench ab {shlex.quote([*(base or '').split(), 'BASE'][0])}",
        "measure": "pytest --benchmark-only",
    }
    # Two revisions are compared without a baseline, so that there is nothing to accept.
    return {"reproduce": again[kind], "accept": None if kind == "ab" else "kan-bench accept"}


def to_json(content: object) -> str:
    """A document, or what is made from one, as text.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read_document(path: Path) -> Document:
    """A document that was written as report.json.

    Raises:
        ReportError: the file cannot be read, or is no report.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise ReportError(
            f"{path} cannot be read ({error.strerror}); expected a report: name a report.json "
            "that a judged run wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReportError(
            f"{path} is no report ({error}); expected JSON: name a report.json that a judged run "
            "wrote, or measure again"
        ) from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise ReportError(
            f"{path} is of the schema {version!r}; expected {SCHEMA!r}: name a report.json, and "
            "read it with the version of kan-impls that wrote it"
        )
    if wrong := list(islice(violations(data), 3)):
        raise ReportError(
            f"{path} is not a whole report: {'; '.join(wrong)}. Measure again, or take the file "
            "as it was written"
        )
    report: Document = data
    return report


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
