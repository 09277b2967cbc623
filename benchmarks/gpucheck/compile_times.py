"""How long each kernel of the reference configuration takes to compile, and to load.

KAN_IMPLS_CACHE=an-empty-folder python -m gpucheck.compile_times RESULT.json
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from gpucheck import output
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


def measure(device: torch.device) -> dict[str, Any]:
    planned = cuda.device_of(device.index)
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
    return {"arch": arch, "kernels": rows}


def main() -> int:
    device = torch.device("cuda", 0)
    torch.cuda.init()
    found = measure(device)
    output.write(Path(sys.argv[1]), found)
    spilled = [name for name, row in found["kernels"].items() if row["spills"]]
    if spilled:
        print(f"kernels with register spills: {', '.join(spilled)}")
    return int(bool(spilled))


if __name__ == "__main__":
    sys.exit(main())
