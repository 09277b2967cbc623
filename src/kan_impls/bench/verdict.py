"""The judgement: measurements, their noise and limits in, named verdicts out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kan_impls.bench.limits import Limits
from kan_impls.bench.noise import ASSUMED, Noise, estimate
from kan_impls.bench.record import Figure, Measurement, Process, Run, Which

Status = Literal[
    "improved", "unchanged", "regressed", "inconclusive", "no_baseline", "missing", "incomparable"
]
# What one comparison can say.
Finding = Literal["improved", "unchanged", "regressed", "inconclusive"]
Against = Literal["baseline", "anchor"]

# The probability that a run of unchanged code has any false alarm.
FALSE_ALARM = 0.01

# Of each benchmark: ratio, time and the oldest baseline, up and down, with one or two fresh runs.
COMPARISONS = 3 * 2 * 2

COMPANIONS: Mapping[Figure, str] = {"ratio": "time over reference", "median_ns": "time"}


@dataclass(frozen=True)
class TimeChange:
    """One figure compared with an earlier one. Changes are relative: 0.1 is 10% slower.

    Args:
        figure: what is compared.
        against: the last accepted baseline, or the oldest kept one.
        status: what follows.
        change: of all processes.
        confirmed: of the fresh processes alone; None where there are none.
        limit: what unchanged code exceeds hardly ever.
        visible: the smallest change that would be seen with 95% probability.
        processes: how many processes of this run count.
        further_runs: how many more runs would decide; None where none are needed or none help.
        calibrated: whether the noise was measured, or is assumed.
    """

    figure: Figure
    against: Against
    status: Finding
    change: float
    confirmed: float | None
    limit: float
    visible: float
    processes: int
    further_runs: int | None = None
    calibrated: bool = True

    def __str__(self) -> str:
        text = f"{COMPANIONS[self.figure]} {self.change:+.1%} (limit {self.limit:.1%}"
        if self.confirmed is not None:
            text += f", fresh processes {self.confirmed:+.1%}"
        text += ", not calibrated)" if not self.calibrated else ")"
        return text if self.against == "baseline" else f"{text} since the oldest baseline"


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
class Verdict:
    """A named judgement on one benchmark.

    Args:
        name: pytest's node id.
        status: the judgement.
        cause: why, in one line.
        times, memory: all that was compared.
        further_runs: how many more runs would decide what is inconclusive; None where none are
            needed or no sensible number helps.
    """

    name: str
    status: Status
    cause: str
    times: Sequence[TimeChange] = ()
    memory: Sequence[MemoryChange] = ()
    further_runs: int | None = None


@dataclass(frozen=True)
class _Comparison:
    """The same for all comparisons of a figure of one benchmark."""

    figure: Figure
    against: Against
    noise: Noise
    false_alarm: float
    least: float
    wanted: float = math.inf
    only_slower: bool = False
    level: Callable[[Sequence[float]], float] | None = None

    def judge(self, before: Measurement, now: Measurement) -> TimeChange:
        """Compare; a change must show in the first processes and in fresh ones."""
        earlier = before.values(self.figure) or [before.median(self.figure) or 1.0]
        reference = statistics.median(earlier)
        first, fresh = now.values(self.figure, "first"), now.values(self.figure, "confirming")
        values = [*first, *fresh]
        change, limit = self._change(values, reference), self._limit(len(earlier), len(values))
        visible = self.noise.visible(limit, len(earlier), len(values))
        sides = [self._side(self._change(first, reference), self._limit(len(earlier), len(first)))]
        confirmed = None
        if fresh:
            confirmed = self._change(fresh, reference)
            sides.append(self._side(confirmed, self._limit(len(earlier), len(fresh))))

        status: Finding = "unchanged"
        further = None
        if any(sides):
            status = "inconclusive"
            if fresh and sides[0] == sides[1]:
                status = "regressed" if sides[0] > 0 else "improved"
            else:
                further = self._further(abs(change), earlier, values) if fresh else 1
        elif visible > math.log1p(self.wanted):
            status = "inconclusive"
            further = self._further(math.log1p(self.wanted), earlier, values)
        return TimeChange(
            self.figure, self.against, status, math.expm1(change),
            None if confirmed is None else math.expm1(confirmed),
            math.expm1(limit), math.expm1(visible), len(values), further, self.noise.calibrated,
        )  # fmt: skip

    def _change(self, values: Sequence[float], reference: float) -> float:
        # The noise of pairs is that of single ones, which Student's t knows for their mean; that of
        # processes is that of a run's median itself.
        of_pairs = self.noise.pairs is not None
        level = self.level or (statistics.geometric_mean if of_pairs else statistics.median)
        return math.log(level(values) / reference)

    def _limit(self, earlier: int, values: int) -> float:
        return max(math.log1p(self.least), self.noise.limit(self.false_alarm, earlier, values))

    def _side(self, change: float, limit: float) -> int:
        if change > limit:
            return 1
        return -1 if change < -limit and not self.only_slower else 0

    def _further(self, wanted: float, earlier: Sequence[float], now: Sequence[float]) -> int | None:
        return self.noise.further_runs(
            self.false_alarm, math.log1p(self.least), wanted, len(earlier), len(now)
        )


class Judge:
    """Judges the benchmarks of one run by the baseline of its device.

    Args:
        baseline: the last accepted run, which also holds the calibration; None if there is none.
        anchor: the oldest kept one, so that many small losses are seen; None for none.
        limits: name to its limits.
        false_alarm: the probability that a run of unchanged code has any false alarm.
        pairs: number of pairs of a run, if the figures are those of this run over those of the
            baseline, taken in turns: the baseline is 1, exactly.
    """

    def __init__(
        self,
        baseline: Run | None,
        anchor: Run | None,
        limits: Callable[[Measurement], Limits],
        false_alarm: float = FALSE_ALARM,
        pairs: int | None = None,
    ) -> None:
        self.accepted = baseline.measurements if baseline else {}
        self.oldest = anchor.measurements if anchor else {}
        self.limits = limits
        self.false_alarm = false_alarm
        self.noises = {
            figure: _noises(self.accepted.values(), figure, pairs) for figure in COMPANIONS
        }

    def judge_run(
        self, current: Run, absent: Mapping[str, str] | None = None, left_out: Iterable[str] = ()
    ) -> list[Verdict]:
        """Judge every benchmark of the run or of its baseline.

        Args:
            current: this run.
            absent: name to reason, of benchmarks that were collected and did not measure.
            left_out: names that the user left out of this run on purpose; these are not missing.
        """
        skipped = set(left_out)
        names = [
            name
            for name in {**self.accepted, **current.measurements}
            if name in current.measurements or name not in skipped
        ]
        # Bonferroni's correction: each benchmark is compared in so many ways.
        compared = max(1, len(current.measurements.keys() & self.accepted))
        each = self.false_alarm / (COMPARISONS * compared)
        reasons = absent or {}
        return [
            self._judge(name, current.measurements.get(name), each, reasons.get(name))
            for name in names
        ]

    def _judge(
        self, name: str, now: Measurement | None, false_alarm: float, absent_because: str | None
    ) -> Verdict:
        before = self.accepted.get(name)
        if now is None:
            reason = absent_because or "this run does not have it"
            return Verdict(name, "missing", f"in the baseline, but {reason}")
        if before is None:
            return Verdict(name, "no_baseline", "store one with: kan-bench accept")
        if obstacle := _incomparable(before, now):
            return Verdict(name, "incomparable", obstacle)
        limits = self.limits(now)
        memory = [
            _memory_change(kind, size, now.memory[kind], limits.memory_bytes)
            for kind, size in before.memory.items()
        ]
        figure: Figure = "ratio" if before.has("ratio") else "median_ns"
        if any(
            2 * len(now.values(figure, which)) < len(measured) for which, measured in _parts(now)
        ):
            return self._disturbed(now, memory)
        times = list(self._times(figure, before, now, limits, false_alarm))
        return _verdict(now, times, memory)

    def _noise(self, figure: Figure, name: str) -> Noise:
        return self.noises[figure].get(name, ASSUMED)

    def _times(
        self, figure: Figure, before: Measurement, now: Measurement, limits: Limits, alarm: float
    ) -> Iterable[TimeChange]:
        noise = self._noise(figure, now.name)
        if figure != "median_ns":
            yield _Comparison(figure, "baseline", noise, alarm, limits.ratio, limits.visible).judge(
                before, now
            )
            oldest = self.oldest.get(now.name)
            if oldest and oldest.has(figure) and not _incomparable(oldest, now):
                yield _Comparison(
                    figure, "anchor", noise, alarm, limits.drift, only_slower=True
                ).judge(oldest, now)
        # A ratio hides what slows the reference as well. The fastest process tells a slower
        # program from a machine that is sometimes slow.
        yield _Comparison(
            "median_ns", "baseline", self._noise("median_ns", now.name), alarm, limits.absolute,
            only_slower=figure != "median_ns", level=min,
        ).judge(before, now)  # fmt: skip

    def _disturbed(self, now: Measurement, memory: Sequence[MemoryChange]) -> Verdict:
        cause = f"the machine was busy: {now.disturbed} of {now.rounds + now.disturbed} rounds lost"
        worse = [str(change) for change in memory if change.status == "regressed"]
        status: Status = "regressed" if worse else "inconclusive"
        return Verdict(
            now.name, status, "; ".join([*worse, cause]), memory=memory,
            further_runs=None if worse else 1,
        )  # fmt: skip


def _parts(now: Measurement) -> Sequence[tuple[Which, Sequence[Process]]]:
    """The runs of which at least half of the processes must be clean."""
    return (("first", now.processes), ("confirming", now.confirming))


def _noises(
    measurements: Iterable[Measurement], figure: Figure, pairs: int | None
) -> dict[str, Noise]:
    calibrations = {m.name: m.calibration for m in measurements if m.calibration is not None}
    noises = estimate(
        {name: calibration.values(figure) for name, calibration in calibrations.items()},
        {name: calibration.processes for name, calibration in calibrations.items()},
        {name: calibration.clusters(figure) for name, calibration in calibrations.items()},
    )
    return {name: replace(noise, pairs=pairs) for name, noise in noises.items()}


def _verdict(
    now: Measurement, times: Sequence[TimeChange], memory: Sequence[MemoryChange]
) -> Verdict:
    for status in ("regressed", "inconclusive", "improved"):
        memory_causes = [str(change) for change in memory if change.status == status]
        causes = [_explain(change) for change in times if change.status == status]
        if causes or memory_causes:
            further = [t.further_runs for t in times if t.further_runs and status == t.status]
            return Verdict(
                now.name, status, "; ".join([*causes, *memory_causes]), times, memory,
                max(further, default=None),
            )  # fmt: skip
    return Verdict(now.name, "unchanged", str(times[0]), times, memory)


def _explain(change: TimeChange) -> str:
    if change.status != "inconclusive":
        return str(change)
    if abs(change.change) <= change.limit and (change.confirmed is None):
        text = f"{change}: too noisy, only beyond {change.visible:.0%} would be seen"
    else:
        text = f"{change}: not clear"
    if change.further_runs is None:
        return f"{text}; no sensible number of further runs decides: measure on a quieter machine"
    plural = "s" if change.further_runs > 1 else ""
    return f"{text}; {change.further_runs} further run{plural} would decide"


def _memory_change(kind: str, before: int, now: int, allowed: int) -> MemoryChange:
    status: Finding = "unchanged"
    if now - before > allowed:
        status = "regressed"
    elif before - now > allowed:
        status = "improved"
    return MemoryChange(kind, status, before, now)


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
