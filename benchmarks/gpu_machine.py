"""The machine: driver, clocks, torch, CUDA, NVRTC, and the doctor's report."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import Any

import torch

from kan_impls.fused import compiler, doctor

# The last name is younger than some drivers, which then refuse the whole query.
QUERIES = (
    "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit,"
    "temperature.gpu,clocks_event_reasons.active",
    "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem",
)


def nvidia_smi(queries: tuple[str, ...] = QUERIES) -> dict[str, str]:
    """What the driver says of the first GPU, or why it says nothing."""
    if shutil.which("nvidia-smi") is None:
        return {"error": "nvidia-smi is not installed"}
    error = ""
    for query in queries:
        try:
            done = subprocess.run(
                ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            return {"error": str(failure)}
        if done.returncode == 0 and done.stdout.strip():
            values = done.stdout.strip().splitlines()[0].split(", ")
            return dict(zip(query.split(","), values, strict=False))
        error = (done.stdout + done.stderr).strip()
    return {"error": error[:500]}


def clocks() -> dict[str, str]:
    """Clocks, temperature and what holds them back, as of now."""
    return nvidia_smi(
        ("clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active", "clocks.sm")
    )


def describe() -> dict[str, Any]:
    """Everything of it; `fused_kernels_can_run` is the doctor's word."""
    found: dict[str, Any] = {
        "nvidia_smi": nvidia_smi(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cuda_available": torch.cuda.is_available(),
    }
    try:
        found["nvrtc"] = ".".join(map(str, compiler.nvrtc_version()))
    except compiler.KernelUnavailable as error:
        found["nvrtc"] = str(error)
    if found["cuda_available"]:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpus": torch.cuda.device_count(),
            "arch": f"sm_{properties.major}{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": getattr(properties, "L2_cache_size", None),
        }
    lines, found["fused_kernels_can_run"] = doctor.report()
    found["doctor"] = lines
    return found
