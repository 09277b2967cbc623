"""Times of a GPU alone, on a stand-in for one: what is launched when, and what is counted."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from perfgate.measure import cuda_timing
from perfgate.measure.cuda_timing import EventTimer, GraphTimer, captured, check_timer
from perfgate.measure.timing import Timed
from perfgate.run.runner import Runner

GPU = torch.device("cuda", 0)


class Event:
    """An event that the GPU passes when all that was launched before it is done."""

    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.at = self.gpu.busy_until = max(self.gpu.busy_until, self.gpu.now)

    def query(self):
        return self.gpu.now >= self.at

    def synchronize(self):
        self.gpu.now = max(self.gpu.now, self.at)

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


class Graph:
    """Keeps the calls that were made while it captured, and makes them again."""

    def __init__(self, gpu):
        self.gpu, self.kept = gpu, []

    def replay(self):
        for kept in self.kept:
            kept()


class Capture:
    def __init__(self, gpu, graph, pool, stream):
        assert stream == "side stream"
        self.gpu, self.graph = gpu, graph
        gpu.pools.append(pool)

    def __enter__(self):
        self.gpu.capturing = self.graph.kept

    def __exit__(self, *_):
        self.gpu.capturing = None


class Gpu:
    """Launching takes the host 1 ms, the work 10 us; a cycle is a nanosecond."""

    def __init__(self):
        self.now = self.busy_until = 0.0
        self.capturing = None
        self.pools, self.sleeps, self.order = [], [], []

    def sleep(self, cycles):
        self.sleeps.append(cycles)
        self.put(cycles * 1e-9)

    def put(self, seconds):
        self.busy_until = max(self.busy_until, self.now) + seconds

    def launch(self, name="work"):
        def launch():
            self.order.append(name)
            self.now += 1e-3
            self.put(10e-6)

        return lambda: launch() if self.capturing is None else self.capturing.append(launch)

    def flush(self):
        self.put(20e-6)


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()
    stream = type("Stream", (str,), {"wait_stream": lambda self, other: None})
    found = {
        "Event": lambda enable_timing: Event(gpu),
        "_sleep": gpu.sleep,
        "synchronize": lambda device: None,
        "Stream": lambda device: stream("side stream"),
        "current_stream": lambda device: stream("stream"),
        "stream": contextlib.nullcontext,
        "graph_pool_handle": lambda: "pool",
        "CUDAGraph": lambda: Graph(gpu),
        "graph": lambda graph, pool, stream: Capture(gpu, graph, pool, stream),
    }
    monkeypatch.setattr(cuda_timing.torch, "cuda", SimpleNamespace(**found))
    return gpu


def test_a_run_is_timed_without_the_host(gpu):
    assert EventTimer(GPU).time(Timed(gpu.launch()), gpu.flush) == pytest.approx(10e-6)
    assert gpu.sleeps == [1_000_000]  # 1 ms and the flush: just enough


def test_the_gpu_is_kept_busy_for_as_long_as_launching_takes(gpu):
    work = gpu.launch()
    slow = Timed(lambda: [work() for _ in range(3)])
    timer = EventTimer(GPU)
    assert timer.time(slow, gpu.flush) == pytest.approx(30e-6)
    assert gpu.sleeps == [1_000_000, 2_000_000, 4_000_000]
    assert timer.time(slow, gpu.flush) == pytest.approx(30e-6)
    assert gpu.sleeps[3:] == [4_000_000]  # it was learnt
    timer.time(Timed(gpu.launch()), gpu.flush)
    assert gpu.sleeps[4:] == [1_000_000]  # of that work only


def test_work_that_no_sleep_hides_is_timed_with_the_host_at_last(gpu):
    def waits():
        gpu.now = max(gpu.now, gpu.busy_until) + 1e-3
        gpu.put(10e-6)

    timer = EventTimer(GPU)
    assert timer.time(Timed(waits)) == pytest.approx(1e-3, rel=0.02)
    assert gpu.sleeps[-1] == cuda_timing.LONGEST_SLEEP
    count = len(gpu.sleeps)
    timer.time(Timed(waits))
    assert len(gpu.sleeps) == 2 * count


def test_each_run_is_prepared_and_released_even_if_it_is_repeated(gpu):
    work = gpu.launch("run")
    timed = Timed(lambda: (work(), work()), gpu.launch("prepare"), gpu.launch("release"))
    EventTimer(GPU).time(timed)
    assert gpu.order == ["prepare", "run", "run", "release"] * 2


def test_a_replay_is_timed_and_its_preparation_is_not(gpu):
    timed = Timed(gpu.launch("run"), gpu.launch("prepare"), gpu.launch("release"))
    timer = GraphTimer(GPU)
    assert timer.time(timed) == pytest.approx(10e-6)
    warm_up = ["prepare", "run", "release"] * cuda_timing.WARMUP_RUNS
    assert gpu.order == [*warm_up, "release", "prepare", "run"]
    timer.time(timed)  # which is not captured again
    assert gpu.order[len(warm_up) + 3 :] == ["prepare", "run"]
    assert gpu.pools == ["pool", "pool"]  # backward reads what forward left


def test_a_captured_work_runs_no_more_by_itself(gpu):
    runs = []
    work = gpu.launch()
    replayed = captured(Timed(lambda: (runs.append(1), work())), GPU)
    count = len(runs)
    replayed.prepare()
    replayed.run()
    assert len(runs) == count == cuda_timing.WARMUP_RUNS + 1
    assert gpu.order == ["work"] * (cuda_timing.WARMUP_RUNS + 1)


@pytest.mark.parametrize("name", ["events", "graph"])
def test_a_timer_of_a_gpu_is_refused_elsewhere(name):
    with pytest.raises(ValueError, match=f"timer is '{name}' and the device cpu; expected a CUDA"):
        check_timer(name, torch.device("cpu"))
    check_timer(name, GPU)
    check_timer("wall", torch.device("cpu"))


@pytest.mark.parametrize("name", cuda_timing.TIMERS)
def test_a_runner_has_the_timer_that_was_chosen(name):
    runner = Runner(GPU, "warm", new_schedule=None, timer_name=name)
    assert type(runner.timer) is cuda_timing.TIMERS[name]
    assert runner.timer is runner.timer


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["events", "graph"])
def test_on_a_gpu(device, name):
    left, right = (torch.rand(2048, 2048, device=device) for _ in range(2))
    timer, products = cuda_timing.TIMERS[name](device), []

    def run():
        products[:] = [left @ right for _ in range(4)]

    once = Timed(lambda: products.append(left @ right), release=products.clear)
    four = Timed(run, release=products.clear)
    for work in (once, four):
        timer.time(work)
    assert timer.time(four) == pytest.approx(4 * timer.time(once), rel=0.5)  # clocks vary
