"""The rule that names a change, against its own promises."""

import math

import numpy as np
import pytest
from scipy import stats

from perfgate.judge.rule import conclude

USUAL = {"alarm": 0.01, "miss": 0.02, "least": 0.02, "visible": 0.10}


def name_of(change, error, df=math.inf, **changes):
    return conclude(math.log1p(change), error, df, **{**USUAL, **changes}).finding


@pytest.mark.parametrize(
    ("change", "error", "finding"),
    [
        (0.0, 0.01, "unchanged"),
        (0.05, 0.01, "regressed"),
        (-0.05, 0.01, "improved"),
        # However precisely it was measured, another layout of the same code moves it by as much.
        (0.015, 0.0001, "unchanged"),
        # What could be a tenth is not unchanged, and what could be none is not changed.
        (0.04, 0.03, "inconclusive"),
        (0.0, 0.05, "inconclusive"),
        (0.09, 0.04, "inconclusive"),
    ],
)
def test_a_change_and_its_error_have_a_name(change, error, finding):
    assert name_of(change, error) == finding


def test_a_gain_may_be_no_finding():
    assert name_of(-0.3, 0.01, only_slower=True) == "unchanged"
    assert name_of(0.3, 0.01, only_slower=True) == "regressed"


def test_without_a_size_worth_seeing_nothing_is_excluded():
    assert name_of(0.0, 1.0, visible=math.inf) == "unchanged"


@pytest.mark.parametrize("df", [2, 9, math.inf])
def test_the_limit_is_students(df):
    found = conclude(0.0, 0.01, df, **{**USUAL, "least": 0.0})
    expected = stats.t.isf(0.005, df) if df < math.inf else stats.norm.isf(0.005)
    assert found.limit == pytest.approx(0.01 * expected)


def test_errors_are_as_rare_as_promised():
    random = np.random.default_rng(0)
    names = {}
    for true in (0.0, math.log1p(0.10)):
        # An estimate of 8 degrees of freedom of a true error of 3%.
        errors = 0.03 * np.sqrt(random.chisquare(8, 20_000) / 8)
        changes = random.normal(true, 0.03, 20_000)
        names[true] = [
            conclude(c, e, 8, **{**USUAL, "alarm": 0.05, "miss": 0.05}).finding
            for c, e in zip(changes, errors, strict=True)
        ]
    alarms = np.mean([name in ("regressed", "improved") for name in names[0.0]])
    assert alarms == pytest.approx(0.05, abs=0.005)
    # Below its promise: a change that is called one is not called unchanged.
    assert np.mean([name == "unchanged" for name in names[math.log1p(0.10)]]) <= 0.05
