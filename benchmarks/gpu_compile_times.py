"""How long each kernel of the reference configuration takes to compile, and to load."""

from __future__ import annotations

import time
from typing import Any

import torch

from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import cuda, jit, kernels
from kan_impls.fused.kernels import Element, Functions, Layer, Precision

KINDS = (
    (Element.FLOAT, Precision.ACCURATE),
    (Element.FLOAT, Precision.TF32),
    (Element.BFLOAT16, Precision.TF32),
)
BATCH, WIDTH = 100, 1000


def functions() -> tuple[Functions, Functions]:
    """Those of the reference configuration."""
    splines = UniformBSplineBasis.over(-1, 1, 5, 3)
    return Functions(FourierBasis(5)), Functions(splines, has_base=True, has_scale=True)


def reference_kernels(device: kernels.Device) -> list[str]:
    """Names of all kernels that a training step of the reference launches, in every mode."""
    names = []
    for each in functions():
        for kind in KINDS:
            layer = Layer(each, BATCH, WIDTH, WIDTH, *kind, device)
            for plan in (kernels.forward, kernels.weight_grad, kernels.input_grad):
                names += [launch.kernel for launch in plan(layer).launches]
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
