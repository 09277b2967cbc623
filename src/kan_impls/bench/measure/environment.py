"""The machine and the settings that a figure belongs to."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch


def resolve_device(name: str | None) -> torch.device:
    """The device called `name`; CUDA where there is one, else the CPU, if it is None.

    Raises:
        ValueError: no such device, or CUDA is asked for and not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"the device is {name!r}; expected 'cpu', 'cuda' or 'cuda:N': choose one of these"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"the device is {name!r}, but torch {torch.__version__} finds {count} CUDA devices "
            "here; expected one that exists: use --device cpu, or install a driver and a CUDA "
            "build of torch"
        )
    return device


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Everything that two figures must have in common to be compared, and the versions."""
    environment: dict[str, str | int] = {
        "device_type": device.type,
        "device_model": _device_model(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
    if device.type == "cuda":
        environment["cuda"] = str(torch.version.cuda)
    else:
        environment["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    environment["device_key"] = _device_key(environment)
    return environment


def _device_key(environment: dict[str, str | int]) -> str:
    """A folder name of model, torch and CUDA major.minor, threads and matmul precision."""
    parts = [environment["device_type"], environment["device_model"]]
    parts.append(f"torch{_major_minor(environment['torch'])}")
    if "cuda" in environment:
        parts.append(f"cuda{_major_minor(environment['cuda'])}")
    parts.append(f"threads{environment['threads']}")
    parts.append(environment["matmul_precision"])
    return "_".join(re.sub(r"[^a-z0-9.]+", "-", str(part).lower()).strip("-") for part in parts)


def _major_minor(version: object) -> str:
    return ".".join(str(version).split(".")[:2])


def _device_model(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else platform.processor() or platform.machine()
