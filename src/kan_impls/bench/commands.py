"""What the subcommands of `kan-bench` do."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kan_impls.bench.baseline import BaselineError, history
from kan_impls.bench.exit_codes import FAILING, GateExit, gate_exit
from kan_impls.bench.limits import LimitsError
from kan_impls.bench.processes import Command, WorkerError
from kan_impls.bench.report import ReportError, read_document, write_all
from kan_impls.bench.report.document import document
from kan_impls.bench.report.verdict_table import verdict_lines, verdict_summary
from kan_impls.bench.verdict import FALSE_ALARM, Status, Verdict


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; its exit status. An error is one line, and status 1."""
    from kan_impls.bench.ab.trees import RevisionError
    from kan_impls.bench.calibrate import CalibrationError

    subcommand = {
        "accept": _accept, "calibrate": _calibrate, "ab": _ab, "gate": _gate, "report": _report,
    }[options.command]  # fmt: skip
    try:
        return subcommand(options)
    except (
        BaselineError, CalibrationError, LimitsError, ReportError, RevisionError, WorkerError,
    ) as error:  # fmt: skip
        _complain(str(error))
        return 1


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(text: str) -> None:
    print(f"kan-bench: {text}", file=sys.stderr)


def _accept(options: argparse.Namespace) -> int:
    from kan_impls.bench.accept import read_last_run

    return _store(options, read_last_run(options.run), str(options.run))


def _store(options: argparse.Namespace, data: dict[str, Any], source: str) -> int:
    from kan_impls.bench.accept import accept

    path = accept(
        data, source, options.baselines, options.name, options.merge, options.replace,
        options.new_history,
    )  # fmt: skip
    print(f"stored {path}")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from kan_impls.bench.calibrate import calibrate

    command = Command(["--benchmark-only", *options.pytest], Path.cwd())
    measure = partial(calibrate, add_to=options.baselines) if options.add else calibrate
    data = measure(command, options.runs, options.processes, _say, options.keep)
    options.merge |= options.add and not options.replace
    return _store(options, data, "the calibration")


def _ab(options: argparse.Namespace) -> int:
    return _compare_revisions(options, options.base, options.head)


def _compare_revisions(
    options: argparse.Namespace, base_revision: str, head_revision: str | None
) -> int:
    from kan_impls.bench.ab.run import Contestants, compare_revisions
    from kan_impls.bench.ab.trees import tree_of

    root = Path.cwd()
    # A cancelled job ends like an interrupted one: worktrees and processes go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tree_of(root, base_revision) as base, tree_of(root, head_revision) as head:
        _say(f"base {base.revision} ({base.commit[:10]}), head {head.revision}")
        contestants = Contestants(base, head, ["--benchmark-only", *options.pytest], _say)
        outcome = compare_revisions(contestants, options.pairs, FALSE_ALARM)
        name = f"{base_revision} ({base.commit[:10]})"
    _print_verdicts(outcome.verdicts)
    code = gate_exit((verdict.status for verdict in outcome.verdicts), _failing(options))
    if options.report is not None:
        content = document(
            outcome.head, outcome.verdicts, exit_code=code, kind="ab", base=name,
            pairs=outcome.run, false_alarm=FALSE_ALARM,
        )  # fmt: skip
        write_all(options.report, content, [], _say)
    _say(f"exit status {code.value}: {code.name.lower()}")
    return code


def _failing(options: argparse.Namespace) -> set[Status]:
    return {*FAILING, "inconclusive"} if options.fail_on_inconclusive else {*FAILING}


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    for _, line in verdict_lines(verdicts):
        _say(line)
    _say(verdict_summary(verdicts))


def _gate(options: argparse.Namespace) -> int:
    """Compare with the stored baseline, and what its times leave open with the merge base.

    The exit status follows from the verdicts, and not from that of the process that wrote them.
    """
    from kan_impls.bench.ab.trees import merge_base

    base = merge_base(Path.cwd(), options.base)
    _say(f"base {options.base}, branched off at {base[:10]}")
    # What an earlier run left must not be taken for this one's.
    for name in ("report.json", "exit_code"):
        (options.report / name).unlink(missing_ok=True)
    finished = subprocess.run(
        [
            sys.executable, "-m", "pytest", "--benchmark-compare", f"--against={base}",
            f"--baselines={options.baselines}", f"--pairs={options.pairs}",
            f"--report={options.report}", *options.pytest,
            *(["--fail-on-inconclusive"] if options.fail_on_inconclusive else []),
        ],
        check=False,
    )  # fmt: skip
    try:
        content = read_document(options.report / "report.json")
    except ReportError as error:
        _complain(str(error))
        return finished.returncode or GateExit.NOTHING_MEASURED
    judged = gate_exit((verdict["status"] for verdict in content["verdicts"]), _failing(options))
    return finished.returncode or judged


def _report(options: argparse.Namespace) -> int:
    content = read_document(options.document)
    key = content["environment"].get("device_key", "")
    for path in write_all(options.out, content, history(options.baselines, key), _say):
        print(path)
    return 0
