"""What a run recorded, read from pytest-benchmark's JSON.

The unit of a measurement is the process: rounds of one process share its memory layout and
its luck, and say nothing of how the next one differs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from perfgate.fields import FieldError, count, mapping, member, positive, sequence, text
from perfgate.judge.device_key import recorded_environment
from perfgate.judge.place import EARLIER, OURS, key_in, ours
from perfgate.judge.provenance import Machine, Origin, parse_machine, parse_origin

# What a process says of a benchmark's time and what is judged: medians over its clean rounds.
# `ratio` is to a reference that no change of the project makes faster or slower.
Figure = Literal["ratio", "median_ns"]
FIGURES: tuple[Figure, ...] = get_args(Figure)

# Ours in `extra_info` before that key held them.
OLD_KEYS = (
    "measured", "processes", "confirming", "memory", "calibration", "evidence", "rounds",
    "parameters", "trainable_parameters", "flops", "floor_product_ns", "floor_copy_ns",
    "floor_fraction",
)  # fmt: skip

# How the keys of ratios to companions begin, after which comes the name.
BESIDE = "ratio_to_"

# The least that pytest-benchmark's clock tells apart.
CLOCK_SECONDS = 1e-9


class InvalidRunError(ValueError):
    """The data is not a run that pytest-benchmark wrote."""


@dataclass(frozen=True)
class Process:
    """A benchmark in one process.

    Args:
        median_ns: median time of a round.
        ratio: median over rounds of the time over the interleaved reference's; None where
            there is no reference.
        beside: the same over each companion that is only shown, by its name.
        rounds: rounds that count.
        disturbed: rounds that were dropped, because the machine was busy with others.
    """

    median_ns: float
    ratio: float | None = None
    beside: Mapping[str, float] = field(default_factory=dict)
    rounds: int = 1
    disturbed: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether at least half of what it measured counts."""
        return self.rounds >= max(1, self.disturbed)

    def figure(self, name: Figure) -> float | None:
        value: float | None = getattr(self, name)
        return value

    def entry(self) -> dict[str, float | None]:
        """As it is stored; `parse_process` reads it."""
        return {
            "median_ns": self.median_ns, "ratio": self.ratio,
            **{f"{BESIDE}{name}": ratio for name, ratio in self.beside.items()},
            "rounds": self.rounds, "disturbed": self.disturbed,
        }  # fmt: skip


@dataclass(frozen=True)
class Calibration:
    """Runs of identical code: what a figure does when nothing changes.

    Args:
        processes: number of processes of each of the runs.
        runs: for each run its figures, each the median over its processes.
        commit, datetime: of what, and when; of the first run, if there are origins.
        origins: of each run; none in old files, whose runs are of one day and machine.
    """

    processes: int
    runs: Sequence[Mapping[str, float]]
    commit: str = "unknown"
    datetime: str = ""
    origins: Sequence[Origin] = ()

    def values(self, figure: Figure) -> list[float]:
        return [run[figure] for run in self.runs if figure in run]

    @property
    def origins_of_runs(self) -> Sequence[Origin]:
        """Of each run, also of old files."""
        return self.origins or [Origin(self.datetime, commit=self.commit)] * len(self.runs)

    def clusters(self, figure: Figure) -> list[tuple[str, str | None]]:
        """Of each of the values its day and machine."""
        pairs = zip(self.runs, self.origins_of_runs, strict=True)
        return [origin.cluster for run, origin in pairs if figure in run]

    @property
    def days(self) -> int:
        """On how many days it was measured."""
        return len({day for day, _ in (origin.cluster for origin in self.origins_of_runs)})

    @property
    def machines(self) -> int:
        """On how many machines; a container's counts anew whenever its host starts."""
        return len({machine for _, machine in (origin.cluster for origin in self.origins_of_runs)})


@dataclass(frozen=True)
class Code:
    """The code that a figure is of.

    Args:
        commit: full id; `unversioned` where there is none.
        dirty: whether there were changes that the commit does not hold.
    """

    commit: str
    dirty: bool


@dataclass(frozen=True)
class Measurement:
    """One benchmark of a run.

    Args:
        name: pytest's node id.
        measured: what was measured (case, shape, options, pass, reference); empty for a
            benchmark that does not say.
        processes: one entry for each process that measured it.
        memory: kind (`forward_peak_bytes`, ...) to bytes.
        launches: kernels that the pass launches on a GPU; None where they were not counted.
        calibration: how much its time differs between runs of identical code.
        code: what was measured, where that is not the run's.
        info: everything else that was recorded of it.
    """

    name: str
    measured: Mapping[str, Any]
    processes: Sequence[Process]
    memory: Mapping[str, int] = field(default_factory=dict)
    launches: int | None = None
    calibration: Calibration | None = None
    code: Code | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def values(self, figure: Figure) -> list[float]:
        """The figure of each clean process."""
        found = [process.figure(figure) for process in self.processes if process.is_clean]
        return [value for value in found if value is not None]

    def median(self, figure: Figure) -> float | None:
        """The median of the figure over all processes, disturbed ones too if there is no other."""
        values = self.values(figure) or [
            value for process in self.processes if (value := process.figure(figure)) is not None
        ]
        return statistics.median(values) if values else None

    @property
    def median_ns(self) -> float:
        """Median time of a round."""
        value = self.median("median_ns")
        assert value is not None
        return value

    def beside(self) -> dict[str, float]:
        """The median ratio to each companion that is shown, by its name."""
        clean = [p for p in self.processes if p.is_clean] or self.processes
        names = dict.fromkeys(name for process in clean for name in process.beside)
        return {
            name: statistics.median(p.beside[name] for p in clean if name in p.beside)
            for name in names
        }

    def has(self, figure: Figure) -> bool:
        """Whether its processes measured the figure, disturbed or not."""
        return all(process.figure(figure) is not None for process in self.processes)

    @property
    def rounds(self) -> int:
        return sum(process.rounds for process in self.processes)

    @property
    def disturbed(self) -> int:
        return sum(process.disturbed for process in self.processes)


@dataclass(frozen=True)
class Run:
    """All benchmarks of a run, by name, and the machine they ran on.

    Args:
        environment: the machine and its settings.
        commit, datetime: of what, and when.
        dirty: whether there were changes that the commit does not hold.
        measurements: the benchmarks by name.
        anchor: why this run starts a new history, so that later ones are not compared with
            what is older; None if it goes on.
        machine: which machine it was; None in files from before that was recorded.
    """

    environment: Mapping[str, Any]
    commit: str
    datetime: str
    measurements: Mapping[str, Measurement]
    anchor: str | None = None
    dirty: bool = False
    machine: Machine | None = None

    @property
    def device_key(self) -> str:
        return str(self.environment.get("device_key", "unknown"))

    @property
    def says_device(self) -> bool:
        """Whether it says of which device it is; files of plain pytest-benchmark do not."""
        return "device_key" in self.environment

    def code_of(self, name: str) -> Code:
        """The code that a benchmark was measured on."""
        return self.measurements[name].code or Code(self.commit, self.dirty)


def parse_run(data: Any) -> Run:
    """Read pytest-benchmark's JSON.

    All that later code relies on is checked here, once.

    Raises:
        InvalidRunError: a part is missing or of the wrong kind; the message names it.
    """
    try:
        whole = mapping(data, "the file")
        entries = sequence(member(whole, "benchmarks", "the file"), "benchmarks")
        measurements = [
            parse_benchmark(entry, f"benchmarks[{number}]") for number, entry in enumerate(entries)
        ]
        machine = mapping(member(whole, "machine_info", "the file"), "machine_info")
        named = ours(machine, "machine_info")
        if "device_key" in named:
            text(named["device_key"], f"machine_info.{key_in(machine)}.device_key")
        environment = recorded_environment(machine)
        code = _parse_code(member(whole, "commit_info", "the file"), "commit_info")
        anchor = ours(whole, "the file").get("anchor")
        return Run(
            environment,
            code.commit,
            text(member(whole, "datetime", "the file"), "datetime"),
            {m.name: m for m in measurements},
            None if anchor is None else text(anchor, f"{key_in(whole)}.anchor"),
            code.dirty,
            parse_machine(machine),
        )
    except FieldError as error:
        raise InvalidRunError(str(error)) from error
    except (TypeError, ValueError, AttributeError) as error:  # facts of a processor
        raise InvalidRunError(f"machine_info: {error}") from error


def parse_benchmark(entry: Any, where: str = "the benchmark") -> Measurement:
    """An entry of `benchmarks`.

    Raises:
        FieldError: a part is missing or of the wrong kind.
    """
    whole = mapping(entry, where)
    name = text(member(whole, "fullname", where), f"{where}.fullname")
    stats = mapping(member(whole, "stats", where), f"{where}.stats")
    # A benchmark of somebody else's says nothing of processes: it is what one of them saw.
    alone = process_alone(
        member(stats, "median", f"{where}.stats"), member(stats, "rounds", f"{where}.stats"), where
    )
    extra = mapping(whole.get("extra_info", {}), f"{where}.extra_info")
    info, where = _ours(extra, f"{where}.extra_info")
    measured = info.get("measured", {})
    calibration, code = info.get("calibration"), info.get("code")
    # Earlier versions kept those apart that were started because the first ones looked changed.
    kept = [*_processes(info, "processes", where), *_processes(info, "confirming", where)]
    return Measurement(
        name=name,
        # Before there was a place for ours, a benchmark's own might stand here.
        measured=measured if isinstance(measured, Mapping) else {},
        processes=kept or [alone],
        memory={
            kind: count(size, f"{where}.memory.{kind}")
            for kind, size in mapping(info.get("memory", {}), f"{where}.memory").items()
        },
        launches=None
        if info.get("launches") is None
        else count(info["launches"], f"{where}.launches"),
        calibration=None
        if calibration is None
        else _parse_calibration(calibration, f"{where}.calibration"),
        code=None if code is None else _parse_code(code, f"{where}.code"),
        info={**_version(extra), **info},
    )


def figures_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The place of our own figures in an entry of `benchmarks`, to be changed.

    `extra_info` belongs to those who write benchmarks; ours is one key in it. Files
    that are older than this have ours beside theirs, or by an earlier name: they are moved.
    """
    extra = entry.setdefault("extra_info", {})
    if isinstance(extra.get(EARLIER), dict) and OURS not in extra:
        extra[OURS] = extra.pop(EARLIER)
    if not isinstance(extra.get(OURS), dict):
        old, _ = _ours(extra, "extra_info")
        extra[OURS] = {key: extra.pop(key) for key in OLD_KEYS if key in old}
    found: dict[str, Any] = extra[OURS]
    return found


def _ours(extra: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """Our figures in an `extra_info`, and where they stand."""
    if (key := key_in(extra)) in extra:
        return ours(extra, where), f"{where}.{key}"
    measured, processes = extra.get("measured"), extra.get("processes")
    is_old = isinstance(measured, Mapping) and {"implementation", "pass"} <= measured.keys()
    if isinstance(processes, (list, tuple)):
        is_old |= any(isinstance(part, Mapping) and "median_ns" in part for part in processes)
    return (extra if is_old else {}), where


def _version(extra: Mapping[str, Any]) -> dict[str, str]:
    """What a benchmark of ours says beside its figures."""
    version = extra.get("package_version")
    return {"package_version": version} if isinstance(version, str) else {}


def _processes(info: Mapping[str, Any], key: str, where: str) -> list[Process]:
    parts = sequence(info.get(key, ()), f"{where}.{key}")
    return [parse_process(part, f"{where}.{key}[{n}]") for n, part in enumerate(parts)]


def process_alone(median: Any, rounds: Any, where: str = "the benchmark") -> Process:
    """What pytest-benchmark's own statistics say of the process that it ran in.

    A median of 0 is a time below what the clock can tell: it is taken for the least that it can.

    Args:
        median: in seconds.
        rounds: how many.
        where: what an error names.
    """
    seconds = median if median != 0 else CLOCK_SECONDS
    number = positive(seconds, f"{where}.stats.median") * 1e9
    return Process(median_ns=number, rounds=count(rounds, f"{where}.stats.rounds"))


def parse_process(part: Any, where: str = "the process") -> Process:
    """An entry of `processes`.

    Raises:
        FieldError: a part is missing or of the wrong kind.
    """
    whole = mapping(part, where)
    ratio = whole.get("ratio")
    return Process(
        median_ns=positive(member(whole, "median_ns", where), f"{where}.median_ns"),
        ratio=None if ratio is None else positive(ratio, f"{where}.ratio"),
        beside={
            key.removeprefix(BESIDE): positive(value, f"{where}.{key}")
            for key, value in whole.items()
            if key.startswith(BESIDE) and value is not None
        },
        rounds=count(member(whole, "rounds", where), f"{where}.rounds"),
        disturbed=count(whole.get("disturbed", 0), f"{where}.disturbed"),
    )


def _parse_code(part: Any, where: str) -> Code:
    """As pytest-benchmark describes a commit."""
    whole = mapping(part, where)
    commit = whole.get("id")
    return Code(
        "unversioned" if commit is None else text(commit, f"{where}.id"), whole.get("dirty") is True
    )


def _parse_calibration(part: Any, where: str) -> Calibration:
    whole = mapping(part, where)
    processes = count(member(whole, "processes", where), f"{where}.processes")
    if processes == 0:
        raise FieldError(f"{where}.processes: 0 where 1 or more belongs")
    runs = sequence(member(whole, "runs", where), f"{where}.runs")
    origins = sequence(whole.get("origins", []), f"{where}.origins")
    if origins and len(origins) != len(runs):
        raise FieldError(f"{where}.origins: {len(origins)} of {len(runs)} runs")
    return Calibration(
        processes=processes,
        runs=[
            {
                figure: positive(value, f"{where}.runs[{number}].{figure}")
                for figure, value in mapping(run, f"{where}.runs[{number}]").items()
            }
            for number, run in enumerate(runs)
        ],
        commit=text(whole.get("commit", "unknown"), f"{where}.commit"),
        datetime=text(whole.get("datetime", ""), f"{where}.datetime"),
        origins=[
            parse_origin(origin, f"{where}.origins[{number}]")
            for number, origin in enumerate(origins)
        ],
    )
