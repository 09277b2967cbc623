"""Noise and limits, against scipy's own statistics."""

import math

import numpy as np
import pytest
from scipy import stats

from perfgate.judge.noise import (
    Noise,
    common_variance,
    estimate,
    run_variance,
    student_quantile,
)


def normal_runs(sd, count, seed):
    return list(np.exp(np.random.default_rng(seed).normal(0, sd, count)))


def test_a_single_benchmarks_noise_is_its_sample_standard_deviation():
    values = normal_runs(0.02, 10, seed=1)
    noise = estimate({"a": values}, {"a": 3})["a"]
    assert noise.sd == pytest.approx(stats.tstd(np.log(values)))
    assert (noise.df, noise.processes) == (9, 3)


@pytest.mark.parametrize("tail", [0.1, 1e-3, 1e-6])
@pytest.mark.parametrize("df", [1, 8, 300, math.inf])
def test_the_quantile_is_scipys(tail, df):
    expected = stats.norm.isf(tail) if math.isinf(df) else stats.t.isf(tail, df)
    assert student_quantile(tail, df) == pytest.approx(expected, rel=1e-6)


def test_benchmarks_alike_are_drawn_together_and_unlike_ones_are_not():
    alike = {f"b{n}": normal_runs(0.02, 6, seed=n) for n in range(20)}
    noises = estimate(alike, dict.fromkeys(alike, 3))
    spread = [noise.sd for noise in noises.values()]
    raw = [stats.tstd(np.log(values)) for values in alike.values()]
    assert np.std(spread) < 0.3 * np.std(raw)
    assert min(noise.df for noise in noises.values()) > 5

    unlike = {f"b{n}": normal_runs(0.001 * 4**n, 20, seed=n) for n in range(6)}
    for name, noise in estimate(unlike, dict.fromkeys(unlike, 3)).items():
        # A factor of a thousand between them: what they have in common tells next to nothing.
        assert noise.sd == pytest.approx(stats.tstd(np.log(unlike[name])), rel=0.3)


def test_the_common_variance_is_found_again():
    # Variances of 5 degrees of freedom, of a scaled inverse chi-squared with 8 around 4.
    random = np.random.default_rng(5)
    true = 8 * 4 / random.chisquare(8, 20_000)
    sampled = true * random.chisquare(5, 20_000) / 5
    common, df = common_variance([(value, 5) for value in sampled])
    assert common == pytest.approx(4, rel=0.03)
    assert df == pytest.approx(8, rel=0.05)


def test_together_they_know_no_more_than_all_their_runs():
    two = {"a": [1.0, 1.02], "b": [1.0, 1.02]}
    assert estimate(two, dict.fromkeys(two, 3))["a"].df == 2


def test_one_run_is_no_calibration():
    assert estimate({"a": [1.0]}, {"a": 3}) == {}


def test_figures_that_never_moved_have_no_noise():
    noise = estimate({"a": [1.0, 1.0, 1.0]}, {"a": 3})["a"]
    assert noise.standard_error(9, 3) == 0


def test_the_error_of_a_difference_holds_both_sides():
    # Of a run of three processes, and of a baseline of thirty.
    noise = Noise(sd=0.01, df=9, processes=3)
    assert noise.standard_error(30, 3) == pytest.approx(0.01 * math.sqrt(3 / 30 + 1))


def test_without_clusters_the_variance_is_that_over_all_runs():
    values = list(np.random.default_rng(3).normal(0, 0.02, 10))
    expected = pytest.approx(np.var(values, ddof=1)), 9
    assert run_variance(values) == expected
    assert run_variance(values, ["day"] * 10) == expected
    assert run_variance(values, range(10)) == expected  # every run on a day of its own


def test_the_variance_between_days_is_that_of_scipys_analysis_of_variance():
    random = np.random.default_rng(4)
    days, runs = 4, 5
    values = random.normal(0, 0.03, (days, 1)) + random.normal(0, 0.01, (days, runs))
    within = np.mean(np.var(values, axis=1, ddof=1))
    between = stats.f_oneway(*values).statistic * within
    parts = [between / runs, (1 - 1 / runs) * within]
    variance, df = run_variance(list(values.ravel()), list(np.repeat(range(days), runs)))
    assert variance == pytest.approx(sum(parts))
    # Welch's formula, which scipy has for two samples, is Satterthwaite's.
    assert df == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 16))
    assert variance > np.var(values, ddof=1)


@pytest.mark.parametrize("sizes", [(5, 5, 5, 5), (10, 3, 3, 2, 2)])
@pytest.mark.parametrize("between", [0.0, 0.005, 0.03])
def test_a_run_on_another_day_is_beyond_the_limit_as_rarely_as_said(sizes, between):
    random = np.random.default_rng(5)
    clusters = np.repeat(range(len(sizes)), sizes)
    beyond = naive = 0
    trials = 1500
    for _ in range(trials):
        values = random.normal(0, between, len(sizes))[clusters] + random.normal(
            0, 0.01, clusters.size
        )
        new = random.normal(0, between) + random.normal(0, 0.01)
        variance, df = run_variance(list(values), list(clusters))
        beyond += new > student_quantile(0.01, df) * math.sqrt(variance)
        variance, df = run_variance(list(values))
        naive += new > student_quantile(0.01, df) * math.sqrt(variance)
    # 1%; with few days somewhat more, because chance may make these alike. Three standard
    # deviations of a count of 1500 are 0.8%.
    assert beyond / trials < 0.025 + 0.008
    assert beyond <= naive


def test_noise_of_several_days_has_their_degrees_of_freedom():
    values = list(np.exp(np.repeat([0.0, 0.1, 0.2], 4) + np.tile([0, 0.001, 0.002, 0.003], 3)))
    noise = estimate({"a": values}, {"a": 3}, {"a": list(np.repeat(range(3), 4))})["a"]
    assert noise.df == pytest.approx(2, rel=0.01)  # three days
    assert noise.sd == pytest.approx(0.1, rel=0.01)
