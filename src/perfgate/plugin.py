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
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from perfgate import compare
from perfgate import session as measuring
from perfgate.ab.trees import RevisionError, has_changes
from perfgate.configure import OptionError, declare, is_distributed, is_timed, session_of
from perfgate.failures import Failure, reason_of, skip_reason
from perfgate.fields import FieldError
from perfgate.files import remove_folders
from perfgate.handed_over import workload_from
from perfgate.judge.exit_codes import FAILING, GateExit
from perfgate.judge.parse import CLOCK_SECONDS
from perfgate.judge.place import OURS
from perfgate.keep import keep_run, write_reports
from perfgate.measure.environment import describe_environment
from perfgate.measure.machine import describe_machine
from perfgate.measure.rounds import OWN, Round
from perfgate.network.case import Case, Pass
from perfgate.paths import LAST_RUN
from perfgate.plain_text import one_line, printable
from perfgate.progress import Progress
from perfgate.report import junit
from perfgate.report.tables import results_markdown
from perfgate.report.verdict_table import verdict_lines, verdict_summary
from perfgate.run import lifeline
from perfgate.run.worker import NoTurnError, Turns, keep_ordered
from perfgate.selection import is_among, is_benchmark, keep_benchmarks
from perfgate.session import Session
from perfgate.store import last_run
from perfgate.store.baseline import BaselineError
from perfgate.workload import NotEnoughMemoryError

SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    declare(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before pytest-benchmark's own pytest_configure, which reads these options.
    try:
        config.stash[SESSION] = session_of(config)
    except OptionError as error:
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
            device_key,
            state.wanted,
            config.rootpath / "pyproject.toml",
            option.false_alarm,
            state.notes.append,
        )

    try:
        measuring.begin(state, load)
    except BaselineError as error:
        print(f"Exit: {error}", file=sys.stderr)
        pytest.exit("the stored baseline cannot be used", returncode=GateExit.CORRUPT_BASELINE)
    if state.stored is not None and state.stored.knows_noise and option.processes is None:
        state.processes = compare.PROCESSES


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    state = config.stash[SESSION]
    environment = state.environment or describe_environment(state.device)
    machine = describe_machine()
    machine_info[OURS] = {**environment, "machine": machine}
    machine_info["node"] = machine["id"] or ""  # a machine's name is not for publishing


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    """Stored baselines are no code: what changed in them alone is measured again at its commit."""
    if commit_info["dirty"]:
        with contextlib.suppress(RevisionError):  # then it stays as it was found
            commit_info["dirty"] = has_changes(config.rootpath, measuring.baselines_of(config))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    session = config.stash[SESSION]
    assert session.runner is not None
    if session.order is not None:
        if session.asked is not None:  # its files hold more
            items[:] = [i for i in items if is_among(config, session.asked, i.nodeid)]
        keep_ordered(items, session.order, session.channel)
    elif config.option.benchmark_only and (tests := keep_benchmarks(items)):
        config.hook.pytest_deselected(items=tests)
    for item in items:
        if "measure" in getattr(item, "fixturenames", ()):
            own = item.get_closest_marker("benchmark")
            chosen = {**(own.kwargs if own else {}), "timer": session.runner.replay}
            # First, because pytest-benchmark reads the closest one only.
            item.add_marker(pytest.mark.benchmark(**chosen), append=False)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    state = config.stash[SESSION]
    state.progress = Progress(sum(map(is_benchmark, session.items)))
    if (
        state.progress.total
        and state.order is None
        and is_timed(config)
        and not is_distributed(config.option)
        and not config.option.collectonly
    ):
        last_run.begin(config.rootpath / LAST_RUN)
        remove_folders()  # which a killed run left


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[SESSION].not_selected += [item.nodeid for item in items]


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
        if isinstance(work, Case):  # before anything of the implementation runs
            said = {**work.describe(), "pass": argument if pass_name is None else pass_name}
            session.works[benchmark.fullname] = said
        try:
            workload = workload_from(
                work,
                argument,
                pass_name,
                beside,
                loss,
                runner.device,
                session.peaks,
                checks_memory=not runner.only_times,
                timer=runner.timer,
            )
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
    if channel is None or not is_benchmark(item) or "measure" in item.fixturenames:  # type: ignore[attr-defined]
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
        turns.done(Round({OWN: max(stats.stats.median, CLOCK_SECONDS)}))
        next(schedule, None)  # which waits for the end
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    fixture = getattr(item, "funcargs", {}).get("benchmark")
    if call.when == "call" and fixture is not None and fixture.stats is not None:
        with contextlib.suppress(FieldError):  # then `take` says so
            item.user_properties += junit.properties_of(item.nodeid, fixture.stats)
    test_report = yield
    if is_benchmark(item):
        session = item.config.stash[SESSION]
        if call.excinfo is not None and (test_report.failed or hasattr(test_report, "wasxfail")):
            work = session.works.get(item.nodeid, {})
            session.failures.append(Failure(item.nodeid, work, reason_of(call.excinfo.value)))
        if test_report.failed:
            session.absent[item.nodeid] = "it failed"
        elif test_report.skipped:
            session.skipped.add(item.nodeid)
            session.absent[item.nodeid] = f"it was skipped ({skip_reason(test_report)})"
        elif test_report.when == "call" and fixture is not None and fixture.stats is not None:
            measuring.note_settings(session, fixture.stats)
            measuring.take(session, item.nodeid, fixture.stats)
        if session.channel is not None and test_report.when == "teardown":
            skipped = item.nodeid in session.skipped
            session.channel.send(finished=item.nodeid, skipped=skipped)
    return test_report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    """Say which benchmark runs: one can take minutes."""
    config = item.config
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and is_benchmark(item) and is_timed(config):
        session = config.stash[SESSION]
        number = session.progress.begin()
        if config.get_verbosity() <= 0:
            reporter.showfspath = False  # which would begin a line of its own, the same each time
            reporter.ensure_newline()
            if session.progress.started > 1:
                reporter.write("\n")
            reporter.write(f"[{number}] {one_line(item.name)} ", flush=True)
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
    timed = is_timed(session.config) or state.comparing
    # After an interrupt nobody waits for more processes.
    complete = session.exitstatus not in (
        pytest.ExitCode.INTERRUPTED,
        pytest.ExitCode.INTERNAL_ERROR,
        pytest.ExitCode.USAGE_ERROR,
    )
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
    try:
        state.exit_code = measuring.conclude(state, keep_run)
    except KeyboardInterrupt:
        state.notes.append("interrupted: nothing was judged")
        session.exitstatus = pytest.ExitCode.INTERRUPTED
        return
    passed = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if passed:
        session.exitstatus = state.exit_code
    write_reports(state, int(session.exitstatus))
    if passed:
        state.notes.append(f"exit status {state.exit_code.value}: {state.exit_code.name.lower()}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    state = config.stash[SESSION]
    if state.run is not None and (state.run.measurements or state.failures):
        terminalreporter.section("results")
        terminalreporter.write_line(printable(results_markdown(state.run, state.failures)))
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
