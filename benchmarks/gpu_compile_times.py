"""How long each kernel of the reference configuration takes to compile, and to load."""

from __future__ import annotations

import time
from typing import Any

import torch

from kan_impls.fused import cuda, jit, kernels
from kan_impls.fused.kernels import Element, Layer, Precision

KINDS = (
    (Element.FLOAT, Precision.ACCURATE),
    (Element.FLOAT, Precision.TF32),
    (Element.BFLOAT16, Precision.TF32),
)
BATCH, WIDTH = 100, 1000
ADDRESS = 16  # planning looks only at alignment


def bases() -> tuple[kernels.Basis, kernels.Basis]:
    """Those of the reference configuration."""
    return kernels.fourier(5), kernels.bspline(5, 3, -1, 1)


def reference_kernels(device: kernels.Device) -> list[str]:
    """Names of all kernels that a training step of the reference launches, in every mode."""
    names = []
    for basis in bases():
        for kind in KINDS:
            layer = Layer(basis, BATCH, WIDTH, WIDTH, *kind, device)
            has = ADDRESS * basis.has_base
            read = {"x": ADDRESS, "weight": ADDRESS, "base": has, "scale": has}
            plans = [
                *kernels.forward(layer, **read, y=ADDRESS, workspace=ADDRESS),
                *kernels.weight_grad(
                    layer, **read, grad_y=ADDRESS, grad_weight=ADDRESS, grad_base=has,
                    grad_scale=has,
                ),
                *kernels.input_grad(layer, **read, grad_y=ADDRESS, grad_x=ADDRESS),
            ]  # fmt: skip
            names += [plan.kernel for plan in plans]
    return list(dict.fromkeys(names))


def measure(device: torch.device) -> dict[str, dict[str, Any]]:
    """Seconds, registers and spills by kernel; the cache of compiled kernels must be empty."""
    planned = cuda.device_of(device.index or 0)
    arch = f"sm_{planned.arch}"
    jit.compile_kernels([], arch)  # loads NVRTC
    rows: dict[str, dict[str, Any]] = {}
    for name in reference_kernels(planned):
        start = time.perf_counter()
        resources = jit.compile_kernels([name], arch)[name].resources
        compiled = time.perf_counter()
        jit.compile_kernels([name], arch)
        read = time.perf_counter()
        jit.warmup([name], device)
        loaded = time.perf_counter()
        rows[name] = {
            "compile_s": compiled - start,
            "read_s": read - compiled,
            "read_and_load_s": loaded - read,
            "registers": None if resources is None else resources.registers,
            "spills": None if resources is None else resources.spills,
        }
    return rows
