"""CUDA C++ to machine code with NVRTC; needs no GPU.

One kernel, one program, one image: several kernels in one program take as long as each in
its own, since reading the sources is a tenth of the work, and programs of their own compile
in threads at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import torch

MAIN = "kernels.cu"

# `-default-device`: functions without a qualifier are device functions. The last one makes the
# assembler report registers, spills and memory into NVRTC's log.
OPTIONS = ("--std=c++17", "-default-device", "--ptxas-options=-v")


class KernelUnavailable(RuntimeError):  # noqa: N818  (a state of the machine, not a fault)
    """The fused kernels cannot run here; the message names the cause and the remedy."""


class CompileError(RuntimeError):
    """NVRTC refused the sources; the message holds its log."""


@dataclass(frozen=True)
class Resources:
    """What one thread of a kernel takes: registers, and bytes spilled to and read from local
    memory, and of stack; `shared` are the bytes of static shared memory of a block."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int

    @property
    def spills(self) -> bool:
        return self.spill_stores > 0 or self.spill_loads > 0


@dataclass(frozen=True)
class Compiled:
    """A kernel as the driver loads it: `image` is a cubin, or PTX (then without `resources`,
    which only the driver's compiler decides); `symbol` is its mangled name."""

    image: bytes
    symbol: str
    resources: Resources | None


@lru_cache(maxsize=1)
def sources() -> Mapping[str, str]:
    """The CUDA C++ files of this package: name to text."""
    folder = resources.files("kan_impls.fused") / "csrc"
    files = [file for file in folder.iterdir() if file.name.endswith((".cu", ".cuh"))]
    return {file.name: file.read_text("utf-8") for file in sorted(files, key=lambda f: f.name)}


def install_command() -> str:
    """The command that installs compiler and bindings for the CUDA version of this torch."""
    is_cuda12 = (torch.version.cuda or "").startswith("12.")
    return f"pip install 'kan-impls[{'cuda12' if is_cuda12 else 'cuda'}]'"


@lru_cache(maxsize=1)
def load_nvrtc() -> Any:
    """The module `cuda.bindings.nvrtc`, with its library loaded.

    Raises:
        KernelUnavailable: one of the two is missing.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise KernelUnavailable(
            f"the fused CUDA kernels need the Python package cuda-bindings, and importing it "
            f"failed ({error}): {install_command()}"
        ) from error
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise KernelUnavailable(
            f"the fused CUDA kernels are compiled by NVRTC, and its library was not found "
            f"({first_line}): {install_command()}"
        ) from error
    return nvrtc


def nvrtc_version() -> tuple[int, int]:
    """Major and minor version of NVRTC, which are those of its CUDA toolkit."""
    major, minor = _check(load_nvrtc().nvrtcVersion())
    return major, minor


@lru_cache(maxsize=1)
def nvrtc_build() -> str:
    """The full version of NVRTC, such as `"13.0.88 CL-36424714"`, as its PTX states it.

    NVRTC's own functions tell major and minor version only. A tenth of a second, once.
    """
    name = "probe"
    files = {MAIN: f"__global__ void {name}() {{}}"}
    oldest = min(_check(load_nvrtc().nvrtcGetSupportedArchs()))
    text = compile_kernel(name, f"compute_{oldest}", files).image.decode(errors="replace")
    release = re.search(r"Cuda compilation tools, .*V([\d.]+)", text)
    build = re.search(r"Compiler Build ID: (\S+)", text)
    version = release[1] if release else ".".join(map(str, nvrtc_version()))
    return f"{version} {build[1]}" if build else version


def target_of(arch: str) -> str:
    """What to compile for so that `arch` (`"sm_90"`) runs it: itself, or `compute_XY`, the
    newest older architecture as PTX, where NVRTC is older than the GPU.

    Raises:
        ValueError: `arch` is not of that form, or older than anything NVRTC knows.
    """
    match = re.fullmatch(r"sm_(\d+)", arch)
    known = _check(load_nvrtc().nvrtcGetSupportedArchs())
    number = int(match[1]) if match else 0
    if number in known:
        return arch
    older = [candidate for candidate in known if candidate < number]
    if not older:
        raise ValueError(
            f"the architecture is {arch!r}; expected 'sm_XY', one of "
            + ", ".join(f"sm_{number}" for number in known)
        )
    return f"compute_{max(older)}"


def compile_kernel(
    name: str,
    target: str,
    files: Mapping[str, str] | None = None,
    options: tuple[str, ...] = OPTIONS,
) -> Compiled:
    """Compile the kernel of the C++ name expression `name` for `target`, see `target_of`.

    Args:
        files: name to text, `MAIN` the one to compile and the others what it may include;
            those of this package by default.

    Raises:
        CompileError: with NVRTC's log.
        KernelUnavailable: there is no NVRTC.
    """
    nvrtc = load_nvrtc()
    headers = {**(sources() if files is None else files)}
    main = headers.pop(MAIN)
    program = _check(
        nvrtc.nvrtcCreateProgram(
            main.encode(),
            MAIN.encode(),
            len(headers),
            [text.encode() for text in headers.values()],
            [header.encode() for header in headers],
        )
    )
    try:
        _check(nvrtc.nvrtcAddNameExpression(program, name.encode()))
        flags = [f"--gpu-architecture={target}".encode(), *(option.encode() for option in options)]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        text = log.rstrip(b"\0").decode(errors="replace").strip()
        if result != 0:
            raise CompileError(f"NVRTC cannot compile {name} for {target} ({result}):\n{text}")
        symbol = _check(nvrtc.nvrtcGetLoweredName(program, name.encode())).decode()
        if target.startswith("compute_"):
            return Compiled(_read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program), symbol, None)
        cubin = _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        return Compiled(cubin, symbol, parse_resources(text, symbol))
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def parse_resources(log: str, symbol: str) -> Resources:
    """What the assembler's report says of the kernel `symbol`, in a program with one kernel.

    Spills of functions that were not inlined count as the kernel's.

    Raises:
        ValueError: the log has no report on that kernel.
    """
    entry = re.search(
        rf"Compiling entry function '{re.escape(symbol)}'.*?Used (\d+) registers([^\n]*)",
        log,
        re.DOTALL,
    )
    if entry is None:
        raise ValueError(f"no resource report on {symbol} in the log of NVRTC:\n{log}")
    others = set(re.findall(r"Compiling entry function '(\S+)'", log)) - {symbol}
    properties = re.findall(
        r"Function properties for (\S+)\s+ptxas\s+\.\s+(\d+) bytes stack frame, "
        r"(\d+) bytes spill stores, (\d+) bytes spill loads",
        log,
    )
    own = [list(map(int, numbers)) for function, *numbers in properties if function not in others]
    shared = re.search(r"(\d+) bytes smem", entry[2])
    stack = re.search(r"(\d+) bytes cumulative stack size", entry[2])
    return Resources(
        registers=int(entry[1]),
        spill_stores=sum(stores for _, stores, _ in own),
        spill_loads=sum(loads for _, _, loads in own),
        stack=int(stack[1]) if stack else sum(frame for frame, _, _ in own),
        shared=int(shared[1]) if shared else 0,
    )


def _check(returned: tuple[Any, ...]) -> Any:
    """What an NVRTC function returned after its status, which must be success."""
    status, *values = returned
    if status != 0:
        raise CompileError(f"NVRTC failed: {status}")
    return values[0] if len(values) == 1 else values


def _read(size: Any, get: Any, program: Any) -> bytes:
    """The bytes of a result that NVRTC copies into a buffer of the size it names."""
    buffer = bytearray(_check(size(program)))
    _check(get(program, buffer))
    return bytes(buffer)
