"""Pairs of processes until all is decided: by hand, and by simulation.

`test_recorded.py` has the same for recorded pairs.
"""

import math
import random

import pytest

from perfgate.ab.run import Comparison
from perfgate.judge.record import Process
from perfgate.judge.sequential import CONFIRMING_PAIRS, FEWEST_PAIRS, MOST_PAIRS, Goal, decide

TENTH = Goal(least=0.02, visible=0.10)
STEADY = (1.001, 0.999, 1.002, 0.998, 1.0, 1.001)


def finding(factors, goal=TENTH, others=3):
    """Of a benchmark among others that are steady."""
    names = {"a": factors} | {f"b{number}": STEADY for number in range(others)}
    return decide(names, dict.fromkeys(names, goal), 0.01)["a"].conclusion.finding


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        (STEADY[:2], "unchanged"),
        ((1.1, 1.101, 1.099, 1.1), "regressed"),
        ((0.9, 0.901, 0.899, 0.9), "improved"),
        # Seen, and not confirmed yet.
        ((1.1, 1.101, 1.099), "inconclusive"),
        # What the first pairs said, fresh ones do not.
        ((1.1, 1.101, 1.0, 1.0), "inconclusive"),
        ((1.0, 1.0, 1.1, 1.101), "inconclusive"),
        # Seen only together with those that are to confirm it.
        ((1.019, 1.019, 1.022, 1.022), "inconclusive"),
        ((1.3, 0.8, 1.2, 0.9), "inconclusive"),
        ((1.015,) * 4, "unchanged"),
    ],
)
def test_what_pairs_say_together(factors, expected):
    assert finding(factors) == expected


def test_one_pair_decides_nothing():
    assert decide({"a": [1.0]}, {"a": TENTH}, 0.01) == {}


def test_a_loss_since_long_ago_needs_no_gain_to_be_excluded():
    goal = Goal(least=0.05, visible=0.10, only_slower=True)
    assert finding((0.5, 0.501, 0.499, 0.5), goal) == "unchanged"
    assert finding((1.1, 1.101, 1.099, 1.1), goal) == "regressed"


def test_more_benchmarks_and_more_looks_widen_the_limit():
    def limit(number, most):
        # So many that their noise is known, however few benchmarks there are.
        names = {f"b{n}": STEADY * 50 for n in range(number)}
        goals = dict.fromkeys(names, Goal(least=0.0, visible=0.10))
        return decide(names, goals, 0.01, most)["b0"].conclusion.limit

    assert limit(1, 4) < limit(1, 12)
    assert limit(2, 4) < limit(20, 4)


def decision(factors, most_pairs=MOST_PAIRS):
    """Of a benchmark alone."""
    return decide({"a": factors}, {"a": TENTH}, 0.01, most_pairs)["a"]


def test_what_all_pairs_together_would_not_decide_is_given_up():
    torn = (2.0, 0.5, 2.0, 0.5)
    assert not decision(torn[:3]).is_hopeless
    assert decision(torn).is_hopeless
    assert not decision(torn).is_open
    assert decision(torn).conclusion.finding == "inconclusive"


@pytest.mark.parametrize(
    "factors",
    [
        (1.08, 0.92, 1.05),  # more pairs would say `unchanged`
        (3.0, 2.0, 4.0),  # a change beyond all noise, once it is confirmed
        (0.3, 0.5, 0.25),
    ],
)
def test_what_more_pairs_would_decide_is_not_given_up(factors):
    assert decision(factors).is_open
    assert not decision(factors, most_pairs=12).is_hopeless


def test_what_is_decided_is_not_given_up():
    assert not decision((1.1, 1.101, 1.099, 1.1)).is_hopeless


def test_a_busy_machine_soon_gives_up_and_accuses_nobody():
    generator = random.Random(2)
    runs = [simulate(0.0, generator, sd=0.35) for _ in range(20)]
    assert {name for found, _ in runs for name in found} <= {"inconclusive", "unchanged"}
    assert sum(sum(pairs) for _, pairs in runs) <= 5 * 20 * 16


def simulate(change, generator, sd=0.02, number=16, visible=0.10):
    """Findings of a suite of which the first benchmark changed; how many pairs each one took."""
    # Noise differs between benchmarks by about a half, and is no normal one: an odd pair in twenty.
    noises = [sd * math.exp(generator.gauss(0, 0.4)) for _ in range(number)]
    factors = {n: [] for n in range(number)}
    goals = dict.fromkeys(factors, Goal(0.02, visible))
    left, found = set(factors), {}
    for pairs in range(1, MOST_PAIRS + 1):
        for n in left:
            odd = 4 if generator.random() < 0.05 else 1
            noise = generator.gauss(0, odd * noises[n])
            factors[n].append(math.exp(noise + (change if n == 0 else 0)))
        if pairs >= FEWEST_PAIRS:
            found |= {n: d for n, d in decide(factors, goals, 0.01).items() if n in left}
            left = {n for n in left if found[n].is_open}
        if not left:
            break
    return [found[n].conclusion.finding for n in factors], [len(f) for f in factors.values()]


def test_confirming_pairs_must_show_most_of_the_limit():
    found = (1.10, 1.11, 1.09) * 3
    assert finding((*found, 1.10, 1.09)) == "regressed"
    assert finding((*found, 1.01, 1.01)) == "inconclusive"


def test_a_gain_that_noise_may_have_made_is_no_proof_of_no_loss():
    goal = Goal(least=0.05, visible=0.10, only_slower=True)
    assert finding((0.8, 1.1), goal) == "inconclusive"
    assert finding((0.8, 0.82, 0.81, 0.8), goal) == "unchanged"


def simulate_one_noisy(change, generator, quiet=0.006, noisy=0.04, number=20):
    """Findings of a suite of quiet benchmarks and a noisy one, the first, which changed."""
    comparison = Comparison(None)
    goals = {str(n): Goal(0.02, 0.10) for n in range(number)}
    left = list(goals)
    comparison.compared |= {name: [] for name in left}
    for _ in range(MOST_PAIRS):
        for name in left:
            is_noisy = name == "0"
            noise = generator.gauss(change * is_noisy, noisy if is_noisy else quiet)
            comparison.compared[name].append(Process(math.exp(noise), rounds=10))
        if len(comparison.compared["0"]) >= FEWEST_PAIRS or "0" not in left:
            left = comparison.decide(goals, 0.01, MOST_PAIRS)
        if not left:
            break
    return {name: d.conclusion.finding for name, d in comparison.decisions.items()}


def test_one_noisy_benchmark_among_quiet_ones_raises_no_alarm_and_hides_no_change():
    generator = random.Random(3)
    runs = [simulate_one_noisy(0.0, generator) for _ in range(60)]
    assert sum(not {"regressed", "improved"}.isdisjoint(found.values()) for found in runs) <= 1
    assert sum(list(found.values()).count("unchanged") for found in runs) >= 0.97 * 60 * 20
    slow = [simulate_one_noisy(math.log(1.1), generator)["0"] for _ in range(60)]
    assert slow.count("unchanged") <= 4
    assert slow.count("regressed") >= 0.75 * 60


def test_a_suite_of_unchanged_code_has_an_alarm_in_few_runs_of_a_hundred():
    generator = random.Random(0)
    runs = [simulate(0.0, generator) for _ in range(60)]
    alarms = sum("regressed" in found or "improved" in found for found, _ in runs)
    # One in a hundred with normal noise; of noise with odd pairs, some more.
    assert alarms <= 3
    assert sum(found.count("unchanged") for found, _ in runs) >= 0.97 * 60 * 16
    assert sum(sum(pairs) for _, pairs in runs) <= 4 * 60 * 16


@pytest.mark.parametrize(("visible", "sd"), [(0.10, 0.02), (0.05, 0.012)])
def test_a_change_worth_seeing_is_found(visible, sd):
    generator = random.Random(1)
    found = [
        simulate(math.log1p(visible), generator, sd, number=4, visible=visible)[0][0]
        for _ in range(100)
    ]
    assert found.count("regressed") >= 90
    assert found.count("unchanged") <= 4


def test_confirming_pairs_are_beyond_those_that_found_it():
    assert FEWEST_PAIRS + CONFIRMING_PAIRS <= MOST_PAIRS
