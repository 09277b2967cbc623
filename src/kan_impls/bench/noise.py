"""How much a figure moves when nothing changes, and what follows for a limit.

All changes are differences of logarithms, so that twice and half as long are equally far.
A figure of a run is the median over its processes; its noise is the standard deviation of that
figure over runs of identical code, which also holds what differs between runs but not between
the processes of one. A change counts when a first run and a fresh one both exceed the limit, so the
limit is that of the pair. scipy gives the special functions.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

# A change is to be seen with this probability, where it is called visible: by the first run and by
# the fresh one.
POWER = 0.95

# From so many degrees of freedom on the normal distribution is as good.
MANY = 200

# More further runs than this are no advice.
MOST_RUNS = 50


@dataclass(frozen=True)
class Noise:
    """The noise of a figure.

    Args:
        sd: standard deviation of the logarithm of a run's figure.
        df: degrees of freedom of that estimate.
        processes: number of processes of a run that it holds for.
        calibrated: whether it was measured on this benchmark, or is assumed.
        pairs: number of pairs of a run, where the figure of a pair of processes is itself a
            comparison, to which the baseline adds no noise; None where it is not.
    """

    sd: float
    df: float
    processes: int
    calibrated: bool = True
    pairs: int | None = None

    def standard_error(self, baseline: int, current: int) -> float:
        """That of the difference of two figures, by their numbers of processes."""
        of_baseline = 1 / baseline if self.pairs is None else 0.0
        return self.sd * math.sqrt(self.processes * (of_baseline + 1 / current))

    def limit(self, false_alarm: float, baseline: int, current: int) -> float:
        """What the differences of a run and of a fresh one both exceed with probability
        `false_alarm` if nothing changed."""
        shared = 0.0 if self.pairs else current / (baseline + current)
        factor = confirmed_quantile(false_alarm, self.df, shared)
        return factor * self.standard_error(baseline, current)

    def visible(self, limit: float, baseline: int, current: int) -> float:
        """The smallest change of which both exceed `limit` with probability `POWER`."""
        margin = student_quantile(1 - POWER**0.5, self.df)
        return limit + margin * self.standard_error(baseline, current)

    def further_runs(
        self, false_alarm: float, least: float, wanted: float, baseline: int, current: int
    ) -> int | None:
        """How many more runs make a change of `wanted` visible; None for more than is sensible.

        Args:
            false_alarm: probability of a false alarm of this comparison.
            least: no limit is below.
            wanted: the change, as a difference of logarithms.
            baseline, current: numbers of processes so far.
        """
        for runs in range(1, MOST_RUNS + 1):
            more = runs * (self.pairs or self.processes)
            # The noise of pairs is known from the pairs themselves, and better with more of them.
            noise = replace(self, df=self.df + more) if self.pairs else self
            limit = max(least, noise.limit(false_alarm, baseline, current + more))
            if noise.visible(limit, baseline, current + more) <= wanted:
                return runs
        return None


# Of a benchmark that was never calibrated. On a shared 2-core machine the ratio of single
# processes to a reference differed by up to 6.6% beyond 3%; with few degrees of freedom, because
# it is a guess.
ASSUMED = Noise(sd=0.03, df=6, processes=1, calibrated=False)


def student_quantile(tail: float, df: float) -> float:
    """What Student's t exceeds with probability `tail`."""
    from scipy.special import ndtri, stdtrit

    return float(-ndtri(tail) if math.isinf(df) else -stdtrit(df, tail))


def confirmed_tail(value: float, df: float, shared: float) -> float:
    """The probability that two figures both exceed `value`, in units of their standard error.

    They have a part `shared` of their variance in common, that of the baseline, and the estimate of
    that variance, of `df` degrees of freedom: a bivariate Student's t. Given both of these they are
    independent; what remains are two integrals, by Gauss's rules.
    """
    import numpy as np
    from scipy.special import ndtr

    common, weights = _hermite()
    estimates, chances = _chi(df)
    deviation = np.multiply.outer(estimates, np.full_like(common, value))
    beyond = ndtr(-(deviation - math.sqrt(shared) * common) / math.sqrt(1 - shared)) ** 2
    return float(chances @ beyond @ weights)


@cache
def _hermite() -> tuple[Any, Any]:
    """Nodes and weights of the standard normal distribution."""
    import numpy as np
    from scipy.special import roots_hermitenorm

    nodes, weights = roots_hermitenorm(40)
    return nodes, weights / np.sum(weights)


@cache
def _chi(df: float) -> tuple[Any, Any]:
    """Nodes and weights of an estimated standard deviation over the true one."""
    import numpy as np
    from scipy.special import roots_genlaguerre

    if math.isinf(df) or df > MANY:
        return np.ones(1), np.ones(1)
    nodes, weights = roots_genlaguerre(60, df / 2 - 1)
    return np.sqrt(2 * nodes / df), weights / np.sum(weights)


@cache
def confirmed_quantile(tail: float, df: float, shared: float) -> float:
    """What two figures both exceed with probability `tail`; see `confirmed_tail`."""
    from scipy.optimize import brentq

    highest = student_quantile(tail, df)  # what one alone exceeds as rarely
    return float(brentq(lambda value: confirmed_tail(value, df, shared) - tail, 0, highest))


def estimate(
    runs: Mapping[str, Sequence[float]],
    processes: Mapping[str, int],
    clusters: Mapping[str, Sequence[Hashable]] | None = None,
) -> dict[str, Noise]:
    """The noise of each benchmark, from its figures in runs of identical code.

    With few runs each estimate is itself uncertain; benchmarks of one suite on one machine are
    alike, so each is drawn towards what they have in common, as far as their spread allows.

    Args:
        runs: name to figures, of at least two runs each (others are left out).
        processes: name to number of processes of a run.
        clusters: name to the day and machine of each figure; one for all if None.

    Source: Smyth, *Linear Models and Empirical Bayes Methods* (2004), section 6.2.
    """
    logs = {name: [math.log(value) for value in values] for name, values in runs.items()}
    variances = {
        name: run_variance(values, (clusters or {}).get(name))
        for name, values in logs.items()
        if len(values) >= 2
    }
    common, weight = common_variance(variances.values())
    known = sum(df for _, df in variances.values())
    noises = {}
    for name, (variance, df) in variances.items():
        share = 1.0 if math.isinf(weight) else weight / (weight + df)
        pooled = share * common + (1 - share) * variance
        # All estimates together know no more than the sum of what each knows.
        noises[name] = Noise(math.sqrt(pooled), min(weight + df, known), processes[name])
    return noises


def run_variance(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """The variance of a run on any day and machine, and the degrees of freedom of that estimate.

    Runs of one day and machine may be alike. The variances between and within such clusters add
    up to that of a run in a new one; few clusters know it poorly. It is what counts where it is
    larger than the variance over all runs, which takes each of them for a sample of its own.

    Args:
        values: logarithms of the figures of at least two runs.
        clusters: the day and machine of each; one for all if None.

    Source: Searle, Casella, McCulloch, *Variance Components* (1992), section 3.6, for clusters of
    different sizes; Satterthwaite (1946) for the degrees of freedom of a sum.
    """
    over_all = statistics.variance(values), float(len(values) - 1)
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters or [None] * len(values), strict=True):
        members.setdefault(cluster, []).append(value)
    between_df, within_df = len(members) - 1, len(values) - len(members)
    if between_df < 1 or within_df < 1:
        return over_all
    mean = statistics.fmean(values)
    between = within = 0.0
    for group in members.values():
        centre = statistics.fmean(group)
        between += len(group) * (centre - mean) ** 2 / between_df
        within += sum((value - centre) ** 2 for value in group) / within_df
    size = (len(values) - sum(len(group) ** 2 for group in members.values()) / len(values)) / (
        between_df
    )
    parts = [(between / size, between_df), ((1 - 1 / size) * within, within_df)]
    total = sum(part for part, _ in parts)
    if total <= over_all[0]:
        return over_all
    return total, total**2 / sum(part**2 / df for part, df in parts)


def common_variance(estimates: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The variance that estimates `(variance, df)` have in common, and its degrees of freedom.

    Infinite degrees if they differ no more than by chance; 0 if there is one only. Estimates of
    zero say that a figure did not move at all, and are left out.
    """
    from scipy.special import polygamma, psi

    known = [(variance, df) for variance, df in estimates if variance > 0]
    if len(known) < 2:
        return (known[0][0] if known else 0.0), 0.0
    # The logarithm of s^2 is that of the common variance, plus an error of known distribution.
    shifted = [math.log(v) - float(psi(df / 2)) + math.log(df / 2) for v, df in known]
    mean = statistics.fmean(shifted)
    chance = statistics.fmean(float(polygamma(1, df / 2)) for _, df in known)
    excess = statistics.variance(shifted) - chance
    if excess <= 0:
        return math.exp(mean), math.inf
    prior = 2 * _inverse_trigamma(excess)
    return math.exp(mean + float(psi(prior / 2)) - math.log(prior / 2)), prior


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = value > 0, by Newton's method on 1 / trigamma, which is convex."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-12 * x:
            break
    return x
