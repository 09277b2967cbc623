"""The machine and the settings that a figure belongs to."""

from __future__ import annotations

from typing import Any

import torch

from perfgate.judge.device_key import device_key
from perfgate.measure.gpu import describe_gpu
from perfgate.measure.processor import describe_processor, usable_cores


def resolve_device(name: str | None) -> torch.device:
    """The device called `name`, made the current one; CUDA where there is one, else the CPU, if it
    is None.

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
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # where events are recorded, and graphs replayed
    return device


# What torch's newer interface calls the precisions of the older one; unset, the older one counts.
PRECISIONS = {"ieee": "highest", "tf32": "high", "bf16": "medium"}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Everything that two figures must have in common to be compared, and the versions."""
    environment: dict[str, Any] = {
        "device_type": device.type,
        "torch": torch.__version__,
        **describe_settings(device),
    }
    if device.type == "cuda":
        environment |= {"cuda": str(torch.version.cuda), **describe_gpu(device)}
    else:
        environment |= {
            **describe_processor(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cores": usable_cores(),
        }
    environment["device_key"] = device_key(environment)
    return environment


def describe_settings(device: torch.device) -> dict[str, Any]:
    """That part of the environment which a program can change while it runs."""
    return {"threads": torch.get_num_threads(), "matmul_precision": _matmul_precision(device)}


def _matmul_precision(device: torch.device) -> str:
    """Of float32 products on that device: highest, high or medium.

    What the older interface sets shows in the newer one, too. Once the newer one was set by itself,
    torch 2.13 refuses to tell the older one's value.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    newer = PRECISIONS.get(backend.matmul.fp32_precision)
    if newer is not None:
        return newer
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"
