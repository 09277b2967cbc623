"""From a kernel's name to its launch: compiled or found on disk, loaded once, launched.

After the first launch of a kernel on a device, a launch is one dictionary lookup and one
call of the driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Protocol

import torch

from kan_impls.fused import compiler, cubin_cache, cuda_errors, requirements
from kan_impls.fused.compiler import Compiled, CompileError, KernelUnavailable, Resources
from kan_impls.fused.requirements import available, index_of

__all__ = [
    "CompileError",
    "Compiled",
    "KernelUnavailable",
    "Plan",
    "Resources",
    "available",
    "compile_kernels",
    "launch",
    "warmup",
]

# Without asking, a block gets this much shared memory, static and dynamic together.
_DEFAULT_SHARED_BYTES = 48 * 1024

# Of what is stored with a compiled kernel: an entry of another schema is never found.
SCHEMA = 2

_ArgumentPointers = ctypes.c_char_p * 1


class Plan(Protocol):
    """What a launch needs: `fused.kernels.Launch` is one."""

    @property
    def kernel(self) -> str:
        """The C++ name expression, such as `"forward<Fourier<5>, float>"`."""

    @property
    def grid(self) -> tuple[int, int, int]: ...

    @property
    def threads(self) -> int: ...

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""

    @property
    def arguments(self) -> bytes:
        """The kernel's only parameter, a struct by value."""


class _Function:
    """A kernel loaded on one device, and the dynamic shared memory it may have so far."""

    __slots__ = ("handle", "shared_limit")

    def __init__(self, handle: Any, shared_limit: int) -> None:
        self.handle = handle
        self.shared_limit = shared_limit


_functions: dict[tuple[str, int], _Function] = {}
_contexts: dict[int, Any] = {}
_lock = threading.RLock()


def launch(plan: Plan, device: torch.device) -> None:
    """Launch a kernel on torch's current stream of `device`; compiles and loads it if need be.

    The bytes of `plan.arguments` are copied before this returns; the memory they point to must
    stay until the stream has passed the kernel, as PyTorch's allocator grants for tensors that
    were used on their own stream.

    Raises:
        KernelUnavailable: see `available`; or the driver takes neither this kernel nor its launch.
        CompileError: with the log of NVRTC.
        torch.OutOfMemoryError: the driver has no memory for it now.
        RuntimeError: the kernel is not loaded and a CUDA graph is being captured, or CUDA failed.
    """
    index = index_of(device)
    if index == torch.cuda.current_device():
        _launch(plan, index)
    else:
        with torch.cuda.device(index):
            _launch(plan, index)


def _launch(plan: Plan, index: int) -> None:
    function = _functions.get((plan.kernel, index))
    if function is None:
        _load([plan.kernel], index)
        function = _functions[plan.kernel, index]
    if plan.shared_bytes > function.shared_limit:
        _raise_shared_limit(function, plan, index)
    pointers = _ArgumentPointers(plan.arguments)  # keeps the bytes alive during the call
    stream = torch.cuda.current_stream(index).cuda_stream
    driver = _driver()
    call = (
        function.handle,
        *plan.grid,
        plan.threads,
        1,
        1,
        plan.shared_bytes,
        stream,
        ctypes.addressof(pointers),
        0,
    )
    (status,) = driver.cuLaunchKernel(*call)
    if int(status) in cuda_errors.FOREIGN_CONTEXT:
        with _own_context(index):
            (status,) = driver.cuLaunchKernel(*call)
    if status != 0:
        raise cuda_errors.error(
            int(status),
            f"cannot launch {plan.kernel} on cuda:{index} with grid {plan.grid}, "
            f"{plan.threads} threads and {plan.shared_bytes} bytes of shared memory: "
            f"{_describe(status)}",
            cuda_errors.BAD_LAUNCH,
        )


def warmup(kernels: Iterable[str], device: torch.device | str) -> None:
    """Compile and load `kernels` ahead, as needed before a CUDA graph is captured.

    Raises:
        KernelUnavailable: see `available`.
    """
    device = torch.device(device)
    available(device)
    index = index_of(device)
    with torch.cuda.device(index):
        _load(kernels, index)


def compile_kernels(names: Iterable[str], arch: str) -> dict[str, Compiled]:
    """Compile kernels for `arch` (`"sm_90"`), or take them from the disk; needs no GPU.

    Raises:
        KernelUnavailable: there is no NVRTC.
        CompileError: with the log of NVRTC.
        ValueError: NVRTC cannot compile for `arch`.
    """
    target = compiler.target_of(arch)
    unique = list(dict.fromkeys(names))
    if len(unique) == 1:
        return {unique[0]: _compile(unique[0], target)}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        compiled = threads.map(lambda name: _compile(name, target), unique)
        return dict(zip(unique, compiled, strict=True))


def _compile(name: str, target: str) -> Compiled:
    entry = cache_key(name, target)
    found = cubin_cache.read(entry)
    if found is not None:
        with contextlib.suppress(KeyError, TypeError):  # another version's, or nobody's: a miss
            return _described(*found)
    compiled = compiler.compile_kernel(name, target)
    resources = None if compiled.resources is None else asdict(compiled.resources)
    # The name is for people who look into the folder.
    description = {"symbol": compiled.symbol, "resources": resources, "kernel": name}
    cubin_cache.write(entry, description, compiled.image)
    return compiled


def _described(description: dict[str, Any], image: bytes) -> Compiled:
    """A kernel as `_compile` stored it.

    Raises:
        KeyError, TypeError: it stored something else.
    """
    symbol, resources = description["symbol"], description["resources"]
    counts = () if resources is None else resources.values() if type(resources) is dict else (None,)
    if not image or type(symbol) is not str or any(type(count) is not int for count in counts):
        raise TypeError("no kernel")
    return Compiled(image, symbol, None if resources is None else Resources(**resources))


def cache_key(name: str, target: str) -> str:
    """The key of a compiled kernel: everything its machine code depends on."""
    return cubin_cache.key(
        sources=dict(compiler.sources()),
        kernel=name,
        target=target,
        options=compiler.OPTIONS,
        nvrtc=compiler.nvrtc_build(),
        schema=SCHEMA,
    )


def _load(names: Iterable[str], index: int) -> None:
    """Load what is not loaded yet; the device `index` must be torch's current one."""
    with _lock:
        missing = [name for name in dict.fromkeys(names) if (name, index) not in _functions]
        if not missing:
            return
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{', '.join(missing)} is not loaded on cuda:{index} yet, and loading it would "
                f"break the CUDA graph that is being captured: run the layer once before the "
                f"capture, forward and backward, or call kan_impls.fused.jit.warmup"
            )
        available(torch.device("cuda", index))
        major, minor = torch.cuda.get_device_capability(index)
        images = compile_kernels(missing, f"sm_{major}{minor}")
        with _own_context(index):
            for name, compiled in images.items():
                _functions[name, index] = _load_image(name, compiled, index)


def _load_image(name: str, compiled: Compiled, index: int) -> _Function:
    driver = _driver()
    status, module = driver.cuModuleLoadData(compiled.image)
    if status == 0:  # with the driver's lazy loading, it is this call that loads the kernel
        status, handle = driver.cuModuleGetFunction(module, compiled.symbol.encode())
    if status != 0:
        form = "PTX" if compiled.resources is None else "machine code"
        raise cuda_errors.error(
            int(status),
            f"the driver (CUDA {'.'.join(map(str, requirements.driver_version()))}) does not load "
            f"{name} on cuda:{index}, {form} of NVRTC "
            f"{'.'.join(map(str, compiler.nvrtc_version()))}: {_describe(status)}; update the "
            f"driver, and see python -m kan_impls.fused doctor",
            cuda_errors.BAD_IMAGE,
        )
    static = 0 if compiled.resources is None else compiled.resources.shared
    return _Function(handle, _DEFAULT_SHARED_BYTES - static)


def _raise_shared_limit(function: _Function, plan: Plan, index: int) -> None:
    driver = _driver()
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    with _own_context(index):
        (status,) = driver.cuFuncSetAttribute(function.handle, attribute, plan.shared_bytes)
    if status != 0:
        raise cuda_errors.error(
            int(status),
            f"{plan.kernel} asks for {plan.shared_bytes} bytes of shared memory for a block, "
            f"which cuda:{index} does not have ({_describe(status)}): plan smaller tiles",
            cuda_errors.BAD_LAUNCH,
        )
    function.shared_limit = plan.shared_bytes


@contextlib.contextmanager
def _own_context(index: int) -> Iterator[None]:
    """The primary context of the device, which is the one torch uses, is current.

    It stays current in a thread that had none, such as a new one of the caller's or autograd's;
    the context of another library is current again afterwards.
    """
    driver = _driver()
    if index not in _contexts:
        device = _check(driver.cuDeviceGet(index))
        _contexts[index] = _check(driver.cuDevicePrimaryCtxRetain(device))
    own, before = _contexts[index], _check(driver.cuCtxGetCurrent())
    _check(driver.cuCtxSetCurrent(own))
    try:
        yield
    finally:
        if int(before) not in (0, int(own)):
            _check(driver.cuCtxSetCurrent(before))


@lru_cache(maxsize=1)
def _driver() -> Any:
    return requirements.load_driver()


def _check(returned: tuple[Any, ...]) -> Any:
    """What a function of the driver returned after its status, which must be success."""
    status, *values = returned
    if status != 0:
        raise cuda_errors.error(int(status), f"the CUDA driver failed: {_describe(status)}")
    return values[0] if values else None


def _describe(status: Any) -> str:
    """Name and text of a status of the driver."""
    failed, text = _driver().cuGetErrorString(status)
    return f"{status!r}" if failed else f"{status!r}, {text.decode()}"
