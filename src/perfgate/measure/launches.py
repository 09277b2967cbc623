"""Kernels that a pass launches on a GPU, as the profiler sees them.

Their number is exact, and each launch costs the host some microseconds, which is what a layer of
many small operations consists of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# What else the profiler reports of the device's work.
COPIES = ("Memcpy", "Memset")


def count_launches(run: Callable[[], object], device: torch.device) -> int | None:
    """Kernels that `run` launches, copies and fills by the driver left out.

    Args:
        run: has run before, so that nothing is compiled, loaded or set up.
        device: the CUDA device that it launches on.

    Returns:
        None where the profiler sees nothing of the device, as without the permission to.
    """
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as prof:
        run()
        torch.cuda.synchronize(device)
    on_device = [event for event in prof.profiler.kineto_results.events() if _is_on_device(event)]
    return sum(map(is_launch, on_device)) if on_device else None


def is_launch(event: Any) -> bool:
    """Whether an event of the profiler is the execution of a kernel."""
    return (
        _is_on_device(event)
        and not event.is_user_annotation()
        and not event.name().startswith(COPIES)
    )


def _is_on_device(event: Any) -> bool:
    return event.device_type().name == "CUDA"
