"""Rounds, ratios and their uncertainty, on a clock that the test moves."""

import numpy as np
import pytest
import torch

from kan_impls.bench.case import Product
from kan_impls.bench.measure.floor import Floor, measure_floor
from kan_impls.bench.measure.timing import (
    Interleaved,
    SynchronizedTimer,
    median_and_uncertainty,
    rounds_within,
)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def pass_seconds(self, seconds):
        self.now += seconds


def test_only_the_run_itself_is_timed():
    clock = Clock()
    work = Interleaved(
        run=lambda: clock.pass_seconds(2),
        prepare=lambda: clock.pass_seconds(10),
        release=lambda: clock.pass_seconds(100),
    )
    work.time_once(clock)
    work.time_once(clock)
    assert work.seconds == [2, 2]


def test_ratios_cancel_the_drift_of_the_machine():
    clock, speed = Clock(), iter([1, 2, 4])
    work = Interleaved(run=lambda: clock.pass_seconds(next(speed)))
    for _ in range(3):
        work.time_once(clock)
    assert work.ratios_of([3, 6, 12]) == [3, 3, 3]


def test_a_ratio_needs_a_reference_for_every_round():
    with pytest.raises(ValueError, match="shorter"):
        Interleaved(run=lambda: None).ratios_of([1.0])


def test_median_and_uncertainty_are_numpys():
    values = np.random.default_rng(0).lognormal(size=101)
    low, middle, high = np.percentile(values, [25, 50, 75])
    median, uncertainty = median_and_uncertainty(list(values))
    assert median == pytest.approx(middle)
    assert uncertainty == pytest.approx(1.57 * (high - low) / np.sqrt(101) / middle)


def test_one_round_says_nothing_of_the_noise():
    assert median_and_uncertainty([2.0]) == (2.0, float("inf"))


@pytest.mark.parametrize(
    ("max_seconds", "min_rounds", "seconds", "rounds"),
    [(2, 3, 0.02, 100), (2, 3, 5, 3), (2, 3, 0.9, 3), (2, 3, 2, 3), (2, 1, 0.5, 4)],
)
def test_rounds(max_seconds, min_rounds, seconds, rounds):
    assert rounds_within(max_seconds, min_rounds, seconds) == rounds


def test_the_timer_counts_up():
    timer = SynchronizedTimer(torch.device("cpu"))
    assert timer() <= timer()


@pytest.mark.gpu
def test_the_timer_waits_for_the_device():
    timer = SynchronizedTimer(torch.device("cuda"))
    matrix = torch.rand(4096, 4096, device="cuda")
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    before = timer()
    start.record()
    for _ in range(20):
        matrix @ matrix
    end.record()
    # The clock must not be read before the device is done.
    assert timer() - before >= start.elapsed_time(end) / 1e3


def test_the_floor_is_the_longer_of_its_two_ceilings():
    assert Floor(product_ns=3, copy_ns=5).ns == 5
    assert Floor(product_ns=7, copy_ns=5).ns == 7


def test_the_floor_of_the_device_is_positive(device):
    floor = measure_floor(device, (Product(8, 8, 8),), 1024)
    assert floor.product_ns > 0
    assert floor.copy_ns > 0
