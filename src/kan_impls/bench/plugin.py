"""The pytest plugin: options, the `measure` fixture, and the verdicts at the end.

It stands between pytest-benchmark and this package and is the only file that knows either.
Used by `pytest_plugins = ["kan_impls.bench.plugin"]` in a root conftest.py.

`pytest` runs each benchmark once, untimed. `pytest --benchmark-only` times them, prints the
table and keeps the run. `pytest --benchmark-compare` times them too, and judges the run by
the stored baseline instead of pytest-benchmark's own comparison, which cannot see the
device, memory, or silence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from kan_impls.bench import baseline, report
from kan_impls.bench.case import Case, Pass
from kan_impls.bench.cli import BASELINES, LAST_RUN
from kan_impls.bench.measure.environment import describe_environment, resolve_device
from kan_impls.bench.measure.timing import SynchronizedTimer
from kan_impls.bench.record import Run, parse_run
from kan_impls.bench.runner import NotEnoughMemoryError, run_benchmark
from kan_impls.bench.verdict import CPU_LIMITS, CUDA_LIMITS, FAILING, Verdict, judge_run

# Options of pytest-benchmark that ask for times; without one of them nothing is timed.
TIMING_OPTIONS = ("only", "enable", "save", "autosave", "json", "histogram", "cprofile")


@dataclass
class Session:
    """What the plugin gathers from configuration to summary."""

    device: torch.device
    comparing: bool
    wanted_baseline: str | None
    baseline_path: Path | None = None
    baseline_run: Run | None = None
    measured: list[Any] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    not_selected: list[str] = field(default_factory=list)
    total: int = 0
    started: int = 0
    run: Run | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False


SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    # --device is here and not in a conftest, because the baseline's key depends on it.
    group = parser.getgroup("kan-impls")
    group.addoption(
        "--device", help="device of tests and benchmarks; default: cuda where available, else cpu"
    )
    group.addoption(
        "--baselines", type=Path, metavar="DIR",
        help=f"where accepted runs are stored; default: {BASELINES} in the root folder",
    )  # fmt: skip
    group.addoption(
        "--require-baseline", action="store_true",
        help="with --benchmark-compare: a benchmark without a baseline fails the run",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    # Before pytest-benchmark's own pytest_configure, which reads these options.
    option = config.option
    try:
        device = resolve_device(option.device)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    comparing = bool(option.benchmark_compare)
    wanted = option.benchmark_compare if isinstance(option.benchmark_compare, str) else None
    session = config.stash[SESSION] = Session(device, comparing, wanted)
    if option.require_baseline and not comparing:
        raise pytest.UsageError(
            "--require-baseline came alone; expected --benchmark-compare with it: add it"
        )
    if comparing:
        if option.benchmark_compare_fail:
            raise pytest.UsageError(
                "--benchmark-compare-fail came with the plugin of kan_impls; expected its own "
                "limits, which also judge memory and silence: leave the option out"
            )
        option.benchmark_compare = []
        # A figure taken after a thousand tests in the process is no match for a baseline
        # taken without them.
        option.benchmark_only = not (option.benchmark_disable or option.benchmark_skip)
        _load_baseline(config, session)
    elif not any(getattr(option, f"benchmark_{name}") for name in TIMING_OPTIONS):
        option.benchmark_disable = True


def _load_baseline(config: pytest.Config, session: Session) -> None:
    # Now rather than after minutes of measuring.
    key = str(describe_environment(session.device)["device_key"])
    try:
        path = baseline.find(_baselines(config), key, session.wanted_baseline)
        session.baseline_path = path
        session.baseline_run = baseline.read_run(path) if path else None
    except baseline.BaselineError as error:
        raise pytest.UsageError(str(error)) from error


def _baselines(config: pytest.Config) -> Path:
    return config.getoption("baselines") or config.rootpath / BASELINES


def _is_timed(config: pytest.Config) -> bool:
    option = config.option
    return not (option.benchmark_skip and not option.benchmark_only) and (
        option.benchmark_enable or not option.benchmark_disable
    )


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    machine_info["kan_impls"] = describe_environment(config.stash[SESSION].device)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    session = config.stash[SESSION]
    timer = SynchronizedTimer(session.device)
    for item in items:
        if "measure" in getattr(item, "fixturenames", ()):
            own = item.get_closest_marker("benchmark")
            options = {**(own.kwargs if own else {}), "timer": timer}
            # First, because pytest-benchmark reads the closest one only.
            item.add_marker(pytest.mark.benchmark(**options), append=False)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[SESSION].total = sum(map(_is_benchmark, session.items))


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[SESSION].not_selected += [item.nodeid for item in items]


def _is_benchmark(item: pytest.Item) -> bool:
    return "benchmark" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """The device that `--device` chose."""
    return pytestconfig.stash[SESSION].device


@pytest.fixture
def measure(
    benchmark: Any, device: torch.device, pytestconfig: pytest.Config
) -> Callable[..., None]:
    """`measure(case, pass_name, beside=None)` measures a pass of a case.

    `beside` is the case that the table's `/MLP` columns compare with.
    """

    def run(case: Case, pass_name: Pass, beside: Case | None = None) -> None:
        benchmark.group = f"{case.name} {pass_name}"
        try:
            run_benchmark(
                benchmark,
                case,
                beside,
                pass_name,
                device,
                max_seconds=float(pytestconfig.getoption("benchmark_max_time")),
                min_rounds=pytestconfig.getoption("benchmark_min_rounds"),
            )
        except NotEnoughMemoryError as error:
            pytest.skip(str(error))

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    test_report = yield
    if _is_benchmark(item):
        session = item.config.stash[SESSION]
        fixture = getattr(item, "funcargs", {}).get("benchmark")
        if test_report.failed:
            session.absent[item.nodeid] = "it failed"
        elif test_report.skipped:
            reason = test_report.longrepr[2] if isinstance(test_report.longrepr, tuple) else ""
            session.absent[item.nodeid] = f"it was skipped ({reason.removeprefix('Skipped: ')})"
        elif test_report.when == "call" and fixture is not None and fixture.stats is not None:
            session.measured.append(fixture.stats)
    return test_report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    """Say which benchmark runs: one can take minutes."""
    config = item.config
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and _is_benchmark(item) and _is_timed(config):
        session = config.stash[SESSION]
        session.started += 1
        if config.get_verbosity() == 0:
            reporter.ensure_newline()
            reporter.write(f"[{session.started}/{session.total}] {item.name} ")
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    state = config.stash[SESSION]
    if config.option.collectonly or not (_is_timed(config) or state.comparing):
        return
    if not state.measured:
        state.notes.append(
            "nothing was measured; expected one benchmark or more: select some, and leave out "
            "--benchmark-disable, --benchmark-skip and xdist"
        )
        state.failed = True
    data = _run_data(config, state)
    state.run = parse_run(data)
    if state.measured:
        _keep(config, state, data)
    if state.comparing:
        _judge(config, state)
    if state.failed and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _run_data(config: pytest.Config, state: Session) -> dict[str, Any]:
    hook = config.hook
    machine_info = hook.pytest_benchmark_generate_machine_info(config=config)
    hook.pytest_benchmark_update_machine_info(config=config, machine_info=machine_info)
    commit_info = hook.pytest_benchmark_generate_commit_info(config=config)
    hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit_info)
    return hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=state.measured,
        include_data=True,
        machine_info=machine_info,
        commit_info=commit_info,
    )


def _keep(config: pytest.Config, state: Session, data: dict[str, Any]) -> None:
    """Keep the run for `kan-bench accept`, and its table beside it and beside --benchmark-json."""
    assert state.run is not None
    table = report.results_markdown(state.run)
    path = config.rootpath / LAST_RUN
    try:
        path.parent.mkdir(exist_ok=True)
        baseline.write_atomically(path, json.dumps(data, indent=1, default=str) + "\n")
        baseline.write_atomically(path.with_suffix(".md"), table)
        if config.option.benchmark_json:
            asked = Path(config.option.benchmark_json)
            baseline.write_atomically(asked.with_suffix(".md"), table)
    except OSError as error:
        state.notes.append(
            f"{path} cannot be written ({error.strerror}); expected a writable folder: the run "
            "is not kept, and kan-bench accept will not find it"
        )
        return
    state.notes.append(f"kept {path} and, as Markdown, {path.with_suffix('.md').name}")


def _judge(config: pytest.Config, state: Session) -> None:
    assert state.run is not None
    limits = CUDA_LIMITS if state.device.type == "cuda" else CPU_LIMITS
    accepted = state.baseline_run
    if accepted is not None and accepted.device_key != state.run.device_key:
        state.verdicts = [
            Verdict(
                name,
                "incomparable",
                f"the baseline is of {accepted.device_key}, this run of {state.run.device_key}",
            )
            for name in state.run.measurements
        ]
    else:
        outside = [
            name for name in (accepted.measurements if accepted else ()) if _outside(config, name)
        ]
        state.verdicts = judge_run(
            accepted, state.run, limits, state.absent, [*state.not_selected, *outside]
        )
    failing = set(FAILING)
    if config.getoption("require_baseline"):
        failing.add("no_baseline")
    state.failed |= any(verdict.status in failing for verdict in state.verdicts)


def _outside(config: pytest.Config, name: str) -> bool:
    """Whether the user named files or tests to run, and this one is none of them."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return False
    root, here = config.rootpath, config.invocation_params.dir
    file, *test = name.split("::", 1)
    path = os.path.realpath(root / file)
    for argument in config.args:
        chosen_file, *chosen_test = argument.split("::", 1)
        chosen = os.path.realpath(here / chosen_file)
        if chosen_test:
            if path == chosen and (test[0] + "::").startswith(
                (f"{chosen_test[0]}::", f"{chosen_test[0]}[")
            ):
                return False
        elif path == chosen or path.startswith(chosen + os.sep):
            return False
    return name not in config.stash[SESSION].absent


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    state = config.stash[SESSION]
    if state.run is not None and state.run.measurements:
        terminalreporter.section("results")
        terminalreporter.write_line(report.results_markdown(state.run))
    if state.comparing:
        terminalreporter.section("verdicts")
        source = (
            state.baseline_path or f"none for {describe_environment(state.device)['device_key']}"
        )
        terminalreporter.write_line(f"baseline: {source}")
        colors = {"regressed": "red", "missing": "red", "incomparable": "red", "improved": "green"}
        for status, line in report.verdict_lines(state.verdicts):
            markup = {colors[status]: True} if status in colors else {}
            terminalreporter.write_line(line, **markup)
        terminalreporter.write_line(report.verdict_summary(state.verdicts))
        if any(verdict.status == "improved" for verdict in state.verdicts):
            terminalreporter.write_line("improved: keep it by storing this run: kan-bench accept")
    for note in state.notes:
        terminalreporter.write_line(note)
