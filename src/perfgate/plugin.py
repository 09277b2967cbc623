"""The pytest plugin: options, the `measure` fixture, and the verdicts at the end.

It stands between pytest-benchmark and this package and is the only file that knows either.
Used by `pytest_plugins = ["perfgate.plugin"]` in a root conftest.py.

`pytest` runs each benchmark once, untimed. `pytest --benchmark-only` times them, prints the
table and keeps the run. `pytest --benchmark-compare` judges the
run by the stored baseline, and by its code where stored times do not clear a benchmark, instead of
pytest-benchmark's own comparison, which cannot see the device, memory, noise, or silence.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from perfgate import compare, options
from perfgate import session as measuring
from perfgate.fields import FieldError
from perfgate.files import remove_folders
from perfgate.handed_over import workload_from
from perfgate.judge.exit_codes import FAILING, GateExit
from perfgate.judge.limits import LimitsError, read_rules
from perfgate.judge.parse import parse_benchmark, process_alone
from perfgate.judge.place import OURS
from perfgate.judge.sequential import FEWEST_PAIRS, MOST_PAIRS
from perfgate.judge.verdict import FALSE_ALARM
from perfgate.measure.cache import CACHES, Cache, default_cache
from perfgate.measure.environment import describe_environment, resolve_device
from perfgate.measure.machine import describe_machine
from perfgate.measure.rounds import OWN, Budget, Round, Schedule
from perfgate.network.case import Case, Pass
from perfgate.paths import BASELINES, LAST_RUN, REPORTS
from perfgate.plain_text import one_line, printable
from perfgate.report import junit
from perfgate.report.measured import measurement_entry
from perfgate.report.tables import results_markdown
from perfgate.report.verdict_table import verdict_lines, verdict_summary
from perfgate.run import lifeline
from perfgate.run.processes import TIMEOUT_SECONDS
from perfgate.run.runner import Runner
from perfgate.run.worker import Channel, NoTurnError, Order, Turns
from perfgate.session import Session
from perfgate.store import last_run
from perfgate.store.baseline import BaselineError
from perfgate.workload import NotEnoughMemoryError

# Options of pytest-benchmark that ask for times; without one of them nothing is timed.
TIMING_OPTIONS = ("only", "enable", "save", "autosave", "json", "histogram", "cprofile")


SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    # --device is here and not in a conftest, because the baseline's key depends on it.
    group = parser.getgroup("kan-impls")
    group.addoption(
        "--device", help="device of tests and benchmarks; default: cuda where available, else cpu"
    )
    group.addoption(
        "--cache", choices=CACHES,
        help="caches before each timed window; default: cold on a GPU, warm on a CPU",
    )  # fmt: skip
    group.addoption(
        "--processes", type=int, metavar="N",
        help="processes that measure each benchmark, one after another; "
        f"default: {compare.PROCESSES} where calibrated times judge the run, else 1",
    )  # fmt: skip
    group.addoption(
        "--baselines", type=options.folder, metavar="DIR",
        help=f"where accepted runs are stored; default: {BASELINES} in the root folder",
    )  # fmt: skip
    group.addoption(
        "--worker-timeout", type=options.seconds, default=TIMEOUT_SECONDS, metavar="SECONDS",
        help="a benchmark or a measuring process without progress for so long ends the run; "
        "default: %(default)s",
    )  # fmt: skip
    group.addoption("--kan-worker", type=Path, metavar="FILE", help="used by the plugin itself")
    group = parser.getgroup("kan-impls, with --benchmark-compare")
    group.addoption(
        "--pairs", type=int, default=MOST_PAIRS, metavar="N",
        help="how many pairs of processes of this code and the baseline's take turns, at most, for "
        "what stored times leave open; default: %(default)s",
    )  # fmt: skip
    group.addoption(
        "--against", metavar="REVISION",
        help="the revision whose code is compared with, instead of the baseline's own commit",
    )  # fmt: skip
    group.addoption(
        "--false-alarm", type=float, default=FALSE_ALARM, metavar="P",
        help="probability that a run of unchanged code has any false alarm; default: %(default)s",
    )  # fmt: skip
    group.addoption(
        "--allow-unjudged", action="store_true",
        help="a benchmark of which no time could be judged does not fail the run",
    )  # fmt: skip
    group.addoption(
        "--require-baseline", action="store_true",
        help="a benchmark without a baseline fails the run",
    )  # fmt: skip
    group.addoption(
        "--fail-on-improved", action="store_true",
        help="an improvement fails the run, until it is stored as the baseline",
    )  # fmt: skip
    group.addoption(
        "--fail-on-inconclusive", action="store_true", help="an unclear verdict fails the run"
    )
    group = parser.getgroup("kan-impls")
    group.addoption(
        "--accept-memory", action="store_true",
        help="store the bytes of the device-free memory tests that run",
    )  # fmt: skip
    group.addoption(
        "--report", type=options.folder, metavar="DIR",
        help=f"where the reports go; default: {REPORTS} in the root folder",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before pytest-benchmark's own pytest_configure, which reads these options.
    option = config.option
    try:
        device = resolve_device(option.device)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    try:
        wanted = options.wanted_baseline(option.benchmark_compare)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    session = config.stash[SESSION] = Session(config, device, bool(option.benchmark_compare))
    if option.kan_worker is not None:
        _configure_worker(config, session)
    elif session.comparing:
        _configure_comparison(config, session, wanted)
    else:
        _refuse_options_of_a_comparison(option)
        if not any(getattr(option, f"benchmark_{name}") for name in TIMING_OPTIONS):
            option.benchmark_disable = True
    if option.processes is not None and option.processes < 1:
        raise pytest.UsageError(
            f"--processes is {option.processes}; expected 1 or more: correct it"
        )
    session.processes = option.processes or 1
    session.runner = _runner(config, session)


def _configure_worker(config: pytest.Config, session: Session) -> None:
    """Measure as ordered; all that a user's options say of storing and judging is not for it."""
    option = config.option
    lifeline.hold()
    order = session.order = Order.read(option.kan_worker)
    session.channel = Channel(*order.channel) if order.channel else None
    session.comparing = False
    option.processes = 1
    option.benchmark_compare, option.benchmark_only = [], True
    option.benchmark_json = option.benchmark_save = option.benchmark_histogram = None
    option.benchmark_autosave = False
    option.xmlpath = None
    option.verbose = 0  # which prints the benchmark that runs
    if order.names is not None:  # without collecting a thousand tests
        files = dict.fromkeys(name.split("::")[0] for name in order.names)
        config.args = [str(config.rootpath / file) for file in files]


def _refuse_options_of_a_comparison(option: Any) -> None:
    for name in (
        "require_baseline", "fail_on_improved", "fail_on_inconclusive", "allow_unjudged", "against",
    ):  # fmt: skip
        if getattr(option, name):
            flag = name.replace("_", "-")
            raise pytest.UsageError(
                f"--{flag} came alone; expected --benchmark-compare with it: add it"
            )


def _configure_comparison(config: pytest.Config, session: Session, wanted: str | None) -> None:
    option = config.option
    if option.benchmark_compare_fail:
        raise pytest.UsageError(
            "--benchmark-compare-fail came with the plugin of perfgate; expected its own "
            "limits, which also judge memory and silence: leave the option out"
        )
    if option.pairs < FEWEST_PAIRS:
        raise pytest.UsageError(
            f"--pairs is {option.pairs}; expected {FEWEST_PAIRS} or more, since one pair tells "
            "nothing of its noise: correct it"
        )
    if not 0 < option.false_alarm < 1:
        raise pytest.UsageError(
            f"--false-alarm is {option.false_alarm}; expected a probability between 0 and 1, "
            "such as 0.01: correct it"
        )
    baselines = measuring.baselines_of(config)
    is_usual = baselines.resolve() == (config.rootpath / BASELINES).resolve()
    if not is_usual and not baselines.exists():
        raise pytest.UsageError(
            f"--baselines is {baselines}, which does not exist; expected the folder that "
            "kan-bench accept stored in: correct it"
        )
    # A figure taken after a thousand tests in the process is no match for a baseline
    # taken without them.
    option.benchmark_only = not (
        option.benchmark_disable or option.benchmark_skip or _is_distributed(option)
    )
    session.wanted = option.benchmark_compare if isinstance(option.benchmark_compare, str) else None
    option.benchmark_compare = []
    try:  # now rather than after minutes of measuring
        read_rules(config.rootpath / "pyproject.toml")
    except LimitsError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    config, state = session.config, session.config.stash[SESSION]
    option = config.option
    if option.collectonly:
        return

    def load(device_key: str) -> compare.Stored:
        return compare.load(
            measuring.baselines_of(config),
            device_key, state.wanted, config.rootpath / "pyproject.toml", option.false_alarm,
            state.notes.append,
        )  # fmt: skip

    try:
        measuring.begin(state, load)
    except BaselineError as error:
        print(f"Exit: {error}", file=sys.stderr)
        pytest.exit("the stored baseline cannot be used", returncode=GateExit.CORRUPT_BASELINE)
    if state.stored is not None and state.stored.knows_noise and option.processes is None:
        state.processes = compare.PROCESSES


def _is_distributed(option: Any) -> bool:
    """Whether xdist is on, under which pytest-benchmark times nothing."""
    return getattr(option, "dist", "no") != "no" or "PYTEST_XDIST_WORKER" in os.environ


def _runner(config: pytest.Config, session: Session) -> Runner:
    order = session.order

    def new_schedule(name: str) -> Schedule:
        if session.channel is not None:
            return Turns(session.channel, name)
        sharing = order.processes if order else session.processes
        if session.comparing:  # where a time cannot clear it, the earlier code will tell more
            sharing = max(sharing, compare.PROCESSES)
        # Processes share the time of a benchmark, so that more of them cost no more.
        max_seconds = float(config.getoption("benchmark_max_time")) / sharing
        min_rounds = -(-config.getoption("benchmark_min_rounds") // sharing)
        return Budget(max_seconds, min_rounds)

    cache: Cache = config.option.cache or default_cache(session.device)
    return Runner(
        session.device, cache, new_schedule, only_times=bool(order and order.only_times),
        keep_rounds=bool(order and order.keep_rounds),
        in_turns=session.channel is not None,
    )  # fmt: skip


def _is_timed(config: pytest.Config) -> bool:
    option = config.option
    return not (option.benchmark_skip and not option.benchmark_only) and (
        option.benchmark_enable or not option.benchmark_disable
    )


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    state = config.stash[SESSION]
    environment = state.environment or describe_environment(state.device)
    machine = describe_machine()
    machine_info[OURS] = {**environment, "machine": machine}
    machine_info["node"] = machine["id"] or ""  # a machine's name is not for publishing


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    session = config.stash[SESSION]
    assert session.runner is not None
    if session.order is not None:
        _take_ordered(session, items)
    for item in items:
        if "measure" in getattr(item, "fixturenames", ()):
            own = item.get_closest_marker("benchmark")
            chosen = {**(own.kwargs if own else {}), "timer": session.runner.replay}
            # First, because pytest-benchmark reads the closest one only.
            item.add_marker(pytest.mark.benchmark(**chosen), append=False)


def _take_ordered(session: Session, items: list[pytest.Item]) -> None:
    """Keep the benchmarks that a worker is to measure."""
    assert session.order is not None
    by_name = {item.nodeid: item for item in items if _is_benchmark(item)}
    names = session.order.names
    if session.channel is not None:
        session.channel.send(collected=list(by_name))
        names = session.channel.receive()["select"]
    items[:] = [by_name[name] for name in (by_name if names is None else names) if name in by_name]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    state = config.stash[SESSION]
    state.total = sum(map(_is_benchmark, session.items))
    if (
        state.total
        and state.order is None
        and _is_timed(config)
        and not _is_distributed(config.option)
        and not config.option.collectonly
    ):
        last_run.begin(config.rootpath / LAST_RUN)
        remove_folders()  # which a killed run left


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[SESSION].not_selected += [item.nodeid for item in items]


def _is_benchmark(item: pytest.Item) -> bool:
    return "benchmark" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """The device that `--device` chose."""
    return pytestconfig.stash[SESSION].device


@pytest.fixture(scope="session", autouse=True)
def _suite_property(pytestconfig: pytest.Config, record_testsuite_property: Any) -> None:
    # The verdicts come after the last test, where no fixture is.
    pytestconfig.stash[SESSION].suite_property = record_testsuite_property


@pytest.fixture
def measure(benchmark: Any, pytestconfig: pytest.Config) -> Callable[..., None]:
    """Measures time and memory of what it is given, in one of these ways:

    - `measure(module, x)` or `measure(module, x, "backward", loss=f)`: a pass over a module.
    - `measure(function)`: a call without arguments.
    - `measure(case, pass_name, beside=None)`: a network at a shape (`perfgate.network.case.Case`)
      beside its like-kind reference; `beside` is another case that is shown beside it.
    - `measure(workload)`: a `perfgate.workload.Workload`.
    """
    session = pytestconfig.stash[SESSION]
    runner = session.runner
    assert runner is not None

    def run(
        work: object,
        argument: Any = None,
        pass_name: Pass | None = None,
        *,
        beside: Case | None = None,
        loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        try:
            workload = workload_from(
                work, argument, pass_name, beside, loss, runner.device, session.peaks,
                checks_memory=not runner.only_times,
            )  # fmt: skip
            benchmark.group = workload.group
            runner.measure(benchmark, workload)
        except NotEnoughMemoryError as error:
            pytest.skip(str(error))
        except NoTurnError:
            pytest.skip("the other revision does not measure it")

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """A plain benchmark knows no turns; all of its rounds together are one."""
    channel = item.config.stash[SESSION].channel
    if channel is None or not _is_benchmark(item) or "measure" in item.fixturenames:  # type: ignore[attr-defined]
        return (yield)
    turns = Turns(channel, item.nodeid)
    try:
        turns.start()
    except NoTurnError:
        pytest.skip("the other revision does not measure it")
    schedule = turns.turns(0.0, whole=math.inf)
    next(schedule, None)
    result = yield
    stats = item.funcargs["benchmark"].stats  # type: ignore[attr-defined]
    if stats is not None:
        turns.done(Round({OWN: stats.stats.median}))
        next(schedule, None)  # which waits for the end
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    fixture = getattr(item, "funcargs", {}).get("benchmark")
    if call.when == "call" and fixture is not None and fixture.stats is not None:
        with contextlib.suppress(FieldError):  # then `_take` says so
            item.user_properties += _properties(item.nodeid, fixture.stats)
    test_report = yield
    if _is_benchmark(item):
        session = item.config.stash[SESSION]
        if test_report.failed:
            session.absent[item.nodeid] = "it failed"
        elif test_report.skipped:
            reason = test_report.longrepr[2] if isinstance(test_report.longrepr, tuple) else ""
            session.absent[item.nodeid] = f"it was skipped ({reason.removeprefix('Skipped: ')})"
        elif test_report.when == "call" and fixture is not None and fixture.stats is not None:
            measuring.note_settings(session, fixture.stats)
            _take(session, item.nodeid, fixture.stats)
        if session.channel is not None and test_report.when == "teardown":
            session.channel.send(finished=item.nodeid)
    return test_report


def _take(session: Session, name: str, stats: Any) -> None:
    """Count a benchmark as measured, if its time is one: a timer of the user's may say anything."""
    try:
        process_alone(stats.stats.median, stats.stats.rounds)
    except FieldError as error:
        session.absent[name] = f"its time is none ({error})"
        session.notes.append(f"{name} is left out, since its time is none ({error})")
    else:
        session.measured.append(stats)


def _properties(name: str, stats: Any) -> list[tuple[str, object]]:
    """The figures of a benchmark, for --junitxml."""
    entry = {
        "fullname": name,
        "stats": {"median": stats.stats.median, "rounds": stats.stats.rounds},
        "extra_info": stats.extra_info,
    }
    return [*junit.properties(measurement_entry(parse_benchmark(entry)))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    """Say which benchmark runs: one can take minutes."""
    config = item.config
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and _is_benchmark(item) and _is_timed(config):
        session = config.stash[SESSION]
        session.started += 1
        if config.get_verbosity() <= 0:
            reporter.ensure_newline()
            progress = f"[{session.started}/{session.total}] {one_line(item.name)} "
            reporter.write(progress, flush=True)
        if session.order is None:  # workers are watched by who started them
            seconds, say = config.option.worker_timeout, partial(_say_at_once, config)
            with lifeline.limit(seconds, item.nodeid, GateExit.STOPPED, say):
                return (yield)
    return (yield)


def _say_at_once(config: pytest.Config, text: str) -> None:
    """On the terminal, even in the middle of a test, whose output is captured."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend(in_=False)
    config.pluginmanager.getplugin("terminalreporter").write_line(printable(text), flush=True)


# Around all others and before them, because pytest-benchmark's JSON and the JUnit file are written
# in this hook, too.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Any:
    state = session.config.stash[SESSION]
    timed = _is_timed(session.config) or state.comparing
    # After an interrupt nobody waits for more processes.
    complete = session.exitstatus not in (
        pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR,
    )  # fmt: skip
    if timed and complete and state.environment is not None:
        _finish(session, state)
    return (yield)


def _finish(session: pytest.Session, state: Session) -> None:
    if state.order is not None:
        measuring.hand_in(state)
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK  # it was ordered none
        return
    measuring.name_changed_settings(state)
    state.exit_code = measuring.conclude(state)
    passed = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if passed:
        session.exitstatus = state.exit_code
    measuring.keep(state, int(session.exitstatus))
    if passed:
        state.notes.append(f"exit status {state.exit_code.value}: {state.exit_code.name.lower()}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    state = config.stash[SESSION]
    if state.run is not None and state.run.measurements:
        terminalreporter.section("results")
        terminalreporter.write_line(printable(results_markdown(state.run)))
    if state.stored is not None and state.order is None:
        terminalreporter.section("verdicts")
        path = state.stored.path or "none for this device"
        terminalreporter.write_line(printable(f"baseline: {path}"))
        if state.stored.anchor_path:
            terminalreporter.write_line(f"oldest baseline: {state.stored.anchor_path}")
        colors = {**dict.fromkeys(FAILING, "red"), "improved": "green"}
        for status, line in verdict_lines(state.verdicts):
            markup = {colors[status]: True} if status in colors else {}
            terminalreporter.write_line(line, **markup)
        terminalreporter.write_line(verdict_summary(state.verdicts))
        if any(verdict.status == "improved" for verdict in state.verdicts):
            terminalreporter.write_line("improved: keep it by storing this run: kan-bench accept")
    for note in state.notes:
        terminalreporter.write_line(printable(note))
