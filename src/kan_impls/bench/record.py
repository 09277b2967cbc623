"""What a run recorded, read from pytest-benchmark's JSON.

The unit of a measurement is the process: rounds of one process share its memory layout and
its luck, and say nothing of how the next one differs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from kan_impls.bench.device_key import recorded_environment
from kan_impls.bench.provenance import Machine, Origin, parse_machine, parse_origin

# What a process says of a benchmark's time: medians over its clean rounds. The ratio to the MLP is
# for tables: the MLP is code of the project, which a change may make faster or slower.
Figure = Literal["ratio", "ratio_to_mlp", "median_ns"]
FIGURES: tuple[Figure, ...] = get_args(Figure)


class InvalidRunError(ValueError):
    """The data is not a run that pytest-benchmark wrote."""


@dataclass(frozen=True)
class Process:
    """A benchmark in one process.

    Args:
        median_ns: median time of a round.
        ratio: median over rounds of the time over the interleaved reference's; None where
            there is no reference.
        ratio_to_mlp: the same over the MLP, where it was interleaved.
        rounds: rounds that count.
        disturbed: rounds that were dropped, because the machine was busy with others.
    """

    median_ns: float
    ratio: float | None = None
    ratio_to_mlp: float | None = None
    rounds: int = 1
    disturbed: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether at least half of what it measured counts."""
        return self.rounds >= max(1, self.disturbed)

    def figure(self, name: Figure) -> float | None:
        value: float | None = getattr(self, name)
        return value


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
        calibration: how much its time differs between runs of identical code.
        code: what was measured, where that is not the run's.
        info: everything else that the benchmark recorded.
    """

    name: str
    measured: Mapping[str, Any]
    processes: Sequence[Process]
    memory: Mapping[str, int] = field(default_factory=dict)
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

    def code_of(self, name: str) -> Code:
        """The code that a benchmark was measured on."""
        return self.measurements[name].code or Code(self.commit, self.dirty)


def parse_run(data: Any) -> Run:
    """Read pytest-benchmark's JSON.

    Raises:
        InvalidRunError: a part is missing or of the wrong kind; the message names it.
    """
    try:
        measurements = [parse_benchmark(entry) for entry in data["benchmarks"]]
        environment = recorded_environment(data["machine_info"])
        commit = data["commit_info"].get("id") or "unversioned"
        dirty = bool(data["commit_info"].get("dirty"))
        anchor = data.get("kan_impls", {}).get("anchor")
        found = {m.name: m for m in measurements}
        machine = parse_machine(data["machine_info"])
        datetime = str(data["datetime"])
        return Run(environment, str(commit), datetime, found, anchor, dirty, machine)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRunError(f"it has no usable {error}") from error


def parse_benchmark(entry: Mapping[str, Any]) -> Measurement:
    """An entry of `benchmarks`."""
    info = entry.get("extra_info", {})
    stats = entry["stats"]
    # A benchmark of somebody else's says nothing of processes: it is what one of them saw.
    alone = Process(median_ns=float(stats["median"]) * 1e9, rounds=int(stats["rounds"]))
    # Earlier versions kept those apart that were started because the first ones looked changed.
    kept = [*info.get("processes", ()), *info.get("confirming", ())]
    processes = [parse_process(part) for part in kept]
    code = info.get("code")
    calibration = info.get("calibration")
    return Measurement(
        name=str(entry["fullname"]),
        measured=info.get("measured", {}),
        processes=processes or [alone],
        memory={kind: int(size) for kind, size in info.get("memory", {}).items()},
        calibration=None if calibration is None else _parse_calibration(calibration),
        code=None if code is None else Code(str(code["commit"]), bool(code["dirty"])),
        info=info,
    )


def parse_process(part: Mapping[str, Any]) -> Process:
    """An entry of `extra_info["processes"]`."""
    ratios = {name: part.get(name) for name in ("ratio", "ratio_to_mlp")}
    return Process(
        median_ns=_positive(part["median_ns"]),
        **{name: None if value is None else _positive(value) for name, value in ratios.items()},
        rounds=int(part["rounds"]),
        disturbed=int(part.get("disturbed", 0)),
    )


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(f"positive number where {value!r} stands")
    return number


def _parse_calibration(part: Mapping[str, Any]) -> Calibration:
    origins = [parse_origin(origin) for origin in part.get("origins", ())]
    if origins and len(origins) != len(part["runs"]):
        raise ValueError(f"origins: {len(origins)} of {len(part['runs'])} runs")
    return Calibration(
        processes=int(part["processes"]),
        runs=[{key: _positive(value) for key, value in run.items()} for run in part["runs"]],
        commit=str(part.get("commit", "unknown")),
        datetime=str(part.get("datetime", "")),
        origins=origins,
    )
