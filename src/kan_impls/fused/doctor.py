"""A report on what the fused kernels need, and how to get what is missing."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from importlib import metadata

import torch

from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import (
    compiler,
    cpu,
    cubin_cache,
    host_compiler,
    kernels,
    proof,
    requirements,
    tuning,
)

# What is compiled for trial where there is no GPU.
_DEFAULT_ARCH = "sm_90"


def report() -> tuple[list[str], bool]:
    """The lines of the report, and whether the kernels can run on some GPU here."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    compiles, compilation = _compile_one(_arch(devices[0]) if devices else _DEFAULT_ARCH)
    usable = [device for device in devices if compiles and _is_available(device)]
    lines = []
    for title, facts in (
        ("torch", _torch()),
        ("CPU", [_cpu()]),
        ("driver", _driver()),
        ("GPU", _gpus(devices)),
        ("NVRTC", _nvrtc()),
        ("compile", [compilation]),
        ("cache", _cache()),
        ("tests", _tests(usable)),
        ("forms", _forms(devices)),
    ):
        lines += [f"{title:8}{line}" for line in facts]
    verdict = f"can run on {', '.join(usable)}" if usable else "cannot run"
    return [*lines, f"The fused CUDA kernels {verdict}."], bool(usable)


def _arch(device: str) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _is_available(device: str) -> bool:
    try:
        requirements.available(device)
    except compiler.KernelUnavailable:
        return False
    return True


def _compile_one(arch: str) -> tuple[bool, str]:
    """Whether a kernel compiles for `arch`, and the line that says so; not from the cache."""
    name = kernels.kernels_of_all()[0]
    start = time.perf_counter()
    try:
        compiler.compile_kernel(name, compiler.target_of(arch))
    except compiler.KernelUnavailable:
        return False, "not tried, without NVRTC"
    except (compiler.CompileError, ValueError) as error:
        return False, f"FAILED: {error}"
    seconds = time.perf_counter() - start
    return True, f"{seconds:.2f} s for {name} on {arch}, without the cache"


def _torch() -> Iterator[str]:
    yield f"{torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    yield from _missing(requirements.torch_obstacle())


def _cpu() -> str:
    """Whether the product form is compiled for this CPU, shown with the default splines."""
    obstacle = cpu.obstacle(UniformBSplineBasis.over(-1, 1, 5, 3))
    if obstacle is not None:
        return f"product form of torch's operators: {obstacle}"
    return f"product form compiled by {host_compiler.find()}, known-answer test passed"


def _driver() -> Iterator[str]:
    with contextlib.suppress(RuntimeError, ImportError):
        yield "supports CUDA {}.{}".format(*requirements.driver_version())
    yield from _missing(requirements.driver_obstacle())


def _gpus(devices: list[str]) -> Iterator[str]:
    for index, device in enumerate(devices):
        yield f"{device} {torch.cuda.get_device_name(device)}, {_arch(device)}"
        yield from _missing(requirements.device_obstacle(index))
    if not devices:
        yield "none"


def _nvrtc() -> Iterator[str]:
    obstacle = requirements.compiler_obstacle()
    if obstacle is None:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # comes with cuda.bindings

        path = load_nvidia_dynamic_lib("nvrtc").abs_path
        version = "{}.{}".format(*compiler.nvrtc_version())
        yield f"{version}, {path}, cuda-bindings {metadata.version('cuda-bindings')}"
    yield from _missing(obstacle)


def _cache() -> Iterator[str]:
    try:
        folder, entries, size, obstacle = cubin_cache.describe()
    except OSError as error:
        yield f"MISSING: {error}: set {cubin_cache.VARIABLE} to a folder that can be written"
        return
    origin = "" if cubin_cache.VARIABLE not in os.environ else f" (by {cubin_cache.VARIABLE})"
    yield f"{folder}{origin}, {entries} kernels, {size / 1024:.0f} KiB"
    if obstacle:
        yield (
            f"NOT WRITABLE: {obstacle}: kernels are compiled in every process; set "
            f"{cubin_cache.VARIABLE} to a folder that can be written"
        )


def _tests(devices: list[str]) -> Iterator[str]:
    """The known-answer tests of the kernels, with their figures; of each GPU model once."""
    models = _models(devices)
    for model, device in models.items():
        found = list(proof.verdicts(device))
        refused = sum(bool(verdict.fault) for _, verdict in found)
        yield f"{model}: {len(found) - refused} kernels proven, {refused} refused"
        yield from (f"  {subject}: {verdict}" for subject, verdict in found)
    if not models:
        yield "none, without a GPU that can run the kernels"


def _forms(devices: list[str]) -> Iterator[str]:
    """The forms that were chosen by measurement, with their times; of each GPU model once."""
    models = _models(devices)
    for model, device in models.items():
        found = list(tuning.choices(device))
        yield f"{model}: {len(found)} chosen by measurement"
        yield from (f"  {subject}: {choice}" for subject, choice in found)
    if not models:
        yield "none, without a GPU"


def _models(devices: list[str]) -> dict[str, torch.device]:
    return {proof.environment_of(device)["gpu"]: device for device in map(torch.device, devices)}


def _missing(obstacle: str | None) -> Iterator[str]:
    if obstacle:
        yield f"MISSING: {obstacle}"
