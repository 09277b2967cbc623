"""Noise and limits, against scipy's own statistics."""

import math

import numpy as np
import pytest
from scipy import stats

from kan_impls.bench.noise import (
    ASSUMED,
    Noise,
    common_variance,
    confirmed_quantile,
    confirmed_tail,
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
    assert (noise.df, noise.processes, noise.calibrated) == (9, 3, True)


def bivariate(value, df, shared):
    """Both of two t-distributed figures exceed `value`, by scipy's own integration."""
    correlated = [[1, shared], [shared, 1]]
    return stats.multivariate_t.cdf(
        [-value, -value], shape=correlated, df=df, maxpts=200_000,
        random_state=np.random.default_rng(0),
    )  # fmt: skip


@pytest.mark.parametrize(("df", "shared"), [(2, 0), (5, 0.1), (9, 0.5), (30, 0.05)])
@pytest.mark.parametrize("value", [0.5, 2.0, 4.0])
def test_the_probability_of_a_confirmed_alarm_is_scipys(value, df, shared):
    # Gauss's rule is poorest where the noise is hardly known: 7% of a probability, 2% of a limit.
    expected = bivariate(value, df, shared)
    assert confirmed_tail(value, df, shared) == pytest.approx(
        expected, rel=0.07 if df == 2 else 3e-3
    )


@pytest.mark.parametrize("shared", [0, 0.2])
def test_with_a_known_noise_it_is_that_of_two_normal_figures(shared):
    both = stats.multivariate_normal([0, 0], [[1, shared], [shared, 1]])
    expected = both.cdf([-2, -2])
    assert confirmed_tail(2, math.inf, shared) == pytest.approx(expected, rel=1e-4)
    if not shared:
        assert expected == pytest.approx(stats.norm.sf(2) ** 2, rel=1e-3)


@pytest.mark.parametrize("tail", [0.1, 1e-3, 1e-5])
@pytest.mark.parametrize("df", [1, 8, math.inf])
def test_the_quantile_is_where_the_tail_is(tail, df):
    value = confirmed_quantile(tail, df, 0.1)
    assert confirmed_tail(value, df, 0.1) == pytest.approx(tail, rel=1e-6)
    assert 0 < value < student_quantile(tail, df)


def test_of_identical_code_as_many_alarms_are_confirmed_as_were_allowed():
    random = np.random.default_rng(3)
    alarms = 0
    for row in random.normal(0, 0.015, (4000, 12)):
        noise = estimate({"a": list(np.exp(row[:10]))}, {"a": 1})["a"]
        limit = noise.limit(0.05, baseline=10, current=1)
        alarms += all(figure - row[:10].mean() > limit for figure in row[10:])
    # Three standard deviations of a count of 4000 times 5%.
    assert abs(alarms - 200) < 3 * math.sqrt(4000 * 0.05 * 0.95)


def test_a_change_of_the_visible_size_is_found_with_its_probability():
    random = np.random.default_rng(4)
    noise = Noise(sd=0.01, df=math.inf, processes=1)
    limit = noise.limit(0.01, 1000, 1)
    visible = noise.visible(limit, 1000, 1)
    runs = visible + random.normal(0, noise.standard_error(1000, 1), (20_000, 2))
    assert np.mean((runs > limit).all(axis=1)) == pytest.approx(0.95, abs=0.005)


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
    assert not ASSUMED.calibrated


def test_figures_that_never_moved_have_no_noise():
    noise = estimate({"a": [1.0, 1.0, 1.0]}, {"a": 3})["a"]
    assert noise.limit(0.01, 9, 3) == 0


@pytest.mark.parametrize("pairs", [None, 4])
def test_the_baseline_of_a_paired_comparison_is_exact(pairs):
    noise = Noise(sd=0.01, df=9, processes=1, pairs=pairs)
    expected = 0.01 * math.sqrt(1 / 4 + (0 if pairs else 1 / 10))
    assert noise.standard_error(10, 4) == pytest.approx(expected)


def test_further_pairs_also_tell_more_of_the_noise():
    noise = Noise(sd=0.01, df=2, processes=1, pairs=4)
    fixed = Noise(sd=0.01, df=2, processes=1)
    assert noise.further_runs(0.001, 0.02, 0.05, 1, 3) == 1
    assert fixed.further_runs(0.001, 0.02, 0.05, 10**9, 3) > 1


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
