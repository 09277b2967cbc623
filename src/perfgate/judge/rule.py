"""The rule by which a measured change becomes a finding; pure numbers in, a named finding out.

A change is called one where it is beyond what unchanged code exceeds hardly ever. `unchanged` is a
claim of its own: a change worth seeing is excluded. Between the two nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from perfgate.judge.noise import student_quantile

Finding = Literal["improved", "unchanged", "regressed", "inconclusive"]

# A change that is worth seeing is called `unchanged` with at most this probability.
MISS = 0.02


@dataclass(frozen=True)
class Conclusion:
    """What follows from a change.

    Args:
        finding: the name of it.
        limit: what unchanged code exceeds hardly ever, as a difference of logarithms.
        possible: the largest change that is not excluded, up or down; where only slower counts, up.
    """

    finding: Finding
    limit: float
    possible: float


def conclude(
    change: float,
    error: float,
    df: float,
    *,
    alarm: float,
    miss: float = MISS,
    least: float,
    visible: float,
    only_slower: bool = False,
) -> Conclusion:
    """Name a change.

    Args:
        change: measured, as a difference of logarithms; positive is slower.
        error: its standard error.
        df: degrees of freedom of the error.
        alarm: the probability that unchanged code is called changed, in either direction.
        miss: the probability that a change of `visible` is called unchanged.
        least: no smaller relative change is called one, however precisely it was measured.
        visible: the relative change that must be excluded for `unchanged`; infinite for any.
        only_slower: a gain is no finding.
    """
    limit = max(math.log1p(least), student_quantile(alarm / 2, df) * error)
    size = change if only_slower else abs(change)
    possible = max(0.0, size + student_quantile(miss, df) * error)
    finding: Finding = "inconclusive"
    if change > limit:
        finding = "regressed"
    elif change < -limit and not only_slower:
        finding = "improved"
    elif possible < math.log1p(visible):
        finding = "unchanged"
    return Conclusion(finding, limit, possible)
