"""Programs of the GPU check, each in processes of its own: parts of the tests, and sanitizers.

A kernel with a fault takes its process with it, or hangs: neither may end the check.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from perfgate.run.processes import NOT_INHERITED

ROOT = Path(__file__).resolve().parents[1]
TAIL_CHARS = 4000

# Kernels of this package take a struct Problem, and so have the name in theirs.
SANITIZERS = {
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": ("--report-api-errors", "no", "--kernel-name", "kns=Problem"),
}
SUMMARY = re.compile(r"(?:ERROR SUMMARY: |RACECHECK SUMMARY: )(\d+)")
FOUND_STATUS = 99

Run = Callable[[Sequence[str], float, Path], tuple[int, str]]


class ProgramError(Exception):
    """A program failed; the message says how, and `data` is what it had found."""

    def __init__(self, reason: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.data = data or {}


class TimedOutError(ProgramError):
    """A program was ended at its limit."""


class NotInstalledError(Exception):
    """A program is not there, which is no failure."""


def run_program(command: Sequence[str], limit_s: float, log: Path) -> tuple[int, str]:
    """Exit status and output, which stays in `log`; in a process group of its own.

    Raises:
        TimedOutError: the limit passed, and it was ended with all it started.
    """
    paths = [ROOT / "src", ROOT / "benchmarks", ROOT, os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(str(path) for path in paths if str(path))
    inherited = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    with log.open("w+b") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            output = log.read_text(errors="replace")[-TAIL_CHARS:]
            raise TimedOutError(
                f"ended at its limit of {limit_s:.0f} s", {"output": output}
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, log.read_text(errors="replace")


# Tests


def gpu_tests(folder: Path = ROOT / "tests") -> list[list[str]]:
    """Arguments of pytest for the tests that need a GPU.

    They name only files that have such tests: others may import what is not installed there.
    """
    files = [f for f in sorted(folder.rglob("test_*.py")) if "mark.gpu" in f.read_text()]
    return [[*map(str, files), "-m", "gpu"]]


# Tests that take the `device` fixture, which --device chooses; in parts of about equal length,
# since their oracles take the time, on the CPU.
CONTRACT = [
    ["tests/test_contract.py", "-k", "fused_fourier_kan"],
    ["tests/test_contract.py", "-k", "fused_efficient_kan"],
    ["tests/test_contract.py", "-k", "not fused_fourier_kan and not fused_efficient_kan"],
    ["tests/test_fused_product.py", "-m", "not gpu"],
]


def run_tests(
    name: str, parts: Sequence[Sequence[str]], limit_s: float, out: Path, run: Run = run_program
) -> dict[str, Any]:
    """Run parts of the tests side by side; what became of them together.

    Raises:
        ProgramError: any failed, or none passed.
        TimedOutError: a part was ended.
    """

    def run_part(number: int) -> tuple[dict[str, Any], str, bool]:
        part = f"{name}-{number}"
        path = out / f"{part}.json"
        path.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "gpu_record",
            "--tb=short",
            "--device=cuda",
            f"--record={path}",
            *parts[number],
        ]
        problem, ended = "", False
        try:
            status, _ = run(command, limit_s, out / f"{part}.log")
        except TimedOutError as error:
            problem, ended = f"{part} {error}", True
        found = json.loads(path.read_text()) if path.exists() else {"tests": {}}
        failed = sum(test["status"] == "failed" for test in found["tests"].values())
        if ended and found.get("running"):
            problem += f" in {found['running']}"
        elif not ended and status != 0:
            problem = (
                f"{part}: {failed} failed" if failed else f"{part}: pytest exited with {status}"
            )
        return found["tests"], problem, ended

    with ThreadPoolExecutor(len(parts)) as threads:
        ran = list(threads.map(run_part, range(len(parts))))
    tests = {nodeid: test for part, _, _ in ran for nodeid, test in part.items()}
    data = {**summary_of(tests), "tests": tests}
    problems = [problem for _, problem, _ in ran if problem]
    if problems:
        raise (TimedOutError if any(ended for *_, ended in ran) else ProgramError)(
            "; ".join(problems), data
        )
    if data["passed"] == 0:
        raise ProgramError("no test passed: all were skipped", data)
    return data


def summary_of(tests: dict[str, dict[str, Any]]) -> dict[str, int]:
    """How many tests passed, failed and were skipped."""
    statuses = [test["status"] for test in tests.values()]
    return {status: statuses.count(status) for status in ("passed", "failed", "skipped")}


# Sanitizers


def sanitize(tool: str, limit_s: float, out: Path, run: Run = run_program) -> dict[str, Any]:
    """The kernels under a sanitizer, then a planted fault, which it must see.

    Raises:
        NotInstalledError: there is no sanitizer.
        ProgramError: it found something, or not even what was planted.
    """
    path = find_sanitizer()
    if path is None:
        raise NotInstalledError(
            "compute-sanitizer is not installed: it comes with the CUDA toolkit"
        )
    command = [
        # Every tensor an allocation of its own, so that its end is known.
        "env",
        "PYTORCH_NO_CUDA_MEMORY_CACHING=1",
        str(path),
        "--tool",
        tool,
        "--target-processes",
        "all",
        "--error-exitcode",
        str(FOUND_STATUS),
        *SANITIZERS[tool],
        sys.executable,
        str(ROOT / "benchmarks" / "gpu_sanitized.py"),
    ]
    status, text = run(command, 0.6 * limit_s, out / f"{tool}.log")
    data = {"summary": summary_lines(text)}
    if status != 0 or not is_clean(text):
        data["output"] = text[-TAIL_CHARS:]
        raise ProgramError(f"exit status {status}, {data['summary'] or 'no summary'}", data)
    try:
        status, text = run([*command, "--plant", tool], 0.4 * limit_s, out / f"{tool}-planted.log")
    except TimedOutError as error:
        raise TimedOutError(f"the planted fault: {error}", data) from None
    if status == 0 or not finds_something(text):
        data["output"] = text[-TAIL_CHARS:]
        raise ProgramError("a planted fault was not seen: its silence says nothing", data)
    return {**data, "planted": summary_lines(text)}


def find_sanitizer() -> Path | None:
    """compute-sanitizer on the path or in a toolkit."""
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders += sorted(map(str, Path("/usr/local").glob("cuda-*")), reverse=True)
    candidates = [shutil.which("compute-sanitizer")]
    candidates += [f"{folder}/bin/compute-sanitizer" for folder in folders if folder]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


def summary_lines(text: str) -> str:
    return "; ".join(line.strip("= ") for line in text.splitlines() if SUMMARY.search(line))


def is_clean(text: str) -> bool:
    """Whether a sanitizer reported, and reported nothing."""
    counts = SUMMARY.findall(text)
    return bool(counts) and all(int(count) == 0 for count in counts)


def finds_something(text: str) -> bool:
    return any(int(count) > 0 for count in SUMMARY.findall(text))
