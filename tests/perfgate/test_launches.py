"""Launches of kernels: which of the profiler's events count, by a stand-in for a GPU's."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from perfgate.measure import launches
from perfgate.measure.launches import count_launches
from perfgate.run import runner
from perfgate.run.runner import Runner

GPU = torch.device("cuda", 1)


class Event:
    def __init__(self, name, device=DeviceType.CUDA, annotation=False):
        self.name = lambda: name
        self.device_type = lambda: device
        self.is_user_annotation = lambda: annotation


ON_HOST = [Event("aten::mm", DeviceType.CPU), Event("cudaLaunchKernel", DeviceType.CPU)]
ON_DEVICE = [
    Event("ampere_sgemm_128x64_tn"),
    Event("Memcpy DtoD (Device -> Device)"),
    Event("void at::native::vectorized_elementwise_kernel<4, ...>"),
    Event("Memset (Device)"),
    Event("forward", annotation=True),
    Event("ampere_sgemm_128x64_tn"),
]


@pytest.fixture
def profiled(monkeypatch):
    """Has the profiler report these events instead of its own."""
    events = []

    class Profile:
        def __init__(self, **_):
            results = SimpleNamespace(events=lambda: events)
            self.profiler = SimpleNamespace(kineto_results=results)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(launches, "profile", Profile)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return events


def test_kernels_count_and_nothing_else(profiled):
    profiled += ON_HOST + ON_DEVICE
    ran = []
    assert count_launches(lambda: ran.append(1), GPU) == 3
    assert ran == [1]


def test_a_profiler_that_sees_nothing_of_the_device_tells_no_zero(profiled):
    profiled += ON_HOST
    assert count_launches(lambda: None, GPU) is None
    profiled.append(Event("Memset (Device)"))
    assert count_launches(lambda: None, GPU) == 0


@pytest.mark.parametrize(
    ("device", "counted", "recorded"),
    [
        ("cuda", 7, {"launches": 7}),
        ("cuda", None, {}),
        ("cpu", 7, {}),
    ],
)
def test_a_benchmark_records_the_launches_of_its_pass(device, counted, recorded, monkeypatch):
    steps = []

    def count(run, device):
        run()
        return counted

    monkeypatch.setattr(runner, "count_launches", count)
    workload = SimpleNamespace(
        prepare=lambda: steps.append("prepare"), run=lambda: steps.append("run")
    )
    measuring = Runner(torch.device(device), "warm", new_schedule=None)
    assert measuring._launches(workload) == recorded
    assert steps == (2 * ["prepare", "run"] if device == "cuda" else [])


@pytest.mark.gpu
def test_on_a_gpu(device):
    x = torch.rand(100, 100, device=device)

    def run():
        (x + 1).relu_()

    run()
    assert count_launches(run, device) == 2
