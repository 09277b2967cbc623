"""What the subcommands of `kan-bench` do."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from perfgate.files import remove_folders
from perfgate.judge.exit_codes import GateExit, failing_by, gate_exit
from perfgate.judge.limits import LimitsError
from perfgate.judge.verdict import Verdict
from perfgate.paths import LAST_RUN
from perfgate.plain_text import printable
from perfgate.report import ReportError, read_document, write_all
from perfgate.report.document import Document, document
from perfgate.report.outcome import overruled, read_whole, ruling
from perfgate.report.verdict_table import verdict_lines, verdict_summary
from perfgate.report.write import clear
from perfgate.run import lifeline
from perfgate.run.processes import Command, WorkerError, WorkerStoppedError
from perfgate.store.baseline import BaselineError, history


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; its exit status. An error is one line, and status 1.

    A measuring process that hung or was killed is one line, and `GateExit.STOPPED`.
    """
    from perfgate.ab.trees import RevisionError
    from perfgate.advise import NoAdviceError
    from perfgate.store.calibrate import CalibrationError

    subcommand = {
        "init": _init,
        "doctor": _doctor,
        "accept": _accept,
        "calibrate": _calibrate,
        "ab": _ab,
        "gate": _gate,
        "report": _report,
        "advise": _advise,
    }[options.command]
    lifeline.end_on_sigterm()
    remove_folders()  # which a killed command left
    try:
        return subcommand(options)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except WorkerStoppedError as error:
        _complain(str(error))
        return GateExit.STOPPED
    except (
        BaselineError,
        CalibrationError,
        LimitsError,
        ReportError,
        NoAdviceError,
        RevisionError,
        WorkerError,
    ) as error:
        _complain(str(error))
        return 1
    except OSError as error:
        _complain(f"{error}; expected files and folders that can be read and written: see to them")
        return 1


def _say(text: str) -> None:
    print(printable(text), flush=True)


def _complain(text: str) -> None:
    print(f"kan-bench: {printable(text)}", file=sys.stderr)


def _init(options: argparse.Namespace) -> int:
    from perfgate.start.init import NEXT, init

    lines, done = init(Path.cwd())
    for line in lines:
        _say(line)
    _say(NEXT)
    return 0 if done else 1


def _doctor(options: argparse.Namespace) -> int:
    from perfgate.start.doctor import report

    lines, is_fine = report(Path.cwd(), options.baselines)
    for line in lines:
        _say(line)
    return 0 if is_fine else 1


def _accept(options: argparse.Namespace) -> int:
    from perfgate.store import last_run

    path = options.run or LAST_RUN
    return _store(options, last_run.read(path, is_named=options.run is not None), str(path))


def _store(options: argparse.Namespace, data: dict[str, Any], source: str, **more: Any) -> int:
    from perfgate.store.accept import accept

    path = accept(
        data,
        source,
        options.baselines,
        options.name,
        options.merge,
        options.replace,
        options.new_history,
        _say,
        **more,
    )
    print(f"stored {path}")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from perfgate.store.accept import refuse_part
    from perfgate.store.calibrate import calibrate, joined

    source = "the calibration"
    arguments = ["--benchmark-only", *options.pytest]
    command = Command(arguments, Path.cwd(), timeout=options.worker_timeout)
    options.merge |= options.add and not options.replace
    measure = partial(calibrate, add_to=options.baselines) if options.add else calibrate
    if not options.merge and not options.replace:
        measure = partial(measure, check=partial(refuse_part, options.baselines, source))
    data = measure(command, options.runs, options.processes, _say, options.keep)
    return _store(options, data, source, join=joined if options.add else None)


def _ab(options: argparse.Namespace) -> int:
    return _compare_revisions(options, options.base, options.head)


def _compare_revisions(
    options: argparse.Namespace, base_revision: str, head_revision: str | None
) -> int:
    from perfgate.ab.run import Contestants, compare_revisions
    from perfgate.ab.trees import tree_of

    root = Path.cwd()
    with tree_of(root, base_revision) as base, tree_of(root, head_revision) as head:
        _say(f"base {base.revision} ({base.commit[:10]}), head {head.revision}")
        contestants = Contestants(
            base,
            head,
            ["--benchmark-only", *options.pytest],
            _say,
            timeout=options.worker_timeout,
        )
        outcome = compare_revisions(contestants, options.pairs, options.false_alarm)
        name = f"{base_revision} ({base.commit[:10]})"
    _print_verdicts(outcome.verdicts)
    if outcome.error is not None:
        _complain(str(outcome.error))
    code = gate_exit(
        (verdict.status for verdict in outcome.verdicts),
        failing_by(options),
        stopped=isinstance(outcome.error, WorkerStoppedError),
    )
    if options.report is not None:
        content = document(
            outcome.head,
            outcome.verdicts,
            exit_code=code,
            kind="ab",
            base=name,
            pairs=outcome.run,
            false_alarm=options.false_alarm,
            failing=failing_by(options),
        )
        write_all(options.report, content, [], _say)
    _say(f"exit status {code.value}: {code.name.lower()}")
    return code


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    for _, line in verdict_lines(verdicts):
        _say(line)
    _say(verdict_summary(verdicts))


def _gate(options: argparse.Namespace) -> int:
    """Compare with the stored baseline, and what its times leave open with the merge base.

    The exit status follows from the verdicts, and not from that of the process that wrote them.
    """
    from perfgate.ab.trees import merge_base

    base = merge_base(Path.cwd(), options.base)
    _say(f"base {options.base}, branched off at {base[:10]}")
    clear(options.report)  # what an earlier run left must not be taken for this one's
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--benchmark-compare",
            f"--against={base}",
            f"--baselines={options.baselines}",
            f"--pairs={options.pairs}",
            f"--false-alarm={options.false_alarm}",
            f"--report={options.report}",
            f"--worker-timeout={options.worker_timeout}",
            *options.pytest,
            *(["--fail-on-inconclusive"] if options.fail_on_inconclusive else []),
        ],
        check=False,
    )
    try:
        content = read_whole(options.report)
    except ReportError as error:
        _complain(str(error))
        return finished.returncode or GateExit.NOTHING_MEASURED
    if finished.returncode:
        return finished.returncode
    code, cause = ruling(content, failing=failing_by(options), needs_time=True)
    if code != content["exit"]["code"]:
        _write_reports(options.report, overruled(content, code, cause), options.baselines)
    if code:
        _say(f"exit status {code}, where pytest ended with 0: {cause}")
    return code


def _report(options: argparse.Namespace) -> int:
    for path in _write_reports(options.out, read_document(options.document), options.baselines):
        print(path)
    return 0


def _advise(options: argparse.Namespace) -> int:
    from perfgate.advise import NoAdviceError, advise
    from perfgate.store.baseline import newest_runs, read_run

    if len(options.widths) < 2:
        raise NoAdviceError(
            f"--widths is {options.widths[0]}; expected the features at the input and after each "
            "layer, two numbers or more: add them"
        )
    runs = newest_runs(options.baselines)
    if LAST_RUN.exists():
        runs.insert(0, read_run(LAST_RUN))
    memory = {} if options.memory is None else {"memory_bytes": options.memory * 1e6}
    _say(advise(runs, options.batch, options.widths, options.device, **memory))
    return 0


def _write_reports(folder: Path, content: Document, baselines: Path) -> list[Path]:
    key = content["environment"].get("device_key", "")
    return write_all(folder, content, history(baselines, key), _say)
