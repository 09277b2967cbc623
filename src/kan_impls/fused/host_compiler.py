"""csrc/cpu.cpp to a shared library with the system's C++ compiler, kept on disk like the CUDA
kernels.

The library takes OpenMP from the process, not from a file that it names: so it shares the threads
of torch, and follows `torch.set_num_threads`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path

from kan_impls.fused import cubin_cache

MAIN = "cpu.cpp"

# Each result rounded as the source says; where NaN is to survive, no -ffast-math. Without jump
# threading, loops over points keep no branch that would hinder vectors.
OPTIONS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp", "-fvisibility=default"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-thread-jumps"),
)

_TIMEOUT_S = 120


class HostCompileError(RuntimeError):
    """There is no library; the message says why, and what to do."""


@lru_cache(maxsize=1)
def find() -> str:
    """The path of the compiler: that of `CXX` if it is set, else the first of c++, g++ and clang++.

    Raises:
        HostCompileError: there is none.
    """
    own = os.environ.get("CXX")
    names = [own] if own else ["c++", "g++", "clang++"]
    for name in names if os.name == "posix" else ():
        path = shutil.which(name)
        if path is not None:
            return path
    raise HostCompileError(
        f"no C++ compiler was found, of {', '.join(names)}: install g++, or name one in CXX, "
        "without options"
    )


@lru_cache(maxsize=1)
def target() -> str:
    """The compiler's version and the instructions of this CPU, as its predefined macros."""
    return _run([find(), *OPTIONS, "-dM", "-E", "-x", "c++", os.devnull])


@lru_cache(maxsize=1)
def sources() -> Mapping[str, str]:
    """What is compiled, and what it includes: name to text."""
    folder = resources.files("kan_impls.fused") / "csrc"
    files = [file for file in folder.iterdir() if file.name.endswith((".cpp", ".h", ".cuh"))]
    return {file.name: file.read_text("utf-8") for file in sorted(files, key=lambda f: f.name)}


def load(basis: str, functions: int) -> ctypes.CDLL:
    """The library for a struct of bases.cuh that has so many functions.

    Raises:
        HostCompileError: it cannot be compiled or loaded.
    """
    defined = (f"-DKAN_BASIS={basis}", f"-DKAN_FUNCTIONS={functions}")
    key = cubin_cache.key(sources=dict(sources()), target=target(), options=[*OPTIONS, *defined])
    try:
        return _load(basis, key, defined)
    except OSError as error:
        raise HostCompileError(
            f"the compiled library cannot be written or loaded: {error}; set TMPDIR to a folder "
            "from which programs may run"
        ) from error


def _load(basis: str, key: str, defined: tuple[str, ...]) -> ctypes.CDLL:
    found = cubin_cache.read(key)
    with tempfile.TemporaryDirectory(prefix="kan_impls_") as folder:
        library = Path(folder) / "cpu.so"
        if found is None:
            _compile(Path(folder), library, defined)
            cubin_cache.write(key, {"basis": basis}, library.read_bytes())
        else:
            library.write_bytes(found[1])
        return ctypes.CDLL(str(library))


def _compile(folder: Path, library: Path, defined: tuple[str, ...]) -> None:
    for name, text in sources().items():
        (folder / name).write_text(text, "utf-8")
    unit = folder / "cpu.o"
    _run([find(), *OPTIONS, *defined, "-c", str(folder / MAIN), "-o", str(unit)])
    # Apart, and without -fopenmp: the library shall not name an OpenMP of its own.
    _run([find(), "-shared", str(unit), "-o", str(library)])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostCompileError(f"{command[0]} failed: {error}") from error
    if done.returncode != 0:
        raise HostCompileError(f"{command[0]} refused the source:\n{done.stderr[:4000]}")
    return done.stdout
