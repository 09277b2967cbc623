"""The judgement on recorded runs of identical code, against scipy and by resampling.

`data/recorded/` says of which machine they are.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from perfgate.judge.noise import estimate
from perfgate.judge.record import Measurement
from perfgate.judge.rule import conclude
from perfgate.judge.sequential import MOST_PAIRS, Goal, decide
from perfgate.store.calibrate import run_figures

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import resample  # noqa: E402

RECORDED = ROOT / "tests/data/recorded"
RUNS = resample.read(RECORDED / "identical_runs.json")
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
def test_a_limit_is_where_scipys_t_has_that_probability(name):
    noise = noise_of(name, figures(name))
    error = noise.standard_error(baseline=10, current=1)
    found = conclude(0.0, error, noise.df, alarm=0.001, least=0.0, visible=0.1)
    assert found.limit / error == pytest.approx(stats.t.isf(0.0005, noise.df), rel=1e-6)


def test_stored_times_accuse_nobody_and_clear_what_they_can():
    generator = random.Random(0)
    statuses = [
        verdict.status
        for _ in range(100)
        for verdict in resample.trial(QUIET, len(QUIET) - 1, generator)
    ]
    assert set(statuses) <= {"unchanged", "inconclusive", "unjudged"}
    # The rest of a quiet machine takes turns, which costs time and no alarm.
    assert statuses.count("unchanged") >= 0.2 * len(statuses)


def test_a_tenth_more_is_hardly_ever_cleared():
    generator = random.Random(0)
    found = [
        next(v for v in resample.trial(RUNS, 5, generator, name, 1.1) if v.name == name)
        for name in NAMES
        for _ in range(50)
    ]
    # Two in a hundred are promised for normal noise; a baseline of five runs, of which some were
    # quiet and some were loaded, knows less of its own.
    assert sum(verdict.status == "unchanged" for verdict in found) <= 0.05 * len(found)


# Of each benchmark how much longer this code took than itself, in every recorded pair of processes.
PAIRS = {}
for run in json.loads((RECORDED / "identical_pairs.json").read_text())["runs"]:
    for name, factors in run.items():
        PAIRS.setdefault(name, []).extend(factors)


def taking_turns(generator, slow="", factor=1.0):
    """The findings of a suite whose pairs are drawn from the recorded ones, and their number."""
    goals = dict.fromkeys(PAIRS, Goal(0.02, 0.10))
    drawn = {name: [] for name in PAIRS}
    left, found = set(PAIRS), {}
    for number in range(1, MOST_PAIRS + 1):
        for name in left:
            value = generator.choice(PAIRS[name]) ** generator.choice((1, -1))
            drawn[name].append(value * (factor if name == slow else 1.0))
        if number > 1:
            found |= {n: d for n, d in decide(drawn, goals, 0.01).items() if n in left}
            left = {name for name in left if found[name].is_open}
        if not left:
            break
    return {name: found[name].conclusion.finding for name in found}, sum(map(len, drawn.values()))


def test_recorded_pairs_of_identical_code_raise_hardly_any_alarm_and_are_soon_decided():
    generator = random.Random(0)
    runs = [taking_turns(generator) for _ in range(60)]
    alarms = sum(bool({"regressed", "improved"} & set(found.values())) for found, _ in runs)
    assert alarms <= 2
    decided = sum(list(found.values()).count("unchanged") for found, _ in runs)
    assert decided >= 0.9 * 60 * len(PAIRS)


def test_a_tenth_more_than_recorded_pairs_is_found():
    generator = random.Random(1)
    found = [taking_turns(generator, name, 1.1)[0][name] for name in PAIRS for _ in range(5)]
    assert found.count("unchanged") <= 0.04 * len(found)
    assert found.count("regressed") >= 0.9 * len(found)
