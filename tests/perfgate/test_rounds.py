"""Rounds and what they say together, on a clock that the test moves."""

import gc

import numpy as np
import pytest

from perfgate.measure.rounds import (
    OWN,
    REFERENCE,
    WARMUP_ROUNDS,
    Budget,
    Contest,
    Round,
    process_of,
)
from perfgate.measure.timing import Timed, Timer


class Clock(Timer):
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds, **parts):
        """Work that takes as long, and as long before and after it."""

        def passing(part):
            def run():
                self.now += part

            return run

        return Timed(passing(seconds), passing(parts.get("prepare", 0)), passing(100))


class Script:
    """A witness that finds what it is told to."""

    def __init__(self, *disturbances):
        self.disturbances = list(disturbances)
        self.begun = []

    def begin(self):
        self.begun.append(True)

    def end(self, seconds):
        return self.disturbances.pop(0) if self.disturbances else None

    def summary(self):
        return {}


def contest(clock, own, witness=None, flush=lambda: None, **companions):
    return Contest(own, companions, clock, witness or Script(), flush)


def test_only_the_run_itself_is_timed():
    clock = Clock()

    def flush():
        clock.now += 1000

    measured = contest(clock, clock.work(2, prepare=10), flush=flush).time_round()
    assert measured.seconds == {OWN: 2}


def test_the_order_is_turned_around_from_round_to_round():
    clock, order = Clock(), []

    def named(name):
        return Timed(lambda: order.append(name))

    both = contest(clock, named("own"), ratio=named("reference"))
    both.time_round()
    both.time_round()
    assert order == ["reference", "own", "own", "reference"]


def test_ratios_cancel_the_drift_of_the_machine():
    rounds = [Round({REFERENCE: speed, OWN: 3 * speed}) for speed in (1.0, 2.0, 4.0)]
    assert process_of(rounds).ratio == 3


def test_a_figure_is_the_median_over_the_clean_rounds():
    values = np.random.default_rng(0).lognormal(size=101)
    clean = [Round({OWN: value, REFERENCE: 2.0, "mlp": 4.0}) for value in values]
    dirty = [Round({OWN: 1e9, REFERENCE: 1.0, "mlp": 1.0}, "busy")] * 30
    process = process_of(dirty + clean)
    assert process.median_ns == pytest.approx(np.median(values) * 1e9)
    assert process.ratio == pytest.approx(np.median(values) / 2)
    assert process.beside == {"mlp": pytest.approx(np.median(values) / 4)}
    assert (process.rounds, process.disturbed) == (101, 30)
    assert process.is_clean


def test_without_a_clean_round_there_are_figures_that_do_not_count():
    process = process_of([Round({OWN: 1.0}, "busy")] * 2)
    assert process.median_ns == 1e9
    assert not process.is_clean


def test_no_round_is_an_error():
    with pytest.raises(ValueError, match="there are 0 rounds; expected one or more"):
        process_of([])


def test_a_round_is_disturbed_if_any_of_its_works_was():
    clock = Clock()
    both = contest(clock, clock.work(1), Script("the reference waited"), ratio=clock.work(1))
    assert both.time_round().disturbance == "the reference waited"
    assert both.time_round().disturbance is None


@pytest.mark.parametrize(
    ("max_seconds", "min_rounds", "seconds", "rounds"),
    [(2, 3, 0.02, 100), (2, 3, 5, 3), (2, 3, 0.9, 3), (2, 3, 2, 3), (2, 1, 0.5, 4)],
)
def test_a_budget_of_rounds(max_seconds, min_rounds, seconds, rounds):
    budget = Budget(max_seconds, min_rounds)
    count = 0
    for _ in budget.turns(seconds, seconds):
        budget.done(Round({OWN: seconds}))
        count += 1
    assert count == rounds


def test_a_disturbed_round_is_made_up_for_but_not_for_ever():
    budget = Budget(1, 4)
    disturbed = iter([True, False, True, False, False, False])
    counted = []
    for _ in budget.turns(1.0, 1.0):
        counted.append(next(disturbed))
        budget.done(Round({OWN: 1.0}, "busy" if counted[-1] else None))
    assert counted.count(False) == 4

    budget, count = Budget(1, 4), 0
    for _ in budget.turns(1.0, 1.0):
        budget.done(Round({OWN: 1.0}, "busy"))
        count += 1
    assert count == 8


def test_the_warm_up_does_not_count_and_the_collector_rests_meanwhile():
    clock, enabled = Clock(), []
    work = Timed(lambda: enabled.append(gc.isenabled()))
    rounds = contest(clock, work).run(Budget(0, 3))
    assert len(rounds) == 3
    assert enabled == [True] * WARMUP_ROUNDS + [False] * 3
    assert gc.isenabled()


def test_what_is_slow_is_warmed_up_once():
    clock = Clock()
    slow = contest(clock, clock.work(4.0))
    seconds, whole = slow.warm_up()
    assert (seconds, whole) == (4.0, 104.0)
    assert clock.now == 104
