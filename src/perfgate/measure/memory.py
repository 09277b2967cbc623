"""Peak memory: exact on the CPU, by the allocator on CUDA.

The bytes are those above what was allocated before the forward pass, so parameters and
inputs do not count and gradients of parameters do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from perfgate.measure.saved import SavedStorages


@dataclass(frozen=True)
class MemoryUse:
    """Bytes above the level before the forward pass."""

    forward_peak_bytes: int
    backward_peak_bytes: int


def measure_peaks(
    device: torch.device, forward: Callable[[], Any], backward: Callable[[Any], None]
) -> MemoryUse:
    """Run forward and backward once, untimed, and read their peaks.

    Args:
        device: where they run.
        forward: returns what `backward` takes.
        backward: the backward pass from the forward's result.
    """
    measure = _measure_on_cuda if device.type == "cuda" else _measure_on_cpu
    return measure(device, forward, backward)


_BACKWARD_MARK = "kan_impls::backward"


def _measure_on_cpu(
    device: torch.device, forward: Callable[[], Any], backward: Callable[[Any], None]
) -> MemoryUse:
    # Every allocation and release passes through the profiler, so the running sum is exact
    # and repeatable to the byte, kernels' scratch included.
    # Without acc_events, which turns each event into a Python object: most of the time it takes.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        result = forward()
        with record_function(_BACKWARD_MARK):
            pass
        backward(result)
        del result
    events = prof.profiler.kineto_results.events()
    backward_start = next(event.start_ns() for event in events if event.name() == _BACKWARD_MARK)
    level, peaks = 0, [0, 0]
    memory_events = (event for event in events if event.name() == "[memory]")
    for event in sorted(memory_events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        stage = int(event.start_ns() >= backward_start)
        peaks[stage] = max(peaks[stage], level)
    return MemoryUse(*peaks)


def _measure_on_cuda(
    device: torch.device, forward: Callable[[], Any], backward: Callable[[Any], None]
) -> MemoryUse:
    level = torch.cuda.memory_allocated(device)
    peaks = []

    def read_peak() -> None:
        torch.cuda.synchronize(device)
        peaks.append(torch.cuda.max_memory_allocated(device) - level)
        torch.cuda.reset_peak_memory_stats(device)

    torch.cuda.reset_peak_memory_stats(device)
    result = forward()
    read_peak()
    backward(result)
    read_peak()
    return MemoryUse(*peaks)


def measure_saved_bytes(forward: Callable[[], Any], not_counted: Iterable[Tensor]) -> int:
    """Bytes of the storages that the forward pass keeps for the backward pass.

    Args:
        forward: the forward pass.
        not_counted: tensors that live anyway, such as parameters and the input.
    """
    saved = SavedStorages(not_counted)
    with saved.watching():
        result = forward()
    found = saved.nbytes()
    del result  # which held it
    return found


def free_bytes(device: torch.device) -> int:
    """Memory that a process can still take on the device without swapping."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    import psutil

    return min(psutil.virtual_memory().available, _cgroup_free_bytes())


def _cgroup_free_bytes() -> int:
    """What the container's limit leaves (cgroup v2); without a limit, more than any machine."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = int((root / "memory.max").read_text())
        used = int((root / "memory.current").read_text())
        # The page cache counts as used, and is given back on demand.
        cached = re.search(r"^inactive_file (\d+)$", (root / "memory.stat").read_text(), re.M)
        return limit - used + (int(cached[1]) if cached else 0)
    except (OSError, ValueError):  # no cgroup, or "max"
        return 2**63 - 1
