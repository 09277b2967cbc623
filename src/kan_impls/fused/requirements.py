"""What must be there for the fused CUDA kernels to run; each thing missing with its remedy."""

from __future__ import annotations

import contextlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from kan_impls.fused import compiler
from kan_impls.fused.compiler import KernelUnavailable

# Asynchronous copies and TF32 products, which all kernels use, came with this one.
MIN_CAPABILITY = (8, 0)

# The oldest driver of each CUDA major version: NVIDIA's table of minor-version compatibility.
_DRIVERS = {12: "525", 13: "580"}

_DRIVER_FILE = "/proc/driver/nvidia/version"


def available(device: torch.device | str) -> None:
    """Return if the fused kernels can run on `device`; the answer is kept per device.

    Raises:
        KernelUnavailable: they cannot; the message names the first cause and its remedy.
    """
    device = torch.device(device)
    if device.type != "cuda":
        raise KernelUnavailable(
            f"the fused CUDA kernels run on CUDA devices, and this is {str(device)!r}: move "
            f"layer and input to a CUDA device, or take the PyTorch form of the product"
        )
    obstacle = _machine_obstacle() or device_obstacle(index_of(device))
    if obstacle:
        raise KernelUnavailable(obstacle)


def index_of(device: torch.device) -> int:
    """The number of a CUDA device; `cuda` without one is torch's current device."""
    return torch.cuda.current_device() if device.index is None else device.index


@lru_cache(maxsize=1)
def _machine_obstacle() -> str | None:
    return torch_obstacle() or compiler_obstacle() or driver_obstacle()


def torch_obstacle() -> str | None:
    """Why torch cannot use a GPU, or None if it can."""
    if torch.version.hip is not None:
        return (
            f"torch {torch.__version__} is a ROCm build, and the fused kernels are CUDA: take "
            f"the PyTorch form of the product"
        )
    if torch.version.cuda is None:
        return (
            f"torch {torch.__version__} is a CPU build: install a CUDA build, see "
            f"https://pytorch.org/get-started/locally"
        )
    if not torch.cuda.is_available():
        oldest = _DRIVERS.get(int(torch.version.cuda.split(".")[0]), "a newer one")
        return (
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU: check "
            f"that nvidia-smi lists one, that the NVIDIA driver is {oldest} or newer, and that "
            f"CUDA_VISIBLE_DEVICES does not hide it"
        )
    return None


def compiler_obstacle() -> str | None:
    """Why nothing can be compiled, or None if it can."""
    try:
        compiler.load_nvrtc()
    except KernelUnavailable as error:
        return str(error)
    return None


def driver_obstacle() -> str | None:
    """Why the driver cannot load what NVRTC compiles, or None if it can.

    Within a major version, drivers load machine code of every minor version.
    """
    try:
        supported = driver_version()
    except (RuntimeError, ImportError) as error:
        first_line = str(error).strip().partition("\n")[0]
        return (
            f"the NVIDIA driver was not found ({first_line}): install it, version "
            f"{_DRIVERS[12]} or newer for a CUDA 12 build of torch, {_DRIVERS[13]} for CUDA 13"
        )
    version = compiler.nvrtc_version()
    if supported[0] >= version[0]:
        return None
    return (
        f"the NVIDIA driver supports CUDA {supported[0]}.{supported[1]} and cannot load what "
        f"NVRTC {version[0]}.{version[1]} compiles: update it to {_DRIVERS.get(version[0], '')} "
        f"or newer, or replace NVRTC: pip uninstall nvidia-cuda-nvrtc, then "
        f"pip install 'kan-impls[cuda{supported[0]}]'"
    )


@lru_cache
def device_obstacle(index: int) -> str | None:
    """Why the kernels cannot run on this GPU, or None if they can."""
    capability = torch.cuda.get_device_capability(index)
    if capability >= MIN_CAPABILITY:
        return None
    return (
        f"cuda:{index} ({torch.cuda.get_device_name(index)}) has compute capability "
        f"{capability[0]}.{capability[1]}, and the fused kernels need {MIN_CAPABILITY[0]}."
        f"{MIN_CAPABILITY[1]} (Ampere) or newer: take the PyTorch form of the product"
    )


def load_driver() -> Any:
    """The module `cuda.bindings.driver`; its functions raise RuntimeError without a driver."""
    from cuda.bindings import driver

    return driver


def driver_version() -> tuple[int, int]:
    """The newest CUDA version that the driver supports.

    Raises:
        ImportError: there is no cuda.bindings.
        RuntimeError: there is no driver.
    """
    status, number = load_driver().cuDriverGetVersion()
    if status != 0 or number == 0:
        raise RuntimeError(f"cuDriverGetVersion: {status}")
    return number // 1000, number % 1000 // 10


def driver_release() -> str:
    """What tells one driver from another: the CUDA version that it supports and, where Linux
    shows it, its own version, such as `"13.0 580.82.07"`.

    Raises:
        ImportError, RuntimeError: as `driver_version`.
    """
    supported = ".".join(map(str, driver_version()))
    with contextlib.suppress(OSError):
        found = re.search(r"\d+\.\d+(\.\d+)?", Path(_DRIVER_FILE).read_text(errors="replace"))
        if found:
            return f"{supported} {found[0]}"
    return supported
