"""What decides the speed of a GPU beside its model: driver, partition and power cap, by NVML."""

from __future__ import annotations

import re
from typing import Any

import torch

UNKNOWN = "unknown"


def describe_gpu(device: torch.device, nvml: Any = None) -> dict[str, str | int]:
    """Model, driver's major version, MIG profile and power cap in watts of a CUDA device.

    Args:
        device: a CUDA device.
        nvml: the module pynvml; imported if None. What it cannot tell is `unknown`.
    """
    # The name of a part of a GPU ends with its profile, such as `MIG 1g.10gb`.
    model, _, profile = torch.cuda.get_device_name(device).partition(" MIG ")
    facts: dict[str, str | int] = {
        "device_model": model,
        "mig": profile or "off",
        "driver": UNKNOWN,
        "power_watts": UNKNOWN,
    }
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return facts
        nvml = pynvml
    try:
        nvml.nvmlInit()
        version = nvml.nvmlSystemGetDriverVersion()
        found = re.match(r"\d+", version if isinstance(version, str) else version.decode())
        facts["driver"] = found.group() if found else UNKNOWN
        milliwatts = nvml.nvmlDeviceGetEnforcedPowerLimit(_whole_gpu(device, nvml, bool(profile)))
        facts["power_watts"] = round(milliwatts / 1000)
    except nvml.NVMLError:
        pass  # no library, or a card that does not tell
    return facts


def _whole_gpu(device: torch.device, nvml: Any, is_part: bool) -> Any:
    """NVML's handle of the GPU, which has the power cap; of the one around a part."""
    # NVML numbers all GPUs of the machine, CUDA the visible ones.
    uuid = torch.cuda.get_device_properties(device).uuid
    if not is_part:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    part = nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
    return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)
