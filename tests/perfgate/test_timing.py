"""Clocks, and what the machine itself needs."""

import pytest
import torch

from perfgate.measure.timing import ReplayTimer, SynchronizedTimer
from perfgate.network.case import Product
from perfgate.network.floor import Floor, measure_floor


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


def test_a_replay_gives_the_durations_that_were_measured():
    timer = ReplayTimer()
    timer.load([0.25, 0.5])
    durations = []
    for _ in range(2):
        start = timer()
        durations.append(timer() - start)
    assert durations == [0.25, 0.5]
    # Then it is a clock again, for benchmarks of somebody else's.
    assert 0 <= timer() - timer() + 1 <= 1


def test_the_floor_is_the_longer_of_its_two_ceilings():
    assert Floor(product_ns=3, copy_ns=5).ns == 5
    assert Floor(product_ns=7, copy_ns=5).ns == 7


def test_the_floor_of_the_device_is_positive(device):
    floor = measure_floor(device, (Product(8, 8, 8),), 1024)
    assert floor.product_ns > 0
    assert floor.copy_ns > 0
