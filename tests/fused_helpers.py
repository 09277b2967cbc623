"""Tiny CUDA sources and stand-ins for a driver and a GPU, for the tests of `fused`."""

import ctypes
import os
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from kan_impls.fused import compiler, cpu, cubin_cache, host_compiler, jit, proof, requirements
from kan_impls.fused.compiler import MAIN

needs_nvrtc = pytest.mark.skipif(
    requirements.compiler_obstacle() is not None,
    reason=f"cannot compile CUDA: {requirements.compiler_obstacle()}",
)


def has_host_compiler():
    """Whether the product form is to be compiled here; that it then passes its known-answer test
    is what the tests say."""
    try:
        host_compiler.find()
    except host_compiler.HostCompileError:
        return False
    return os.environ.get(cpu.VARIABLE) != "0"


# `scale` is clean. `crowded` holds 64 values in 24 registers, and so must spill; `framed` picks
# from an array by a run-time index, which takes stack without a spill.
SOURCES = {
    MAIN: """
#include "part.cuh"
struct Arguments { float* data; int size; float factor; };
template <int N> __global__ void scale(const Arguments arguments) {
  __shared__ float buffer[N];
  buffer[threadIdx.x] = arguments.data[threadIdx.x];
  __syncthreads();
  if (threadIdx.x < arguments.size) arguments.data[threadIdx.x] = buffer[threadIdx.x ^ 1] * times(arguments.factor);
}
template <int N> __global__ void __maxnreg__(24) crowded(const Arguments arguments) {
  float values[N];
#pragma unroll
  for (int i = 0; i < N; i++) values[i] = arguments.data[i * 32 + threadIdx.x];
#pragma unroll
  for (int i = 0; i < N; i++) arguments.data[i * 32] = values[i] * values[(i * 7 + 3) % N];
}
template <int N> __global__ void framed(const Arguments arguments) {
  float values[N];
  for (int i = 0; i < N; i++) values[i * arguments.size % N] = arguments.data[i];
  for (int i = 0; i < N; i++) arguments.data[i] = values[(i + arguments.size) % N];
}
extern __shared__ float dynamic[];
template <int N> __global__ void roomy(const Arguments arguments) {
  dynamic[threadIdx.x * N] = arguments.data[threadIdx.x];
  __syncthreads();
  arguments.data[threadIdx.x] = dynamic[(threadIdx.x ^ 1) * N] * arguments.factor;
}
""",  # noqa: E501
    "part.cuh": "__device__ float times(float factor) { return factor; }\n",
}


class Handle(str):
    """What the driver returns for a context: it has an address, too."""

    def __int__(self):
        return 1 + abs(hash(self))


class FakeDriver:
    """Records calls as the driver API takes them; `failures[function]` is what it returns.

    `context` is the current one; a launch in another than the device's fails.
    """

    CUresult = SimpleNamespace(CUDA_ERROR_INVALID_CONTEXT=201)
    CUfunction_attribute = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic shared bytes"
    )

    def __init__(self):
        self.calls = []
        self.failures = {}
        self.context = 0

    def _call(self, name, arguments, *results):
        self.calls.append((name, arguments))
        return (self.failures.get(name, 0), *results)

    def named(self, name):
        return [arguments for called, arguments in self.calls if called == name]

    @property
    def counts(self):
        return Counter(name for name, _ in self.calls)

    def cuDeviceGet(self, index):  # noqa: N802
        return self._call("cuDeviceGet", (index,), f"device {index}")

    def cuDevicePrimaryCtxRetain(self, device):  # noqa: N802
        return self._call("cuDevicePrimaryCtxRetain", (device,), Handle(f"context of {device}"))

    def cuCtxGetCurrent(self):  # noqa: N802
        return 0, self.context

    def cuCtxSetCurrent(self, context):  # noqa: N802
        if self.failures.get("cuLaunchKernel") == self.CUresult.CUDA_ERROR_INVALID_CONTEXT:
            del self.failures["cuLaunchKernel"]
        self.context = context
        return self._call("cuCtxSetCurrent", (context,))

    def cuModuleLoadData(self, image):  # noqa: N802
        return self._call("cuModuleLoadData", (image,), f"module {image.decode()}")

    def cuModuleGetFunction(self, module, symbol):  # noqa: N802
        return self._call("cuModuleGetFunction", (module, symbol), f"function {symbol.decode()}")

    def cuFuncSetAttribute(self, function, attribute, value):  # noqa: N802
        return self._call("cuFuncSetAttribute", (function, attribute, value))

    def cuLaunchKernel(self, *arguments):  # noqa: N802
        *geometry, parameters, extra = arguments
        pointer = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))[0]
        return self._call("cuLaunchKernel", (*geometry, ctypes.string_at(pointer, 4), extra))

    def cuGetErrorString(self, status):  # noqa: N802
        return 0, b"text of the driver"


class FakeGpus:
    """What `torch.cuda` says of three GPUs of two kinds, the first one current."""

    capabilities = ((9, 0), (8, 6), (9, 0))

    def __init__(self, monkeypatch):
        self.current = 0
        self.is_capturing = False
        for name in (
            "current_device",
            "current_stream",
            "device",
            "get_device_capability",
            "get_device_name",
            "is_current_stream_capturing",
        ):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def current_device(self):
        return self.current

    def current_stream(self, device):
        return SimpleNamespace(cuda_stream=1000 + torch.device("cuda", device).index)

    @contextmanager
    def device(self, index):
        outer, self.current = self.current, index
        yield
        self.current = outer

    def get_device_capability(self, device):
        return self.capabilities[self._index(device)]

    def get_device_name(self, device):
        return "NVIDIA H100" if self.get_device_capability(device)[0] == 9 else "NVIDIA A10"

    def _index(self, device):
        """Tensors of the CPU stand for those of the current GPU."""
        index = device if isinstance(device, int) else torch.device(device).index
        return self.current if index is None else index

    def is_current_stream_capturing(self):
        return self.is_capturing


def pretend_environment(monkeypatch, folder):
    """Versions of a driver and of NVRTC, nothing known, and verdicts in this folder."""
    monkeypatch.setenv(cubin_cache.VARIABLE, str(folder))
    monkeypatch.setattr(cubin_cache, "_has_warned", False)
    monkeypatch.setattr(requirements, "driver_release", lambda: "13.0 580.82")
    monkeypatch.setattr(compiler, "nvrtc_build", lambda: "13.0.88 CL-1")
    monkeypatch.setattr(proof, "known", proof.Known())


def pretend_gpu(monkeypatch, folder):
    """`pretend_environment`, and tensors of the CPU as those of a GPU, whose kernels are loaded."""
    pretend_environment(monkeypatch, folder)
    monkeypatch.setattr(jit, "available", lambda device: None)
    monkeypatch.setattr(jit, "warmup", lambda names, device: None)
    return FakeGpus(monkeypatch)
