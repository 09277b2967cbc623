"""Pairs of processes, one after another, until each benchmark is decided.

Each pair of fresh processes, one of either revision, says of a benchmark how much longer the one
takes than the other. After every pair the benchmarks that are not decided yet are judged by all
their pairs; what is decided is measured no further. The probabilities of errors are shared among
the looks and the benchmarks (Bonferroni), so that looking often does not add to them. Two pairs
alone know little of their noise: the benchmarks of a suite are drawn together as far as they are
alike (`noise.estimate`). Where they are less alike than few pairs tell, that noise is too small, so
that a change must also show in fresh pairs that had no part in finding it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from perfgate.judge.noise import Noise, estimate
from perfgate.judge.rule import MISS, Conclusion, conclude

# One pair tells nothing of the noise.
FEWEST_PAIRS = 2
# So many pairs come after those that found a change, and must show such a part of its limit.
CONFIRMING_PAIRS = 2
CONFIRMED_PART = 2 / 3
# Fewer than these can call nothing changed.
LEAST_PAIRS = FEWEST_PAIRS + CONFIRMING_PAIRS
# With fewer pairs, the noise is not known well enough to give up, and none may have been left in
# peace yet.
LEAST_BEFORE_GIVING_UP = 4
# Twelve find 5% where single pairs of identical code differ by 2% (docs/trust.md).
MOST_PAIRS = 12


@dataclass(frozen=True)
class Goal:
    """What is asked of a benchmark; relative changes as in `limits.Limits`."""

    least: float
    visible: float
    only_slower: bool = False


@dataclass(frozen=True)
class Decision:
    """What the pairs of a benchmark say together.

    Args:
        change: mean over the pairs of the logarithm of the time's factor.
        conclusion: what follows.
        pairs: how many there are.
        noise: standard deviation of one pair's logarithm.
        is_hopeless: even the most pairs, as noisy as these, would decide nothing.
    """

    change: float
    conclusion: Conclusion
    pairs: int
    noise: float = 0.0
    is_hopeless: bool = False

    @property
    def is_open(self) -> bool:
        """Whether more pairs are worth their time."""
        return self.conclusion.finding == "inconclusive" and not self.is_hopeless


def decide(
    factors: Mapping[str, Sequence[float]],
    goals: Mapping[str, Goal],
    false_alarm: float,
    most_pairs: int = MOST_PAIRS,
) -> dict[str, Decision]:
    """Judge all benchmarks by the pairs that there are; those with one pair only are left out.

    Args:
        factors: name to the time over the other revision's, of each pair.
        goals: name to what is asked of it.
        false_alarm: the probability that identical code is called changed in any benchmark.
        most_pairs: how many pairs there may be; each of them is a look.
    """
    looks = max(1, most_pairs - FEWEST_PAIRS + 1)
    alarm = false_alarm / (looks * max(1, len(factors)))
    noises = {
        name: _at_least_its_own(noise, factors[name])
        for name, noise in estimate(factors, dict.fromkeys(factors, 1)).items()
    }
    return {
        name: _with_outlook(
            _confirmed(factors[name], noise, goals[name], alarm, MISS / looks),
            goals[name],
            alarm,
            MISS / looks,
            most_pairs,
        )
        for name, noise in noises.items()
    }


def _at_least_its_own(noise: Noise, factors: Sequence[float]) -> Noise:
    """The noise, and no less than the benchmark's own pairs show: one noisy benchmark among quiet
    ones is not like them, and two pairs do not tell that."""
    return replace(noise, sd=max(noise.sd, statistics.stdev(map(math.log, factors))))


def _confirmed(
    factors: Sequence[float], noise: Noise, goal: Goal, alarm: float, miss: float
) -> Decision:
    """The decision of all pairs; a change only if the last ones confirm what the first ones say."""
    decision = _decision(factors, noise, goal, alarm, miss)
    found = decision.conclusion.finding
    if found not in ("regressed", "improved"):
        return decision
    first, last = factors[:-CONFIRMING_PAIRS], factors[-CONFIRMING_PAIRS:]
    if len(first) >= FEWEST_PAIRS:
        seen = _decision(first, noise, goal, alarm, miss).conclusion.finding
        shown = math.copysign(1, decision.change) * _mean_log(last)
        if seen == found and shown > CONFIRMED_PART * decision.conclusion.limit:
            return decision
    return replace(decision, conclusion=replace(decision.conclusion, finding="inconclusive"))


def _with_outlook(
    decision: Decision, goal: Goal, alarm: float, miss: float, most_pairs: int
) -> Decision:
    """The decision, given up where the most pairs would leave it as it is: their mean may still
    be either none or what it is now, and their noise is taken for known, which favours going on."""
    if decision.pairs < LEAST_BEFORE_GIVING_UP or decision.conclusion.finding != "inconclusive":
        return decision
    error = decision.noise / math.sqrt(most_pairs)
    outlooks = (
        conclude(
            change,
            error,
            math.inf,
            alarm=alarm,
            miss=miss,
            least=goal.least,
            visible=goal.visible,
            only_slower=goal.only_slower,
        ).finding
        for change in (0.0, decision.change)
    )
    return replace(decision, is_hopeless=all(found == "inconclusive" for found in outlooks))


def _decision(
    factors: Sequence[float], noise: Noise, goal: Goal, alarm: float, miss: float
) -> Decision:
    change = _mean_log(factors)
    error = noise.sd / math.sqrt(len(factors))
    conclusion = conclude(
        change,
        error,
        noise.df,
        alarm=alarm,
        miss=miss,
        least=goal.least,
        visible=goal.visible,
        only_slower=goal.only_slower,
    )
    return Decision(change, conclusion, len(factors), noise.sd)


def _mean_log(factors: Sequence[float]) -> float:
    return statistics.fmean(map(math.log, factors))
