"""The judgement on recorded runs of identical code, against scipy and by resampling.

`data/recorded/` says of which machine they are.
"""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kan_impls.bench.calibrate import run_figures
from kan_impls.bench.noise import estimate
from kan_impls.bench.record import Measurement

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import resample  # noqa: E402

RUNS = resample.read(Path(__file__).parent / "data" / "recorded" / "identical_runs.json")
NAMES = list(RUNS[0][0])
QUIET = RUNS[:8]  # had the machine to themselves


def figures(name, figure="ratio"):
    """The logarithm of a benchmark's figure in each run that has a clean process."""
    found = [
        run_figures([Measurement(name, {}, [part[name] for part in run])]).get(figure)
        for run in RUNS
    ]
    return np.log([value for value in found if value is not None])


def noise_of(name, logs):
    return estimate({name: list(np.exp(logs))}, {name: 1})[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_is_scipys(name):
    logs = figures(name)
    noise = noise_of(name, logs)
    assert noise.sd == pytest.approx(stats.tstd(logs))
    assert noise.df == len(logs) - 1


@pytest.mark.parametrize("name", NAMES)
def test_a_change_in_standard_errors_is_scipys_t_statistic(name):
    logs = figures(name)
    for left_out in range(len(logs)):
        others = np.delete(logs, left_out)
        found = stats.ttest_ind([logs[left_out]], others)
        error = noise_of(name, others).standard_error(baseline=len(others), current=1)
        assert (logs[left_out] - others.mean()) / error == pytest.approx(found.statistic)
        assert found.df == noise_of(name, others).df


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_is_where_scipys_bivariate_t_has_that_probability(name):
    noise = noise_of(name, figures(name))
    limit = noise.limit(0.001, baseline=10, current=1) / noise.standard_error(10, 1)
    both = stats.multivariate_t.cdf(
        [-limit, -limit], shape=[[1, 1 / 11], [1 / 11, 1]], df=noise.df, maxpts=200_000,
        random_state=np.random.default_rng(0),
    )  # fmt: skip
    assert both == pytest.approx(0.001, rel=0.02)


def test_identical_code_raises_an_alarm_in_fewer_than_one_of_twenty_runs():
    generator = random.Random(0)
    size = len(RUNS) // 2
    alarms = sum(
        any(verdict.status == "regressed" for verdict in resample.trial(RUNS, size, generator))
        for _ in range(200)
    )
    assert alarms <= 10


def test_a_tenth_more_in_one_layer_is_found():
    # The layer that `docs/trust.md` names; the others are in its table.
    name = next(name for name in NAMES if name.endswith("[fused_fourier_kan-forward]"))
    generator = random.Random(0)
    found = [
        next(v for v in resample.trial(QUIET, 5, generator, name, 1.1) if v.name == name)
        for _ in range(100)
    ]
    assert sum(verdict.status == "regressed" for verdict in found) >= 95
