"""Noise and limits, against scipy's own statistics."""

import math

import numpy as np
import pytest
from scipy import stats

from kan_impls.bench.noise import ASSUMED, Noise, common_variance, estimate


def normal_runs(sd, count, seed):
    return list(np.exp(np.random.default_rng(seed).normal(0, sd, count)))


def test_a_single_benchmarks_noise_is_its_sample_standard_deviation():
    values = normal_runs(0.02, 10, seed=1)
    noise = estimate({"a": values}, {"a": 3})["a"]
    assert noise.sd == pytest.approx(stats.tstd(np.log(values)))
    assert (noise.df, noise.processes, noise.calibrated) == (9, 3, True)


def test_the_limit_is_that_of_scipys_prediction_interval():
    # One more run of the same kind exceeds it with the probability that was asked for.
    values = normal_runs(0.02, 10, seed=2)
    noise = estimate({"a": values}, {"a": 3})["a"]
    expected = stats.t.isf(0.001, 9) * stats.tstd(np.log(values)) * math.sqrt(1 + 1 / 10)
    assert noise.limit(0.001, baseline=30, current=3) == pytest.approx(expected)


def test_of_identical_code_as_many_exceed_the_limit_as_were_allowed():
    random = np.random.default_rng(3)
    logs = random.normal(0, 0.015, (20_000, 11))
    beyond = 0
    for row in logs[:4000]:
        noise = estimate({"a": list(np.exp(row[:10]))}, {"a": 1})["a"]
        beyond += row[10] - row[:10].mean() > noise.limit(0.05, 10, 1)
    # Three standard deviations of a count of 4000 times 5%.
    assert abs(beyond - 200) < 3 * math.sqrt(4000 * 0.05 * 0.95)


def test_a_change_of_the_visible_size_is_found_with_its_probability():
    random = np.random.default_rng(4)
    noise = Noise(sd=0.01, df=math.inf, processes=1)
    limit = noise.limit(0.01, 10, 1)
    visible = noise.visible(limit, 10, 1)
    changes = visible + random.normal(0, noise.standard_error(10, 1), 20_000)
    assert np.mean(changes > limit) == pytest.approx(0.95, abs=0.005)


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
    assert fixed.further_runs(0.001, 0.02, 0.05, 10**9, 3) > 4
