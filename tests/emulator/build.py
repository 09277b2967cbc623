"""Compiles CUDA source with g++ against cuda_emulation.h, and launches its kernels from Python.

    emulator = Emulator(None, ["forward<Fourier<5>, float, 3, 4>"])
    emulator.run(launch, seed=1)

A sanitizer must be in the process from its start: see run_in_subprocess.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "src" / "kan_impls" / "fused" / "csrc"

# -ffp-contract=off: the same results on every CPU; kernels write fmaf where they want it.
# -fstack-clash-protection: a large array cannot reach past the page that guards a stack.
FLAGS = [
    *("-std=c++17", "-O1", "-g1", "-shared", "-fPIC", "-pthread", "-DKAN_EMULATION"),
    *("-fvisibility=hidden", "-fno-gnu-unique", "-ftls-model=initial-exec"),
    *("-ffp-contract=off", "-fstack-clash-protection", "-Wno-unknown-pragmas"),
]
SANITIZERS = {
    "address,undefined": ["-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"],
    "thread": [],
}
# The library that has to be loaded first, and what its reports need.
RUNTIMES = {
    "address,undefined": (
        "libasan.so",
        {
            "ASAN_OPTIONS": "detect_leaks=0:handle_abort=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        },
    ),
    # The longest history: a report names the earlier access only as far as it reaches.
    # ignore_noninstrumented_modules stays off: it would hide the races of what copies land.
    "thread": ("libtsan.so", {"TSAN_OPTIONS": "halt_on_error=1:history_size=7"}),
}

Edit = Callable[[str], str] | Mapping[str, str]


class EmulationError(Exception):
    """The source does not compile, or a launch was refused or failed; the message says why."""


class Launch(Protocol):
    """What `run` needs to know: see `kan_impls.fused.kernels.Launch`."""

    @property
    def kernel(self) -> str: ...
    @property
    def grid(self) -> tuple[int, int, int]: ...
    @property
    def threads(self) -> int: ...
    @property
    def shared_bytes(self) -> int: ...
    @property
    def arguments(self) -> bytes: ...


class _Request(ctypes.Structure):
    """`Request` of launch.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("threads", ctypes.c_uint),
        ("shared_bytes", ctypes.c_uint64),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("argument_bytes", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("workers", ctypes.c_uint),
        ("message_bytes", ctypes.c_uint),
        ("message", ctypes.c_char_p),
    )


def find_compiler() -> str | None:
    """The path of g++, or None."""
    return shutil.which("g++")


class Emulator:
    """The compiled kernels of one source.

    `source` is CUDA source text; None means kernels.cu of this repository. `kernels` are C++
    name expressions, each a `__global__` function of one parameter. `sanitize` is a key of
    `SANITIZERS`. `edit` plants a change: a function from old to new text for every file, or the
    new text of some files by name (a given `source` is the file "source.cu"; it may include
    this repository's .cuh files).

    Raises EmulationError if g++ is missing or refuses the source, or the edit changes nothing.
    """

    def __init__(
        self,
        source: str | None,
        kernels: Sequence[str],
        sanitize: str | None = None,
        edit: Edit | None = None,
    ) -> None:
        if sanitize is not None and sanitize not in SANITIZERS:
            raise ValueError(f"sanitize is {sanitize!r}; expected one of {[*SANITIZERS]} or None")
        self.kernels = tuple(kernels)
        self.sanitize = sanitize
        self.path = _compile(_files(source, edit), self.kernels, sanitize)
        self._library: ctypes.CDLL | None = None

    def run(self, launch: Launch, seed: int = 0, threads: int = 1) -> None:
        """Run one launch; `seed` orders threads and blocks (0: ascending) and `threads` is how
        many OS threads share the blocks; TSan sees races between blocks only with two. The arrays
        that launch.arguments points to must live.

        Raises EmulationError if the launch is refused or fails.
        """
        if launch.kernel not in self.kernels:
            raise EmulationError(
                f"the kernel {launch.kernel!r} was not compiled; expected one of "
                f"{list(self.kernels)}: name it when making the Emulator"
            )
        # Padding that the struct ends with does not reach its alignment in a bytes object.
        buffer = ctypes.create_string_buffer(launch.arguments, len(launch.arguments) + 16)
        address = ctypes.addressof(buffer)
        aligned = (address + 15) // 16 * 16
        ctypes.memmove(aligned, launch.arguments, len(launch.arguments))
        message = ctypes.create_string_buffer(4096)
        request = _Request(
            grid=tuple(launch.grid),
            threads=launch.threads,
            shared_bytes=launch.shared_bytes,
            arguments=(ctypes.c_void_p * 1)(aligned),
            argument_bytes=len(launch.arguments),
            seed=seed,
            workers=threads,
            message_bytes=len(message),
            message=ctypes.cast(message, ctypes.c_char_p),
        )
        function = getattr(self._load(), _exported(self.kernels.index(launch.kernel)))
        if function(ctypes.byref(request)) != 0:
            raise EmulationError(f"{launch.kernel}: {message.value.decode()}")

    def _load(self) -> ctypes.CDLL:
        if self._library is None:
            if self.sanitize is not None:
                runtime = RUNTIMES[self.sanitize][0]
                if runtime not in os.environ.get("LD_PRELOAD", ""):
                    raise EmulationError(
                        f"{runtime} is not in this process; expected it from the start: "
                        "launch within run_in_subprocess"
                    )
            self._library = ctypes.CDLL(str(self.path))
        return self._library


def _files(source: str | None, edit: Edit | None) -> dict[str, str]:
    """Name -> text of the files to compile that are not taken from where they are.

    The first is the one to include; a name that is a path is a file left in its place.
    """
    if source is not None:
        files = {"source.cu": source}
    else:
        paths = [CSRC / "kernels.cu", *sorted(CSRC.glob("*.cuh"))]
        if not paths[0].exists():
            raise EmulationError(f"{paths[0]} does not exist; expected the kernels of this project")
        files = {path.name: path.read_text() for path in paths}
    if edit is None:
        return files if source is not None else {}
    if callable(edit):
        edited = {name: edit(text) for name, text in files.items()}
    else:
        if unknown := set(edit) - set(files):
            raise EmulationError(f"the edit names {sorted(unknown)}; expected some of {[*files]}")
        edited = {**files, **edit}
    if edited == files:
        raise EmulationError("the edit changes nothing; expected a change: adapt it to the source")
    return edited


def _exported(index: int) -> str:
    return f"emulated_kernel_{index}"


def _compile(files: Mapping[str, str], kernels: Sequence[str], sanitize: str | None) -> Path:
    """The shared library, from the cache or newly compiled."""
    compiler = find_compiler()
    if compiler is None:
        raise EmulationError("g++ is not installed; expected it in PATH: install g++")
    flags = [*FLAGS, f"-I{HERE}"]
    if sanitize is not None:
        flags += [f"-fsanitize={sanitize}", *SANITIZERS[sanitize]]
    included = _sources(HERE)
    if not files or ("source.cu" in files and ".cuh" in files["source.cu"]):
        flags.append(f"-I{CSRC}")
        included += _sources(CSRC)
    exports = [f"EMULATION_EXPORT({_exported(i)}, {name})" for i, name in enumerate(kernels)]
    main = next(iter(files), str(CSRC / "kernels.cu"))
    wrapper = "\n".join([f'#include "{main}"', '#include "cuda_emulation.h"', *exports, ""])

    unedited = {str(path): path.read_text() for path in included}
    key = [_version(compiler), flags, wrapper, dict(files), unedited]
    folder = _cache() / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    library = folder / "kernels.so"
    if library.exists():
        return library
    # Elsewhere first, then by one rename: several processes may compile the same.
    folder.mkdir(exist_ok=True)
    for name, text in {**files, "launch.cpp": wrapper}.items():
        _write(folder / name, text)
    unfinished = folder / f"kernels.{os.getpid()}.so"
    command = [compiler, *flags, str(folder / "launch.cpp"), "-o", str(unfinished)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise EmulationError(f"g++ refused the source:\n{done.stderr[:8000]}")
    os.replace(unfinished, library)
    return library


def _sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix in {".h", ".cuh", ".cu"})


def _write(path: Path, text: str) -> None:
    """Write a file as a whole: another process may be reading it."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def _cache() -> Path:
    """A folder in the temporary one that nobody else may write: what lies in it is loaded."""
    folder = Path(tempfile.gettempdir()) / f"kan_emulation_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise EmulationError(
            f"{folder} can be written by others; expected a folder of this user only: remove it"
        )
    return folder


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout


def find_runtime(sanitize: str) -> str | None:
    """The path of the sanitizer's library, which g++ may lack; None without it."""
    compiler = find_compiler()
    if compiler is None:
        return None
    name = RUNTIMES[sanitize][0]
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return found if os.path.isabs(found) else None


def run_in_subprocess(
    function: Callable[..., Any], *arguments: Any, sanitize: str, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Call function(*arguments) in a new Python that has the sanitizer loaded.

    The function must be importable, and the arguments must survive JSON. The result's returncode
    is 0 if the function returned and the sanitizer found nothing; stdout holds all output.

    Raises EmulationError if the sanitizer cannot start here.
    """
    runtime = find_runtime(sanitize)
    if runtime is None:
        raise EmulationError(f"{RUNTIMES[sanitize][0]} is not installed; expected it beside g++")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        **RUNTIMES[sanitize][1],
        "LD_PRELOAD": runtime,
        "PYTHONPATH": path,
        "PYTHONMALLOC": "malloc",  # so that ASan sees the ends of small blocks, too
        "OPENBLAS_NUM_THREADS": "1",  # threads that TSan would only watch in vain
        "OMP_NUM_THREADS": "1",
    }
    target = f"{function.__module__}:{function.__qualname__}"
    done = subprocess.run(
        [sys.executable, "-m", __name__, target, json.dumps(arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if "FATAL: ThreadSanitizer: unexpected memory mapping" in done.stdout:
        raise EmulationError(
            "ThreadSanitizer cannot start: this kernel randomizes addresses more than it knows; "
            "expected at most 28 bits: sysctl vm.mmap_rnd_bits=28"
        )
    return done


def _call(target: str, arguments: str) -> None:
    module, _, name = target.partition(":")
    __import__(module)
    getattr(sys.modules[module], name)(*json.loads(arguments))


if __name__ == "__main__":
    _call(*sys.argv[1:])
