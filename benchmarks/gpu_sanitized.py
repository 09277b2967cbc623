"""The program that the sanitizers watch: every kernel at small odd shapes, in all modes.

    compute-sanitizer --tool memcheck python benchmarks/gpu_sanitized.py [--plant memcheck]

--plant launches instead a kernel with a fault for the named tool, a write beyond its tensor or a
race in shared memory: a sanitizer that reports nothing then, sees nothing.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch

import kan_impls
from kan_impls.basis.fourier import FourierBasis
from kan_impls.fused import compiler, jit, kernels, problem
from kan_impls.fused.kernels import Element, Functions, Launch, Layer, Precision

# Rows, inputs, outputs: below and above the tiles, with and without vectors and split sums.
SHAPES = ((1, 3, 5), (9, 37, 33), (70, 18, 68), (129, 5, 7), (1100, 6, 9))
LAYERS = (
    ("fused_fourier_kan", {"grid_size": 5}),
    ("fused_efficient_kan", {"grid_size": 5, "spline_order": 3}),
)

# The name of the argument's type is what the sanitizers choose kernels by.
PLANTED = r"""
#include "problem.cuh"
template <int RACE>
__global__ void planted(const Problem problem) {
  __shared__ float shared[128];
  shared[threadIdx.x] = threadIdx.x;
  if (!RACE) __syncthreads();
  long long beyond = !RACE && threadIdx.x == 0 ? 1 << 22 : 0;
  problem.grad_x[beyond + threadIdx.x] = shared[127 - threadIdx.x];
}
"""
PLANTS = {"memcheck": "planted<0>", "racecheck": "planted<1>"}


@contextlib.contextmanager
def mode(name: str) -> Iterator[None]:
    """`"accurate"`, `"tf32"` or `"bfloat16"`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=name == "bfloat16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def run_all() -> None:
    for rows, inputs, outputs in SHAPES:
        for name, config in LAYERS:
            layer = kan_impls.create_layer(
                name, inputs, outputs, backend="fused", device="cuda", **config
            )
            for precision in ("accurate", "tf32", "bfloat16"):
                x = (torch.rand(rows, inputs, device="cuda") * 4 - 2).requires_grad_()
                with mode(precision):
                    y = layer(x)
                y.backward(torch.randn_like(y))
                assert y.isfinite().all(), (name, precision, rows)
                assert x.grad is not None
                assert x.grad.isfinite().all(), (name, precision, rows)
                layer.zero_grad()


def run_planted(kernel: str) -> None:
    files = {**compiler.sources(), compiler.MAIN: PLANTED}
    compiler.sources = lambda: files  # type: ignore[assignment]
    functions = Functions(FourierBasis(1))
    layer = Layer(functions, 1, 1, 1, Element.FLOAT, Precision.TF32, kernels.Device(90, 1))
    target = torch.zeros(128, device="cuda")
    arguments = problem.pack(layer, dict.fromkeys(("x", "grad_x"), target.data_ptr()))
    jit.launch(Launch(kernel, (1, 1, 1), 128, 0, arguments), target.device)
    torch.cuda.synchronize()


if __name__ == "__main__":
    if "--plant" in sys.argv:
        run_planted(PLANTS[sys.argv[-1]])
    else:
        run_all()
    torch.cuda.synchronize()
    print("done")
