"""The judgement: a run and its baseline in, a verdict on each benchmark out.

Memory is exact, and judged by what is stored. Stored times clear a benchmark or leave it open, and
accuse nobody: what they leave open is compared with the earlier code itself, in turns, and only
that makes it `regressed` or `improved`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from perfgate.judge.limits import Limits
from perfgate.judge.noise import Noise, estimate
from perfgate.judge.record import Figure, Measurement, Run
from perfgate.judge.rule import Finding, conclude
from perfgate.judge.verdict import (
    AGAINST,
    COMPANIONS,
    NO_ANSWERS,
    Against,
    Answers,
    Status,
    TimeChange,
    Verdict,
    count_changes,
    difference,
    explain,
    memory_changes,
    says_forms,
    verdict_of,
)

# The probability that a stored time leaves open what is unchanged, which costs a comparison in
# turns and accuses nobody.
FALSE_QUESTION = 0.01


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
        # Processes of one run are alike: more of them than were calibrated tell no more of it.
        runs = before.calibration.runs if before.calibration else ()
        is_calibrated = len(earlier) == len(runs) * self.noise.processes
        known = len(earlier) if is_calibrated else min(len(earlier), self.noise.processes)
        error = self.noise.standard_error(known, min(len(values), self.noise.processes))
        found = conclude(
            change,
            error,
            self.noise.df,
            alarm=FALSE_QUESTION,
            least=self.least,
            visible=self.visible,
            only_slower=self.only_slower,
        )
        status: Finding = "unchanged" if found.finding == "unchanged" else "inconclusive"
        return TimeChange(
            self.figure,
            self.against,
            status,
            math.expm1(change),
            math.expm1(found.limit),
            math.expm1(found.possible),
            len(values),
            noise_of=self.basis,
        )


class Judge:
    """Judges the benchmarks of one run by the baseline of its device.

    Args:
        baseline: the last accepted run, which also holds the calibration; None if there is none.
        anchor: the oldest kept one, so that many small losses are seen; None for none.
        limits: name to its limits.
        stranger: why the baseline's time of a benchmark tells nothing here; None where it does.
        strange_anchor: whether the oldest one's time of a benchmark tells nothing here.
    """

    def __init__(
        self,
        baseline: Run | None,
        anchor: Run | None,
        limits: Callable[[Measurement], Limits],
        stranger: Callable[[Measurement], str | None] = lambda measurement: None,
        strange_anchor: Callable[[Measurement], bool] = lambda measurement: False,
    ) -> None:
        self.strange_anchor = strange_anchor
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
            says_forms(
                self._judge(name, current.measurements.get(name), reasons.get(name), answers),
                self.accepted.get(name),
                current.measurements.get(name),
            )
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
            return self._judge_new(name, in_turns, answers)
        if obstacle := _incomparable(before, now):
            return Verdict(name, "incomparable", obstacle)
        memory = memory_changes(before, now, self.limits(now).memory_bytes)
        counts = count_changes(before, now)
        doubt = self._doubt(before, now)
        stored = [] if doubt else list(self._times(before, now))
        asked = self._open(now, doubt, stored)
        answered = {"baseline" if c.against == "base" else c.against for c in in_turns}
        hindered = [
            f"against {AGAINST[a]}: {answers.obstacles[name, a]}"
            for a in asked
            if (name, a) in answers.obstacles
        ]
        if not asked or (answered and (name, "baseline") not in answers.obstacles):
            found = verdict_of(name, [*in_turns, *stored], memory, counts)
            lost = [
                explain(change)
                for change in stored
                if change.status == "inconclusive" and (name, change.against) in answers.obstacles
            ]
            if lost and found.status in ("unchanged", "improved"):
                found = replace(found, status="inconclusive")
            return replace(found, cause="; ".join([found.cause, *lost, *hindered]))
        causes = [explain(change) for change in in_turns]
        if doubt:
            causes.append(doubt + _by_what_is_stored(before, now))
        causes += [explain(change) for change in stored if change.status == "inconclusive"]
        worse = [str(change) for change in (*memory, *counts) if change.status == "regressed"]
        status: Status = "unjudged" if _is_lost(now) and not answered else "inconclusive"
        if worse or any(change.status == "regressed" for change in in_turns):
            status = "regressed"
        return Verdict(
            name,
            status,
            "; ".join([*worse, *causes, *hindered]),
            [*in_turns, *stored],
            memory,
            tuple(asked),
            counts,
        )

    def _judge_new(self, name: str, in_turns: Sequence[TimeChange], answers: Answers) -> Verdict:
        """What has no baseline, by the base if there is one."""
        if in_turns:
            memory, counts = answers.memory.get(name, ()), answers.counts.get(name, ())
            return verdict_of(name, in_turns, memory, counts)
        obstacle = answers.obstacles.get((name, "baseline"))
        if obstacle is not None and name not in answers.lacking:
            return Verdict(name, "unjudged", obstacle)
        return Verdict(name, "no_baseline", obstacle or "store one with: kan-bench accept")

    def _open(
        self, now: Measurement, doubt: str | None, stored: Sequence[TimeChange]
    ) -> list[Against]:
        """With what its code is to be compared, before its time is judged."""
        found: list[Against] = ["baseline"] if doubt else []
        found += [change.against for change in stored if change.status == "inconclusive"]
        oldest = self._oldest_of(now)
        if oldest and (doubt or not self._is_telling(oldest)):
            found.append("anchor")
        return list(dict.fromkeys(found))

    def _oldest_of(self, now: Measurement) -> Measurement | None:
        """The oldest kept measurement of the same work."""
        oldest = self.oldest.get(now.name)
        return oldest if oldest and not _is_other_work(oldest, now) else None

    def _is_telling(self, oldest: Measurement) -> bool:
        """Whether its stored times tell something here."""
        return not self.strange_anchor(oldest) and bool(oldest.values(_figure(oldest)))

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
        noise = self.noises[figure][now.name]
        assert before.calibration is not None  # or there were no noise
        basis = before.calibration.basis
        yield _Comparison(figure, "baseline", noise, basis, limits.ratio, limits.visible).judge(
            before, now
        )
        oldest = self._oldest_of(now)
        if oldest and self._is_telling(oldest):
            allowed, seen = limits.drift, limits.visible_drift
            yield _Comparison(
                figure, "anchor", noise, basis, allowed, seen, only_slower=True
            ).judge(oldest, now)
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


def _noises(measurements: Iterable[Measurement], figure: Figure) -> dict[str, Noise]:
    calibrations = {m.name: m.calibration for m in measurements if m.calibration is not None}
    return estimate(
        {name: calibration.values(figure) for name, calibration in calibrations.items()},
        {name: calibration.processes for name, calibration in calibrations.items()},
        {name: calibration.clusters(figure) for name, calibration in calibrations.items()},
    )


def _by_what_is_stored(before: Measurement, now: Measurement) -> str:
    """The change of stored times, which accuses nobody."""
    figure = _figure(before)
    then, today = before.median(figure), now.median(figure)
    if then is None or today is None:
        return ""
    return f" (stored {COMPANIONS[figure]} {today / then - 1:+.0%})"


def _incomparable(before: Measurement, now: Measurement) -> str | None:
    """Why the two cannot be compared, if so."""
    if other := _is_other_work(before, now):
        return other
    lost = sorted(before.memory.keys() - now.memory.keys())
    if before.launches is not None and now.launches is None:
        lost.append("launches")
    return f"{', '.join(lost)} was not measured" if lost else None


def _is_other_work(before: Measurement, now: Measurement) -> str | None:
    """Why their times are of different work, if so."""
    if before.measured != now.measured:
        return "not the same work: " + difference(before.measured, now.measured)
    if before.has("ratio") != now.has("ratio"):
        return "only one of the two has an interleaved reference"
    return None
