"""How much a figure moves when nothing changes.

All changes are differences of logarithms, so that twice and half as long are equally far.
The noise of a figure is its standard deviation over repetitions of identical code: over runs where
a stored baseline is compared, over pairs of processes where two revisions take turns. That also
holds what differs between repetitions but not within one. scipy gives the special functions.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Noise:
    """The noise of a figure.

    Args:
        sd: standard deviation of the logarithm of one repetition's figure.
        df: degrees of freedom of that estimate.
        processes: number of processes that one repetition has.
    """

    sd: float
    df: float
    processes: int = 1

    def standard_error(self, baseline: int, current: int) -> float:
        """That of the difference of two figures, by their numbers of processes."""
        return self.sd * math.sqrt(self.processes * (1 / baseline + 1 / current))


def student_quantile(tail: float, df: float) -> float:
    """What Student's t exceeds with probability `tail`."""
    from scipy.special import ndtri, stdtrit

    return float(-ndtri(tail) if math.isinf(df) else -stdtrit(df, tail))


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
