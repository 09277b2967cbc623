"""Options of pytest: what there are, what they may be, and the session that they ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from perfgate import compare, options
from perfgate.judge.limits import LimitsError, read_rules
from perfgate.measure.cache import CACHES, Cache, default_cache
from perfgate.measure.cuda_timing import TIMERS, check_timer
from perfgate.measure.environment import resolve_device
from perfgate.measure.rounds import Budget, Schedule
from perfgate.paths import BASELINES, REPORTS
from perfgate.run import lifeline
from perfgate.run.processes import TIMEOUT_SECONDS
from perfgate.run.runner import Runner
from perfgate.run.worker import Channel, Order, Turns
from perfgate.session import Session, baselines_of

# Options of pytest-benchmark that ask for times; without one of them nothing is timed.
TIMING_OPTIONS = ("only", "enable", "save", "autosave", "json", "histogram", "cprofile")


class OptionError(Exception):
    """An option cannot be as it is; the message says what was expected."""


def declare(parser: Any) -> None:
    """Add the options to pytest's parser."""
    # --device is here and not in a conftest, because the baseline's key depends on it.
    group = parser.getgroup("kan-impls")
    group.addoption(
        "--device", help="device of tests and benchmarks; default: cuda where available, else cpu"
    )
    group.addoption(
        "--cache",
        choices=CACHES,
        help="caches before each timed window; default: cold on a GPU, warm on a CPU",
    )
    group.addoption(
        "--timer",
        choices=TIMERS,
        default="wall",
        help="what times each window: the wall clock; CUDA events, which leave the host's launches "
        "out; or CUDA events around the replay of a CUDA graph; default: %(default)s",
    )
    options.declare(
        group.addoption,
        "--processes",
        shown=f"{compare.PROCESSES} where calibrated times judge the run, else 1",
    )
    options.declare(group.addoption, "--baselines", shown=f"{BASELINES} in the root folder")
    options.declare(group.addoption, "--worker-timeout", default=TIMEOUT_SECONDS)
    group.addoption("--kan-worker", type=Path, metavar="FILE", help="used by the plugin itself")
    group = parser.getgroup("kan-impls, with --benchmark-compare")
    options.declare(group.addoption, "--pairs")
    group.addoption(
        "--against",
        metavar="REVISION",
        help="the revision whose code is compared with, instead of the baseline's own commit",
    )
    options.declare(group.addoption, "--false-alarm")
    group.addoption(
        "--allow-unjudged",
        action="store_true",
        help="a benchmark of which no time could be judged does not fail the run",
    )
    group.addoption(
        "--require-baseline",
        action="store_true",
        help="a benchmark without a baseline fails the run",
    )
    group.addoption(
        "--fail-on-improved",
        action="store_true",
        help="an improvement fails the run, until it is stored as the baseline",
    )
    options.declare(group.addoption, "--fail-on-inconclusive")
    group = parser.getgroup("kan-impls")
    group.addoption(
        "--accept-memory",
        action="store_true",
        help="store the bytes of the device-free memory tests that run",
    )
    options.declare(group.addoption, "--report", shown=f"{REPORTS} in the root folder")


def session_of(config: Any) -> Session:
    """The session that the options ask for; sets those of pytest-benchmark.

    Raises:
        OptionError: they cannot be met.
    """
    option = config.option
    try:
        device = resolve_device(option.device)
        check_timer(option.timer, device)
        wanted = options.wanted_baseline(option.benchmark_compare)
    except ValueError as error:
        raise OptionError(str(error)) from error
    session = Session(config, device, bool(option.benchmark_compare))
    if option.kan_worker is not None:
        _configure_worker(config, session)
    elif session.comparing:
        _configure_comparison(config, session, wanted)
    else:
        _refuse_options_of_a_comparison(option)
        if not any(getattr(option, f"benchmark_{name}") for name in TIMING_OPTIONS):
            option.benchmark_disable = True
    session.processes = option.processes or 1
    session.runner = _runner(config, session)
    return session


def _configure_worker(config: Any, session: Session) -> None:
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
    if config.args_source.name == "ARGS" and not option.pyargs:
        session.asked = list(config.args)
    if order.names is not None:  # without collecting a thousand tests
        files = dict.fromkeys(name.split("::")[0] for name in order.names)
        config.args = [str(config.rootpath / file) for file in files]


def _refuse_options_of_a_comparison(option: Any) -> None:
    for name in (
        "require_baseline",
        "fail_on_improved",
        "fail_on_inconclusive",
        "allow_unjudged",
        "against",
    ):
        if getattr(option, name):
            flag = name.replace("_", "-")
            raise OptionError(f"--{flag} came alone; expected --benchmark-compare with it: add it")


def _configure_comparison(config: Any, session: Session, wanted: str | None) -> None:
    option = config.option
    if option.benchmark_compare_fail:
        raise OptionError(
            "--benchmark-compare-fail came with the plugin of perfgate; expected its own "
            "limits, which also judge memory and silence: leave the option out"
        )
    baselines = baselines_of(config)
    is_usual = baselines.resolve() == (config.rootpath / BASELINES).resolve()
    if not is_usual and not baselines.exists():
        raise OptionError(
            f"--baselines is {baselines}, which does not exist; expected the folder that "
            "kan-bench accept stored in: correct it"
        )
    # A figure taken after a thousand tests in the process is no match for a baseline
    # taken without them.
    option.benchmark_only = not (
        option.benchmark_disable or option.benchmark_skip or is_distributed(option)
    )
    session.wanted = option.benchmark_compare if isinstance(option.benchmark_compare, str) else None
    option.benchmark_compare = []
    try:  # now rather than after minutes of measuring
        read_rules(config.rootpath / "pyproject.toml")
    except LimitsError as error:
        raise OptionError(str(error)) from error


def is_distributed(option: Any) -> bool:
    """Whether xdist is on, under which pytest-benchmark times nothing."""
    return getattr(option, "dist", "no") != "no" or "PYTEST_XDIST_WORKER" in os.environ


def _runner(config: Any, session: Session) -> Runner:
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
        session.device,
        cache,
        new_schedule,
        only_times=bool(order and order.only_times),
        keep_rounds=bool(order and order.keep_rounds),
        in_turns=session.channel is not None,
        timer_name=config.option.timer,
    )


def is_timed(config: Any) -> bool:
    option = config.option
    return not (option.benchmark_skip and not option.benchmark_only) and (
        option.benchmark_enable or not option.benchmark_disable
    )
