"""A measuring session from its first process to its verdicts and files.

It is given pytest's configuration, and knows pytest no further than that.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from perfgate import compare
from perfgate.ab.run import run_of_pairs
from perfgate.ab.settle import Place, settle
from perfgate.failures import Failure, failure_notes
from perfgate.fields import FieldError
from perfgate.files import write_atomically
from perfgate.judge.exit_codes import GateExit, failing_by, gate_exit
from perfgate.judge.limits import Rule
from perfgate.judge.parse import figures_of, parse_process, parse_run, process_alone
from perfgate.judge.record import Measurement, Process, Run
from perfgate.judge.verdict import Verdict, difference
from perfgate.measure.allocator import return_freed_memory
from perfgate.measure.environment import describe_environment, describe_settings
from perfgate.paths import BASELINES
from perfgate.plain_text import one_line, printable
from perfgate.progress import Progress
from perfgate.run.processes import Command, WorkerError, WorkerStoppedError, measure_in_process
from perfgate.run.runner import Runner
from perfgate.run.worker import Channel, Order
from perfgate.selection import is_left_out

Config = Any  # pytest's

NOTHING = (
    "nothing was measured; expected one benchmark or more: select some, and leave out "
    "--benchmark-disable, --benchmark-skip and xdist"
)


@dataclass
class Session:
    """What is gathered from configuration to summary.

    Args:
        config: pytest's.
        device: where benchmarks run.
        comparing: whether the run is judged by the stored baseline.
        processes: how many measure each benchmark.
        order, channel: those of a worker.
        asked: folders, files and tests that the arguments of a worker name; None for all.
        wanted: a path or number of the baseline that the user asked for.
        stored: what the run is judged by.
        environment: the device and its settings when measuring began; None before.
        runner: measures benchmarks.
        measured: pytest-benchmark's statistics of each.
        changed: settings that some benchmarks were measured under, and the names of these.
        rounds: of each benchmark, for every process the seconds of all rounds, and iterations.
        described: the machine and the commit, which take a second to find out.
        absent: name to reason, of benchmarks that were collected and did not measure.
        skipped: those of them that were skipped, or failed as expected.
        works: what benchmarks of a case measure, by name.
        failures: benchmarks that failed, or that were expected to.
        not_selected: names that the user left out.
        progress: of the benchmarks.
        peaks: bytes that passes over the same took.
        run, verdicts: what came out.
        pairs: what was compared in turns, over the earlier code's.
        notes: what the summary ends with.
        suite_property: adds a property to the JUnit file.
        exit_code: the exit status, unless pytest has one of its own.
    """

    config: Config
    device: torch.device
    comparing: bool
    processes: int = 1
    order: Order | None = None
    channel: Channel | None = None
    asked: Sequence[str] | None = None
    wanted: str | None = None
    stored: compare.Stored | None = None
    environment: dict[str, Any] | None = None
    runner: Runner | None = None
    measured: list[Any] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)
    rounds: dict[str, list[tuple[Sequence[float], int]]] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    works: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    not_selected: list[str] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress(0))
    peaks: dict[str, Mapping[str, int]] = field(default_factory=dict)
    run: Run | None = None
    verdicts: Sequence[Verdict] = ()
    pairs: Run | None = None
    notes: list[str] = field(default_factory=list)
    suite_property: Callable[[str, object], None] | None = None
    exit_code: GateExit = GateExit.PASSED


def baselines_of(config: Config) -> Path:
    """Where accepted runs are stored."""
    return Path(config.getoption("baselines") or config.rootpath / BASELINES)


def begin(state: Session, load: Callable[[str], compare.Stored]) -> None:
    """After collection and before the first measurement: the device key, and what is stored for it.

    A benchmark module may set threads and precision when it is imported.

    Raises:
        BaselineError, LimitsError: of `load`, which is given the key.
    """
    environment = describe_environment(state.device)
    if state.comparing:
        state.stored = load(str(environment["device_key"]))
    state.environment = environment


def note_settings(state: Session, stats: Any) -> None:
    """After a benchmark: name what it was measured under, where the run began otherwise.

    It becomes a part of what was measured, so that it is only compared with the same.
    """
    assert state.environment is not None
    settings, began = describe_settings(state.device), state.environment
    changed = {name: value for name, value in settings.items() if value != began[name]}
    if changed:
        info = figures_of({"extra_info": stats.extra_info})
        info["measured"] = {**info.get("measured", {}), **changed}
        now = ", ".join(f"{name} {value}" for name, value in changed.items())
        before = ", ".join(f"{name} {began[name]}" for name in changed)
        state.changed.setdefault(f"{now}, where the run began with {before}", []).append(
            stats.fullname
        )


def take(state: Session, name: str, stats: Any) -> None:
    """Count a benchmark as measured, if its time is one: a timer of the user's may say anything."""
    try:
        process_alone(stats.stats.median, stats.stats.rounds)
    except FieldError as error:
        state.absent[name] = f"its time is none ({error})"
        state.notes.append(f"{name} is left out, since its time is none ({error})")
    else:
        state.measured.append(stats)


def name_changed_settings(state: Session) -> None:
    """Note which benchmarks were measured under other settings than the run began with."""
    for settings, names in state.changed.items():
        state.notes.append(
            f"measured with {settings}, and compared only with the same: {', '.join(names)}; "
            "expected one setting in all of a run: set it when the module is imported"
        )


def hand_in(state: Session) -> None:
    """A worker's end: write what it measured."""
    assert state.order is not None
    text = json.dumps(run_data(state), default=str)
    write_atomically(Path(state.order.output), text)


def conclude(state: Session, keep_run: Callable[[Session], None]) -> GateExit:
    """Measure in the other processes, and judge; the exit status.

    Args:
        state: what was measured in this process.
        keep_run: keeps the run, before it is compared for minutes that may be interrupted.
    """
    state.notes += failure_notes(state.failures)
    if not state.measured:
        state.notes.append(NOTHING)
        state.run = parse_run(run_data(state))
        return GateExit.NOTHING_MEASURED
    broken: WorkerError | None = None
    try:
        for number in range(2, state.processes + 1):
            _announce(state, f"process {number} of {state.processes}")
            names = [stats.fullname for stats in state.measured]
            _add_processes(state, measure_again(state, names))
    except WorkerError as error:
        state.notes.append(str(error))
        broken = error
    state.run = parse_run(run_data(state))
    keep_run(state)
    if broken is not None:
        return GateExit.STOPPED if isinstance(broken, WorkerStoppedError) else GateExit.MISSING
    return _judge(state) if state.comparing else GateExit.PASSED


def _announce(state: Session, text: str) -> None:
    reporter = state.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(printable(text), flush=True)


def _show_progress(state: Session, text: str) -> None:
    """What another process does just now, where a line can be written over."""
    reporter = state.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and reporter.isatty:
        reporter.rewrite(f"  {one_line(text)}", erase=True)


def measure_again(state: Session, names: Sequence[str]) -> dict[str, list[Process]]:
    """The benchmarks in one more process.

    Raises:
        WorkerError: it failed, or did not measure all.
    """
    option = state.config.option
    command = Command(
        _arguments(state), state.config.invocation_params.dir, timeout=option.worker_timeout
    )
    for stats in state.measured:
        state.rounds.setdefault(stats.fullname, [(stats.stats.data, stats.iterations)])
    return_freed_memory()  # the others need it
    order = Order(names=names, processes=state.processes)
    data = measure_in_process(command, order, partial(_show_progress, state))
    run = parse_run(data)
    if lost := set(names) - run.measurements.keys():
        raise WorkerError(
            f"a measuring process did not measure {', '.join(sorted(lost))}, which the first "
            "one did; expected the same benchmarks: run them once more"
        )
    _check_same_work(state, run)
    for entry in data["benchmarks"]:
        rounds = entry["stats"]["data"], entry["stats"]["iterations"]
        state.rounds[entry["fullname"]].append(rounds)
    return {name: list(run.measurements[name].processes) for name in names}


def _arguments(state: Session) -> list[str]:
    return [str(argument) for argument in state.config.invocation_params.args]


def _check_same_work(state: Session, run: Run) -> None:
    """A worker imports only the files of what it measures, and measures only a part of it.

    Raises:
        WorkerError: its settings were others.
    """
    assert state.environment is not None
    key = state.environment["device_key"]
    if run.device_key != key:
        raise WorkerError(
            f"a fresh process is {run.device_key} and the first one {key}; expected the same: set "
            "threads and precision in conftest.py, or in every benchmark module"
        )
    for stats in state.measured:
        other = run.measurements.get(stats.fullname)
        info = figures_of({"extra_info": stats.extra_info})
        own = json.loads(json.dumps(info.get("measured", {}), default=str))
        if other is not None and other.measured != own:
            raise WorkerError(
                f"{stats.fullname}: {difference(own, other.measured)} in a fresh process; expected "
                "the same: let no benchmark change threads or precision for those after it"
            )


def _add_processes(state: Session, found: Mapping[str, Sequence[Process]]) -> None:
    for stats in state.measured:
        info = figures_of({"extra_info": stats.extra_info})
        if "processes" not in info:  # a benchmark that knows only pytest-benchmark
            info["processes"] = [process_alone(stats.stats.median, stats.stats.rounds).entry()]
        info["processes"] += [process.entry() for process in found.get(stats.fullname, ())]
        _show_median_process(state, stats)


def _show_median_process(state: Session, metadata: Any) -> None:
    """Let pytest-benchmark's own statistics be those of the process in the middle."""
    info = figures_of({"extra_info": metadata.extra_info})
    parts = [parse_process(part, metadata.fullname) for part in info["processes"]]
    median_ns = Measurement(metadata.fullname, {}, parts).median_ns
    known = state.rounds.get(metadata.fullname, [(metadata.stats.data, metadata.iterations)])
    data, iterations = min(known, key=lambda of: abs(statistics.median(of[0]) * 1e9 - median_ns))
    if data is not metadata.stats.data:
        metadata.stats = type(metadata.stats)()  # which keeps what it has once computed
        metadata.stats.data, metadata.iterations = data, iterations


def _judge(state: Session) -> GateExit:
    stored, run, option = state.stored, state.run, state.config.option
    assert stored is not None
    assert run is not None
    accepted = stored.run.measurements if stored.run else {}
    left_out = [
        *state.not_selected,
        *(name for name in accepted if is_left_out(state.config, name, state.absent)),
    ]
    verdicts = stored.judge(run, state.absent, left_out)
    if stored.run is not None:  # which holds what is left out now
        known = [*accepted.values(), *run.measurements.values()]
        state.notes += map(_note_idle, stored.limits.idle(known))
    return_freed_memory()
    place = Place(
        state.config.rootpath,
        state.config.invocation_params.dir,
        [*_arguments(state), "--benchmark-only"],
        partial(_announce, state),
        option.worker_timeout,
    )
    settlement = settle(
        verdicts,
        stored,
        place,
        option.against,
        option.pairs,
        judge_new=not option.require_baseline,
    )
    state.verdicts = stored.judge(run, state.absent, left_out, settlement.answers)
    state.pairs = run_of_pairs(run, settlement.pairs)
    if settlement.error is not None:
        state.notes.append(str(settlement.error))
    statuses = (verdict.status for verdict in state.verdicts)
    return gate_exit(statuses, failing_by(option), settlement.stopped)


def _note_idle(rule: Rule) -> str:
    return (
        f"the limit of pyproject.toml for {dict(rule.patterns)} ({rule.reason}) fits no benchmark "
        "of this run or its baseline; expected one or more: correct its patterns, or remove it"
    )


def run_data(state: Session) -> dict[str, Any]:
    """The run in pytest-benchmark's JSON."""
    config, hook = state.config, state.config.hook
    if not state.described:
        machine_info = hook.pytest_benchmark_generate_machine_info(config=config)
        hook.pytest_benchmark_update_machine_info(config=config, machine_info=machine_info)
        commit_info = hook.pytest_benchmark_generate_commit_info(config=config)
        hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit_info)
        state.described = {"machine_info": machine_info, "commit_info": commit_info}
    data: dict[str, Any] = hook.pytest_benchmark_generate_json(
        config=config, benchmarks=state.measured, include_data=True, **state.described
    )
    return data
