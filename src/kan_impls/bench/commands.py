"""What the subcommands of `kan-bench` do."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kan_impls.bench import lifeline
from kan_impls.bench.baseline import BaselineError, history
from kan_impls.bench.exit_codes import FAILING, GateExit, gate_exit
from kan_impls.bench.files import remove_folders
from kan_impls.bench.limits import LimitsError
from kan_impls.bench.paths import LAST_RUN
from kan_impls.bench.plain_text import printable
from kan_impls.bench.processes import Command, WorkerError, WorkerStoppedError
from kan_impls.bench.report import ReportError, read_document, write_all
from kan_impls.bench.report.document import document
from kan_impls.bench.report.verdict_table import verdict_lines, verdict_summary
from kan_impls.bench.report.write import clear
from kan_impls.bench.verdict import FALSE_ALARM, Verdict


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; its exit status. An error is one line, and status 1.

    A measuring process that hung or was killed is one line, and `GateExit.STOPPED`.
    """
    from kan_impls.bench.ab.trees import RevisionError
    from kan_impls.bench.calibrate import CalibrationError

    subcommand = {
        "accept": _accept, "calibrate": _calibrate, "ab": _ab, "gate": _gate, "report": _report,
    }[options.command]  # fmt: skip
    lifeline.end_on_sigterm()
    remove_folders()  # which a killed command left
    try:
        return subcommand(options)
    except WorkerStoppedError as error:
        _complain(str(error))
        return GateExit.STOPPED
    except (
        BaselineError, CalibrationError, LimitsError, ReportError, RevisionError, WorkerError,
    ) as error:  # fmt: skip
        _complain(str(error))
        return 1
    except OSError as error:
        _complain(f"{error}; expected files and folders that can be read and written: see to them")
        return 1


def _say(text: str) -> None:
    print(printable(text), flush=True)


def _complain(text: str) -> None:
    print(f"kan-bench: {printable(text)}", file=sys.stderr)


def _accept(options: argparse.Namespace) -> int:
    from kan_impls.bench import last_run

    path = options.run or LAST_RUN
    return _store(options, last_run.read(path, is_named=options.run is not None), str(path))


def _store(options: argparse.Namespace, data: dict[str, Any], source: str) -> int:
    from kan_impls.bench.accept import accept

    path = accept(
        data, source, options.baselines, options.name, options.merge, options.replace,
        options.new_history, _say,
    )  # fmt: skip
    print(f"stored {path}")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from kan_impls.bench.calibrate import calibrate

    arguments = ["--benchmark-only", *options.pytest]
    command = Command(arguments, Path.cwd(), timeout=options.worker_timeout)
    data = calibrate(command, options.runs, options.processes, _say, options.keep)
    return _store(options, data, "the calibration")


def _ab(options: argparse.Namespace) -> int:
    return _compare_revisions(options, options.base, options.head, options.pytest)


def _compare_revisions(
    options: argparse.Namespace,
    base_revision: str,
    head_revision: str | None,
    arguments: Sequence[str],
    names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> int:
    from kan_impls.bench.ab.duel import Plan
    from kan_impls.bench.ab.run import Contestants, compare_revisions
    from kan_impls.bench.ab.trees import tree_of

    root = Path.cwd()
    with tree_of(root, base_revision) as base, tree_of(root, head_revision) as head:
        _say(f"base {base.revision} ({base.commit[:10]}), head {head.revision}")
        contestants = Contestants(
            base, head, ["--benchmark-only", *arguments], Plan(), _say,
            timeout=options.worker_timeout,
        )  # fmt: skip
        outcome = compare_revisions(
            contestants, options.pairs, options.further_runs, FALSE_ALARM, names
        )
        name = f"{base_revision} ({base.commit[:10]})"
    _print_verdicts(outcome.verdicts)
    failing = {*FAILING, "inconclusive"} if options.fail_on_inconclusive else FAILING
    code = gate_exit((verdict.status for verdict in outcome.verdicts), failing)
    if options.report is not None:
        content = document(
            outcome.head, outcome.verdicts, exit_code=code, kind="ab", base=name,
            pairs=outcome.run, false_alarm=FALSE_ALARM, notes=notes,
        )  # fmt: skip
        write_all(options.report, content, [], _say)
    _say(f"exit status {code.value}: {code.name.lower()}")
    return code


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    for _, line in verdict_lines(verdicts):
        _say(line)
    _say(verdict_summary(verdicts))


def _gate(options: argparse.Namespace) -> int:
    """Compare with the stored baseline; what it flags, by base and head in turns."""
    from kan_impls.bench.ab.trees import commit_of

    stored = options.report / "stored-baseline"
    commit_of(Path.cwd(), options.base)  # rather now than on the day it is needed
    # What an earlier run left must not be taken for this one's.
    for folder in (options.report, stored):
        clear(folder)
    finished = subprocess.run(
        [
            sys.executable, "-m", "pytest", "--benchmark-compare", "--fail-on-inconclusive",
            f"--baselines={options.baselines}", f"--further-runs={options.further_runs}",
            f"--report={stored}", f"--worker-timeout={options.worker_timeout}", *options.pytest,
        ],
        check=False,
    )  # fmt: skip
    try:
        content = read_document(stored / "report.json")
    except ReportError as error:
        _complain(str(error))
        return finished.returncode or GateExit.NOTHING_MEASURED
    questions = [v["name"] for v in content["verdicts"] if _is_question(v)]
    if finished.returncode not in _ASKED or not questions or _is_red_otherwise(content, options):
        key = content["environment"].get("device_key", "")
        write_all(options.report, content, history(options.baselines, key), _say)
        return finished.returncode
    _say(
        f"\n{len(questions)} benchmarks are not clear by the stored baseline: {options.base} tells"
    )
    note = (
        "By the stored baseline these were not clear, so that base and head were measured in "
        f"turns: {', '.join(questions)}. The comparison with the stored baseline is in "
        f"{stored.name}/."
    )
    return _compare_revisions(options, options.base, None, options.pytest, questions, [note])


# Exit statuses of the comparison with the stored baseline that base and head can answer.
_ASKED = (GateExit.REGRESSED, GateExit.INCONCLUSIVE, GateExit.PASSED)


def _is_question(verdict: Mapping[str, Any]) -> bool:
    """Whether base and head can answer it; a loss since the oldest baseline is of many bases."""
    drifted = any(
        change["against"] == "anchor" and change["status"] == "regressed"
        for change in verdict["times"]
    )
    return verdict["status"] in ("regressed", "inconclusive", "no_baseline") and not drifted


def _is_red_otherwise(content: Mapping[str, Any], options: argparse.Namespace) -> bool:
    """Whether there is a verdict that stays red, whatever base and head say."""
    stops = {*FAILING, "no_baseline"} if "--require-baseline" in options.pytest else set(FAILING)
    return any(
        verdict["status"] in stops
        and (not _is_question(verdict) or verdict["status"] == "no_baseline")
        for verdict in content["verdicts"]
    )


def _report(options: argparse.Namespace) -> int:
    content = read_document(options.document)
    key = content["environment"].get("device_key", "")
    for path in write_all(options.out, content, history(options.baselines, key), _say):
        print(path)
    return 0
