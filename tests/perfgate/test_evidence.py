"""What disturbed a sample: files as Linux writes them, and a stand-in for NVML."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from perfgate.measure import evidence
from perfgate.measure.cache import cache_bytes, default_cache, flusher
from perfgate.measure.evidence import GpuWitness, SchedulerWitness, witness_of

CORE = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


class Proc:
    """A folder such as /proc, of two threads."""

    def __init__(self, folder: Path):
        self.folder = folder
        for thread in ("1", "2"):
            (folder / "self" / "task" / thread).mkdir(parents=True)
        self.write(0, 0)

    def write(self, waited_ns, stolen_ticks):
        (self.folder / "self" / "schedstat").write_text(f"7 {waited_ns} 1\n")
        for thread in ("1", "2"):
            path = self.folder / "self" / "task" / thread / "schedstat"
            # The one that waited longest counts.
            path.write_text(f"123456 {waited_ns if thread == '2' else 0} 9\n")
        (self.folder / "stat").write_text(
            f"cpu  1 2 3 4 5 6 7 999 0 0\ncpu{CORE} 1 2 3 4 5 6 7 {stolen_ticks} 0 0\n"
            "cpu9999 1 2 3 4 5 6 7 888 0 0\n"
        )


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


@pytest.mark.parametrize(
    ("waited_ns", "stolen", "seconds", "disturbed"),
    [
        (0, 0, 0.02, False),
        (200_000, 0, 0.02, False),  # 1% of it
        (3_000_000, 0, 0.02, True),  # a time slice in 20 ms
        (3_000_000, 0, 1.0, False),  # and in a second
        (0, 1, 0.02, True),
        (0, 1, 1.0, False),
        (0, 10, 1.0, True),
    ],
)
def test_a_sample_that_waited_for_a_core_is_disturbed(proc, waited_ns, stolen, seconds, disturbed):
    witness = SchedulerWitness(proc.folder)
    witness.begin()
    proc.write(waited_ns, stolen)
    found = witness.end(seconds)
    assert (found is not None) == disturbed
    assert witness.summary() == {"waited_ns": waited_ns, "stolen_ns": stolen * TICK_NS}


def test_what_was_waited_before_a_sample_is_not_its_own(proc):
    proc.write(10**9, 100)
    witness = SchedulerWitness(proc.folder)
    witness.begin()
    assert witness.end(0.01) is None


def test_a_system_without_statistics_says_so(tmp_path):
    witness = SchedulerWitness(tmp_path / "nothing")
    witness.begin()
    assert witness.end(0.01) is None
    assert witness.summary() == {"scheduler": "no statistics on this system"}


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="needs Linux's scheduler statistics"
)
def test_the_kernel_tells_of_a_core_that_was_shared():
    # Two busy processes on one core: each waits for about half of the time.
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); print(flush=True)\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        busy.stdout.readline()
        os.sched_setaffinity(0, {core})
        witness = SchedulerWitness()
        witness.begin()
        start = time.perf_counter()
        while time.perf_counter() - start < 0.3:
            pass
        assert witness.end(0.3) is not None
    finally:
        os.sched_setaffinity(0, before)
        busy.kill()
        busy.wait()
        busy.stdout.close()


class Nvml(SimpleNamespace):
    """As much of pynvml as is used."""

    NVML_CLOCK_SM = 1
    nvmlClocksThrottleReasonSwPowerCap = 4  # noqa: N815
    nvmlClocksThrottleReasonHwSlowdown = 8  # noqa: N815
    nvmlClocksThrottleReasonSwThermalSlowdown = 32  # noqa: N815
    nvmlClocksThrottleReasonHwThermalSlowdown = 64  # noqa: N815
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128  # noqa: N815
    NVMLError = OSError
    reasons = 0
    clock = 1980
    asked = None

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        self.asked = uuid
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle, kind):  # noqa: N802
        assert (handle, kind) == ("handle", 1)
        return self.clock

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):  # noqa: N802
        return self.reasons


@pytest.fixture
def gpu(monkeypatch):
    properties = SimpleNamespace(uuid="1234-5678", L2_cache_size=50 * 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    nvml = Nvml()
    return nvml, GpuWitness(torch.device("cuda"), nvml)


def test_a_throttled_sample_is_disturbed_and_clocks_are_kept(gpu):
    nvml, witness = gpu
    assert nvml.asked == "GPU-1234-5678"
    witness.begin()
    assert witness.end(0.01) is None
    nvml.reasons, nvml.clock = 1 | 4 | 64, 1200  # idle is no reason
    assert witness.end(0.01) == "throttled: SwPowerCap, HwThermalSlowdown"
    assert witness.summary() == {
        "throttled_SwPowerCap": 1,
        "throttled_HwThermalSlowdown": 1,
        "sm_clock_mhz_min": 1200,
        "sm_clock_mhz_max": 1980,
    }


def test_the_names_of_the_reasons_are_nvmls():
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for name in GpuWitness.REASONS:
        assert isinstance(getattr(nvml, f"nvmlClocksThrottleReason{name}"), int)
    for function in (
        "nvmlInit",
        "nvmlDeviceGetHandleByUUID",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    ):
        assert callable(getattr(nvml, function))


def test_without_nvml_a_gpu_is_measured_and_said_to_be_unwatched(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    witness = witness_of(torch.device("cuda"))
    witness.begin()
    assert witness.end(1.0) is None
    assert "pip install nvidia-ml-py" in witness.summary()["not_watched"]


def test_a_gpu_that_nvml_does_not_know_is_measured_and_said_to_be_unwatched(monkeypatch, gpu):
    nvml, _ = gpu

    def broken():
        raise nvml.NVMLError("Not Supported")

    nvml.nvmlInit = broken
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert "Not Supported" in witness_of(torch.device("cuda")).summary()["not_watched"]


def test_a_cpu_is_watched_by_the_scheduler():
    assert isinstance(witness_of(torch.device("cpu")), evidence.SchedulerWitness)


def test_cold_caches_are_overwritten_by_twice_their_size(monkeypatch):
    monkeypatch.setattr("perfgate.measure.cache.cache_bytes", lambda device: 1000)
    made = []
    original = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: made.append(original(*a, **k)) or made[-1])
    flush = flusher(torch.device("cpu"), "cold")
    made[0].fill_(7)
    flush()
    assert made[0].nbytes == 2000
    assert not made[0].any()
    flusher(torch.device("cpu"), "warm")()
    assert len(made) == 1


def test_the_default_is_cold_on_a_gpu_and_warm_on_a_cpu():
    assert default_cache(torch.device("cuda")) == "cold"
    assert default_cache(torch.device("cpu")) == "warm"


def test_the_size_of_the_last_cache(gpu):
    assert cache_bytes(torch.device("cuda")) == 50 * 2**20
    assert cache_bytes(torch.device("cpu")) >= 2**18
