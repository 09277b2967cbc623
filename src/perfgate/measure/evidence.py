"""What a sample went through: whether others took the core, whether the GPU was throttled.

A disturbed sample says nothing of the code. On a CPU the kernel's scheduler statistics tell how
long the threads of this process were ready to run and waited for a core, and how long the
hypervisor gave the cores to other machines; on a GPU, NVML tells clock and throttle reasons.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

# A sample that waited longer than this for a core, in parts of its duration, is disturbed: an
# undisturbed one waits for some microseconds, one that shared a core with another process for
# whole time slices of about 3 ms, which are a tenth of a pass over the reference layers.
WAITED_FRACTION = 0.05


class Witness(Protocol):
    """Watches one sample after another."""

    def begin(self) -> None:
        """Before a sample."""

    def end(self, seconds: float) -> str | None:
        """After a sample of that length: what disturbed it, if anything did."""

    def summary(self) -> dict[str, float | int | str]:
        """What was seen in all samples together."""


def witness_of(device: torch.device) -> Witness:
    """The witness that the machine offers for a device."""
    if device.type != "cuda":
        return SchedulerWitness()
    try:
        import pynvml
    except ImportError:
        return NoWitness(
            "pynvml is not installed: throttling is not seen; pip install nvidia-ml-py"
        )
    try:
        return GpuWitness(device, pynvml)
    except pynvml.NVMLError as error:  # no library, or a part of a GPU that it does not tell of
        return NoWitness(f"NVML does not tell of {device}: {error}")


@dataclass(frozen=True)
class NoWitness:
    """Sees nothing, and says why."""

    reason: str

    def begin(self) -> None:
        pass

    def end(self, seconds: float) -> str | None:
        return None

    def summary(self) -> dict[str, float | int | str]:
        return {"not_watched": self.reason}


class SchedulerWitness:
    """Time waited for a core, from Linux's scheduler; elsewhere it sees nothing.

    What counts is the thread that waited longest, and the core that was taken most: the others
    wait for that one.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._tasks = proc / "self" / "task"
        self._stat = proc / "stat"
        self.waited_ns = 0
        self.stolen_ns = 0
        self._waited: Mapping[str, int] = {}
        self._stolen: Mapping[str, int] = {}
        self._is_there = (proc / "self" / "schedstat").exists()

    def begin(self) -> None:
        self._waited, self._stolen = self._waited_by_thread(), self._stolen_by_core()

    def end(self, seconds: float) -> str | None:
        waited = _largest_rise(self._waited, self._waited_by_thread())
        stolen = _largest_rise(self._stolen, self._stolen_by_core())
        self.waited_ns += waited
        self.stolen_ns += stolen
        if waited + stolen <= WAITED_FRACTION * seconds * 1e9:
            return None
        return f"waited {(waited + stolen) / 1e6:.1f} ms for a core in {seconds * 1e3:.1f} ms"

    def summary(self) -> dict[str, float | int | str]:
        if not self._is_there:
            return {"scheduler": "no statistics on this system"}
        return {"waited_ns": self.waited_ns, "stolen_ns": self.stolen_ns}

    def _waited_by_thread(self) -> dict[str, int]:
        waited = {}
        with contextlib.suppress(OSError):
            for thread in os.listdir(self._tasks):
                with contextlib.suppress(OSError, IndexError, ValueError):  # it may have ended
                    text = (self._tasks / thread / "schedstat").read_text()
                    waited[thread] = int(text.split()[1])
        return waited

    def _stolen_by_core(self) -> dict[str, int]:
        """Of the cores that this process may use. Counted in ticks of 10 ms, so that it marks one
        sample in many, and the worst ones."""
        stolen = {}
        with contextlib.suppress(OSError, IndexError, ValueError):
            own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            for line in self._stat.read_text().splitlines():
                name, *fields = line.split()
                if name in own:
                    stolen[name] = int(fields[7]) * (10**9 // os.sysconf("SC_CLK_TCK"))
        return stolen


def _largest_rise(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    return max((value - before.get(key, 0) for key, value in now.items()), default=0)


class GpuWitness:
    """Clock of the multiprocessors and throttle reasons, from NVML.

    Args:
        device: a CUDA device.
        nvml: the module pynvml.
    """

    # Names of NVML's bits. An idle GPU and clocks that an application set are no disturbance.
    REASONS = (
        "SwPowerCap",
        "HwSlowdown",
        "SwThermalSlowdown",
        "HwThermalSlowdown",
        "HwPowerBrakeSlowdown",
    )

    def __init__(self, device: torch.device, nvml: Any) -> None:
        import torch

        self._nvml = nvml
        nvml.nvmlInit()
        # NVML numbers all GPUs of the machine, CUDA the visible ones.
        uuid = torch.cuda.get_device_properties(device).uuid
        self._handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        self.clocks_mhz: list[int] = []
        self.throttled: dict[str, int] = {}

    def begin(self) -> None:
        pass

    def end(self, seconds: float) -> str | None:
        nvml, handle = self._nvml, self._handle
        self.clocks_mhz.append(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        reasons = [
            name for name in self.REASONS if bits & getattr(nvml, f"nvmlClocksThrottleReason{name}")
        ]
        for name in reasons:
            self.throttled[name] = self.throttled.get(name, 0) + 1
        return f"throttled: {', '.join(reasons)}" if reasons else None

    def summary(self) -> dict[str, float | int | str]:
        found: dict[str, float | int | str] = {
            f"throttled_{name}": count for name, count in self.throttled.items()
        }
        if self.clocks_mhz:
            found["sm_clock_mhz_min"] = min(self.clocks_mhz)
            found["sm_clock_mhz_max"] = max(self.clocks_mhz)
        return found
