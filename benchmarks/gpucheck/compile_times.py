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
