"""The judgement: measurements, their noise and limits in, named verdicts out.

Memory is exact, and judged by what is stored. Stored times clear a benchmark or leave it open, and
accuse nobody: what they leave open is compared with the earlier code itself, in turns, and only
that makes it `regressed` or `improved`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from perfgate.judge.limits import Limits
from perfgate.judge.noise import Noise, estimate
from perfgate.judge.record import Figure, Measurement, Run
from perfgate.judge.rule import Finding, conclude

Status = Literal[
    "improved", "unchanged", "regressed", "inconclusive", "unjudged", "no_baseline", "missing",
    "incomparable",
]  # fmt: skip
# With what a time is compared: the last accepted run, the oldest kept one, or a revision.
Against = Literal["baseline", "anchor", "base"]

# The probability that a run of unchanged code has any false alarm.
FALSE_ALARM = 0.01

# The probability that a stored time leaves open what is unchanged, which costs a comparison in
# turns and accuses nobody.
FALSE_QUESTION = 0.01

# Where so large a change is not excluded after all turns, nothing was judged.
UNKNOWN = 1.0

COMPANIONS: Mapping[Figure, str] = {"ratio": "time over reference", "median_ns": "time"}
AGAINST: Mapping[Against, str] = {
    "baseline": "the baseline",
    "anchor": "the oldest baseline",
    "base": "the base",
}


@dataclass(frozen=True)
class TimeChange:
    """One figure compared with an earlier one. Changes are relative: 0.1 is 10% slower.

    Args:
        figure: what is compared.
        against: with what.
        status: what follows; a stored time is never `regressed` or `improved`.
        change: the change.
        limit: what unchanged code exceeds hardly ever.
        visible: the largest change that is not excluded.
        processes: how many processes of this run count, or pairs of processes.
        commit: of the code that was measured in turns; None for a stored time.
        noise_of: what its noise is known from.
        given_up: why no more pairs were measured, of what they would not decide.
    """

    figure: Figure
    against: Against
    status: Finding
    change: float
    limit: float
    visible: float
    processes: int
    commit: str | None = None
    noise_of: str = ""
    given_up: str = ""

    def __str__(self) -> str:
        limit = f"(limit {self.limit:.1%}, {self.processes} "
        if self.commit is not None:
            return (
                f"{self.change:+.1%} in turns with {AGAINST[self.against]}'s code "
                f"{self.commit[:10]} {limit}pairs of processes"
                f"{self.given_up and ', '}{self.given_up})"
            )
        basis = f", noise of {self.noise_of}" if self.noise_of else ""
        text = f"{COMPANIONS[self.figure]} {self.change:+.1%} {limit}processes{basis})"
        return text if self.against == "baseline" else f"{text} since {AGAINST[self.against]}"


@dataclass(frozen=True)
class MemoryChange:
    """Bytes of one kind, before and now."""

    kind: str
    status: Finding
    before: int
    now: int

    def __str__(self) -> str:
        return f"{self.kind} {self.now - self.before:+,} B ({self.before:,} to {self.now:,})"


@dataclass(frozen=True)
class CountChange:
    """A number of events of one kind, before and now."""

    kind: str
    status: Finding
    before: int
    now: int

    def __str__(self) -> str:
        return f"{self.kind} {self.now - self.before:+,} ({self.before:,} to {self.now:,})"


@dataclass(frozen=True)
class Verdict:
    """A named judgement on one benchmark.

    Args:
        name: pytest's node id.
        status: the judgement.
        cause: why, in one line.
        times, memory, counts: all that was compared.
        open: with what its code is to be compared in turns, before time is judged.
    """

    name: str
    status: Status
    cause: str
    times: Sequence[TimeChange] = ()
    memory: Sequence[MemoryChange] = ()
    open: Sequence[Against] = ()
    counts: Sequence[CountChange] = ()


@dataclass(frozen=True)
class Answers:
    """What comparisons in turns brought.

    Args:
        times: name to what they found.
        obstacles: name to why there was none, and what to do.
    """

    times: Mapping[str, Sequence[TimeChange]]
    obstacles: Mapping[str, str]


NO_ANSWERS = Answers({}, {})


@dataclass(frozen=True)
class _Comparison:
    """One figure with a stored one; its noise is that of runs."""

    figure: Figure
    against: Against
    noise: Noise
    basis: str
    least: float
    visible: float = math.inf
    only_slower: bool = False
    level: Callable[[Sequence[float]], float] = statistics.median

    def judge(self, before: Measurement, now: Measurement) -> TimeChange:
        earlier, values = before.values(self.figure), now.values(self.figure)
        change = math.log(self.level(values) / statistics.median(earlier))
        found = conclude(
            change, self.noise.standard_error(len(earlier), len(values)), self.noise.df,
            alarm=FALSE_QUESTION, least=self.least, visible=self.visible,
            only_slower=self.only_slower,
        )  # fmt: skip
        status: Finding = "unchanged" if found.finding == "unchanged" else "inconclusive"
        return TimeChange(
            self.figure, self.against, status, math.expm1(change), math.expm1(found.limit),
            math.expm1(found.possible), len(values), noise_of=self.basis,
        )  # fmt: skip


class Judge:
    """Judges the benchmarks of one run by the baseline of its device.

    Args:
        baseline: the last accepted run, which also holds the calibration; None if there is none.
        anchor: the oldest kept one, so that many small losses are seen; None for none.
        limits: name to its limits.
        stranger: why the baseline's time of a benchmark tells nothing here; None where it does.
    """

    def __init__(
        self,
        baseline: Run | None,
        anchor: Run | None,
        limits: Callable[[Measurement], Limits],
        stranger: Callable[[Measurement], str | None] = lambda measurement: None,
    ) -> None:
        self.accepted = baseline.measurements if baseline else {}
        self.oldest = anchor.measurements if anchor else {}
        self.limits = limits
        self.stranger = stranger
        self.noises = {figure: _noises(self.accepted.values(), figure) for figure in COMPANIONS}

    def judge_run(
        self,
        current: Run,
        absent: Mapping[str, str] | None = None,
        left_out: Iterable[str] = (),
        answers: Answers = NO_ANSWERS,
    ) -> list[Verdict]:
        """Judge every benchmark of the run or of its baseline.

        Args:
            current: this run.
            absent: name to reason, of benchmarks that were collected and did not measure.
            left_out: names that the user left out of this run on purpose; these are not missing.
            answers: what comparisons in turns brought.
        """
        skipped = set(left_out)
        names = [
            name
            for name in {**self.accepted, **current.measurements}
            if name in current.measurements or name not in skipped
        ]
        reasons = absent or {}
        return [
            self._judge(name, current.measurements.get(name), reasons.get(name), answers)
            for name in names
        ]

    def _judge(
        self, name: str, now: Measurement | None, absent_because: str | None, answers: Answers
    ) -> Verdict:
        before = self.accepted.get(name)
        in_turns = answers.times.get(name, ())
        if now is None:
            reason = absent_because or "this run does not have it"
            return Verdict(name, "missing", f"in the baseline, but {reason}")
        if before is None:
            if in_turns:
                return verdict_of(name, in_turns)
            remedy = answers.obstacles.get(name, "store one with: kan-bench accept")
            return Verdict(name, "no_baseline", remedy)
        if obstacle := _incomparable(before, now):
            return Verdict(name, "incomparable", obstacle)
        memory = memory_changes(before, now, self.limits(now).memory_bytes)
        counts = count_changes(before, now)
        doubt = self._doubt(before, now)
        stored = [] if doubt else list(self._times(before, now))
        if in_turns:
            return verdict_of(name, [*in_turns, *stored], memory, counts)
        questions = [change for change in stored if change.status == "inconclusive"]
        if not doubt and not questions:
            return verdict_of(name, stored, memory, counts)
        against: list[Against] = ["baseline"] if doubt else [c.against for c in questions]
        causes = [doubt] if doubt else [_explain(change) for change in questions]
        if name in answers.obstacles:
            causes.append(answers.obstacles[name])
        exact: list[MemoryChange | CountChange] = [*memory, *counts]
        worse = [str(change) for change in exact if change.status == "regressed"]
        status: Status = "unjudged" if _is_lost(now) else "inconclusive"
        return Verdict(
            name, "regressed" if worse else status, "; ".join([*worse, *causes]), stored, memory,
            tuple(dict.fromkeys(against)), counts,
        )  # fmt: skip

    def _doubt(self, before: Measurement, now: Measurement) -> str | None:
        """Why stored times say nothing of the benchmark, if so."""
        figure = _figure(before)
        if reason := self.stranger(before):
            return reason
        if before.name not in self.noises[figure]:
            return "its noise was never calibrated"
        if _is_lost(now):
            lost, rounds = now.disturbed, now.rounds + now.disturbed
            return f"the machine was busy: {lost} of {rounds} rounds lost"
        return None if before.values(figure) else "the machine was busy when the baseline was taken"

    def _times(self, before: Measurement, now: Measurement) -> Iterable[TimeChange]:
        limits, figure = self.limits(now), _figure(before)
        noise, basis = self.noises[figure][now.name], _basis(before)
        yield _Comparison(figure, "baseline", noise, basis, limits.ratio, limits.visible).judge(
            before, now
        )
        oldest = self.oldest.get(now.name)
        if oldest and oldest.values(figure) and not _incomparable(oldest, now):
            drift = _Comparison(figure, "anchor", noise, basis, limits.drift, only_slower=True)
            yield drift.judge(oldest, now)
        # A ratio hides what slows the reference as well. The fastest process tells a slower
        # program from a machine that is sometimes slow.
        own = self.noises["median_ns"].get(now.name)
        if figure != "median_ns" and own is not None:
            yield _Comparison(
                "median_ns", "baseline", own, basis, limits.absolute, only_slower=True, level=min
            ).judge(before, now)


def _is_lost(now: Measurement) -> bool:
    """Whether others took the cores in most of its processes."""
    return 2 * len(now.values("median_ns")) < len(now.processes)


def _figure(measurement: Measurement) -> Figure:
    return "ratio" if measurement.has("ratio") else "median_ns"


def _basis(before: Measurement) -> str:
    """On what the calibrated noise of a benchmark rests, in words."""
    calibration = before.calibration
    assert calibration is not None
    counts = {
        "run": len(calibration.runs), "day": calibration.days, "machine": calibration.machines,
    }  # fmt: skip
    runs, days, machines = (f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items())
    return f"{runs} on {days} and {machines}"


def _noises(measurements: Iterable[Measurement], figure: Figure) -> dict[str, Noise]:
    calibrations = {m.name: m.calibration for m in measurements if m.calibration is not None}
    return estimate(
        {name: calibration.values(figure) for name, calibration in calibrations.items()},
        {name: calibration.processes for name, calibration in calibrations.items()},
        {name: calibration.clusters(figure) for name, calibration in calibrations.items()},
    )


def verdict_of(
    name: str,
    times: Sequence[TimeChange],
    memory: Sequence[MemoryChange] = (),
    counts: Sequence[CountChange] = (),
) -> Verdict:
    """The verdict that findings make, of one time or more; what took turns outweighs what is
    stored."""
    judged = [change for change in times if change.commit is not None] or times
    exact: list[MemoryChange | CountChange] = [*memory, *counts]
    statuses: Sequence[Finding] = ("regressed", "inconclusive", "improved")
    for status in statuses:
        causes = [_explain(change) for change in judged if change.status == status]
        causes += [str(change) for change in exact if change.status == status]
        if causes:
            unknown = status == "inconclusive" and any(map(_is_unknown, judged))
            named: Status = "unjudged" if unknown else status
            return Verdict(name, named, "; ".join(causes), times, memory, counts=counts)
    return Verdict(name, "unchanged", str(judged[0]), times, memory, counts=counts)


def _is_unknown(change: TimeChange) -> bool:
    """Whether the turns left it open so far that the time may have doubled."""
    return (
        change.status == "inconclusive" and change.commit is not None and change.visible >= UNKNOWN
    )


def _explain(change: TimeChange) -> str:
    if change.status != "inconclusive":
        return str(change)
    if abs(change.change) > change.limit:
        return f"{change}: it seems changed"
    return f"{change}: a change of up to {change.visible:.0%} is not excluded"


def memory_changes(before: Measurement, now: Measurement, allowed: int) -> list[MemoryChange]:
    """Bytes of every kind that both have, judged; a change of up to `allowed` is none."""
    return [
        MemoryChange(kind, _finding(size, now.memory[kind], allowed), size, now.memory[kind])
        for kind, size in before.memory.items()
        if kind in now.memory
    ]


def count_changes(before: Measurement, now: Measurement) -> list[CountChange]:
    """Kernel launches, judged, where both were counted: they are exact."""
    if before.launches is None or now.launches is None:
        return []
    status = _finding(before.launches, now.launches)
    return [CountChange("launches", status, before.launches, now.launches)]


def _finding(before: int, now: int, allowed: int = 0) -> Finding:
    if abs(now - before) <= allowed:
        return "unchanged"
    return "regressed" if now > before else "improved"


def _incomparable(before: Measurement, now: Measurement) -> str | None:
    """Why the two cannot be compared, if so."""
    if before.measured != now.measured:
        return "not the same work: " + difference(before.measured, now.measured)
    if before.has("ratio") != now.has("ratio"):
        return "only one of the two has an interleaved reference"
    if lost := before.memory.keys() - now.memory.keys():
        return f"{', '.join(sorted(lost))} was not measured"
    return None


def difference(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """What two descriptions of measured work differ in."""
    return ", ".join(
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    )
