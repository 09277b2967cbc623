"""A stand-in for a GPU, its driver and its compiler, whose kernels run in emulation."""

import ctypes
import sys

from kan_impls.fused import choosing, cpu, cuda, dispatch, jit, kernels, problem, proof, trial
from kan_impls.fused.compiler import Compiled
from kan_impls.fused.kernels import Launch, Precision
from tests.emulator.build import Emulator
from tests.fused_helpers import FakeDriver, FakeGpus, pretend_environment


class EmulatingDriver(FakeDriver):
    """Runs what is launched; `launched` are the kernels, each with the address of its x."""

    def __init__(self, gpus):
        super().__init__()
        self.gpus = gpus
        self.edit = self.misbehave = None
        self.launched = []

    def cuModuleLoadData(self, image):  # noqa: N802
        self._call("cuModuleLoadData", (image,))
        return self.failures.get("cuModuleLoadData", 0), image.decode()

    def cuModuleGetFunction(self, module, symbol):  # noqa: N802
        return 0, module

    def cuLaunchKernel(self, kernel, x, y, z, threads, _1, _2, shared, *rest):  # noqa: N802
        pointer = ctypes.cast(rest[1], ctypes.POINTER(ctypes.c_void_p))[0]
        arguments = ctypes.string_at(pointer, problem._PROBLEM.size)
        assert_proven(kernel)
        self.launched.append((kernel, int.from_bytes(arguments[:8], "little")))
        if self.misbehave is None or self.misbehave(arguments) is not False:
            emulator(kernel, self.edit).run(Launch(kernel, (x, y, z), threads, shared, arguments))
        return (self.failures.get("cuLaunchKernel", 0),)


def assert_proven(kernel):
    """No kernel runs before it has passed its test, but within the test itself."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not trial._launch.__code__:
        frame = frame.f_back
    proven = {name for name, *_ in proof.known.proven}
    is_reduced = kernel.startswith("reduce<")  # proven with the forward pass
    assert frame is not None or kernel in proven or is_reduced, f"{kernel} is not proven"


_emulators = {}


def emulator(kernel, edit):
    if (kernel, edit) not in _emulators:
        _emulators[kernel, edit] = Emulator(None, [kernel], edit=edit if _changes(kernel) else None)
    return _emulators[kernel, edit]


def _changes(kernel):
    return not kernel.startswith("reduce")


def pretend_driver(monkeypatch, folder):
    """Tensors of the CPU stand for those of a GPU, in TF32, which is emulated faster; verdicts and
    choices lie in this folder."""
    gpus = FakeGpus(monkeypatch)
    pretend_environment(monkeypatch, folder)
    fake = EmulatingDriver(gpus)

    def compile_kernels(names, arch):
        return {name: Compiled(name.encode(), name, None) for name in names}

    monkeypatch.setattr(jit, "_driver", lambda: fake)
    monkeypatch.setattr(jit, "_functions", {})
    monkeypatch.setattr(jit, "_contexts", {})
    monkeypatch.setattr(jit, "available", lambda device: None)
    monkeypatch.setattr(jit, "compile_kernels", compile_kernels)
    monkeypatch.setattr(cuda, "device_of", lambda index: kernels.Device(90, 4))
    monkeypatch.setattr(cuda, "precision_of", lambda element: Precision.TF32)
    monkeypatch.setattr(dispatch, "_pay", lambda operands: True)
    monkeypatch.setattr(choosing, "known", {})
    monkeypatch.setattr(cpu, "compiled", lambda operands, basis: None)  # of a GPU's tensors nothing
    return fake
