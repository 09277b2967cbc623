"""What a run recorded, read from pytest-benchmark's JSON.

The unit of a measurement is the process: rounds of one process share its memory layout and
its luck, and say nothing of how the next one differs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from perfgate.judge.provenance import Machine, Origin

# What a process says of a benchmark's time and what is judged: medians over its clean rounds.
# `ratio` is to a reference that no change of the project makes faster or slower.
Figure = Literal["ratio", "median_ns"]
FIGURES: tuple[Figure, ...] = get_args(Figure)

# How the keys of ratios to companions begin, after which comes the name.
BESIDE = "ratio_to_"


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
            "median_ns": self.median_ns,
            "ratio": self.ratio,
            **{f"{BESIDE}{name}": ratio for name, ratio in self.beside.items()},
            "rounds": self.rounds,
            "disturbed": self.disturbed,
        }


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

    @property
    def basis(self) -> str:
        """On what its noise rests, in words."""
        counts = {"run": len(self.runs), "day": self.days, "machine": self.machines}
        runs, days, machines = (f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items())
        return f"{runs} on {days} and {machines}"


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
        machine: which machine it was then; None if unknown.
        group: the heading that pytest-benchmark shows it under; None if it has none.
        info: everything else that was recorded of it.
    """

    name: str
    measured: Mapping[str, Any]
    processes: Sequence[Process]
    memory: Mapping[str, int] = field(default_factory=dict)
    launches: int | None = None
    calibration: Calibration | None = None
    code: Code | None = None
    machine: Machine | None = None
    group: str | None = None
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

    def machine_of(self, name: str) -> Machine | None:
        """The machine that a benchmark was measured on; None if unknown."""
        kept = self.measurements[name].code is not None
        return self.measurements[name].machine if kept else self.machine
