"""The steps of the check: programs of this package, pytest, and the sanitizers."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gpucheck import junit, output
from gpucheck.process import TAIL_CHARS, run_program
from gpucheck.steps import FailedError, NotRunError, Step, TimedOutError

ROOT = Path(__file__).resolve().parents[2]
BUDGET_S = 475.0

NO_CUDA = "no CUDA device"

# Only files that have such tests: others may import what is not installed there.
GPU_MARK = "mark.gpu"
# Tests that take the `device` fixture, which --device chooses; in parts of about equal length,
# since their oracles take the time, on the CPU.
CONTRACT = (
    ("tests/test_contract.py", "-k", "fused_fourier_kan"),
    ("tests/test_contract.py", "-k", "fused_efficient_kan"),
    ("tests/test_contract.py", "-k", "not fused"),
    ("tests/test_fused_product.py", "-m", "not gpu"),
)

TIMES_RESERVE_S = (
    15.0  # of its limit the times take so much less, to start and to end by themselves
)
SMALL_TIMES_S = 5.0

# Kernels of this package take a struct Problem, and so have the name in theirs.
SANITIZERS = {
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": ("--report-api-errors", "no", "--kernel-name", "kns=Problem"),
}
SUMMARY = re.compile(r"(?:ERROR SUMMARY: |RACECHECK SUMMARY: )(\d+)")
FOUND_STATUS = 99


class Shard(NamedTuple):
    """What became of a run of pytest; `problem` is empty if nothing failed."""

    counts: dict[str, Any]
    problem: str
    output: str
    timed_out: bool = False


class Check:
    """What the steps share: the device, the folder of the results, and an empty kernel cache."""

    def __init__(
        self,
        device: str,
        small: bool,
        out: Path,
        cache: Path,
        run: Callable[..., Any] = run_program,
    ) -> None:
        self.device, self.small, self.out, self.cache = device, small, out, cache
        self._run_program = run
        self.has_cuda = device == "cuda"

    def steps(self) -> list[Step]:
        """In order. Their limits fit into the budget together."""
        return [
            Step("environment", 20, self.environment),
            Step("compile", 40, self.compile_times),
            Step("gpu tests", 120, lambda limit: self.tests("gpu", gpu_tests(), limit)),
            Step("contract on cuda", 60, lambda limit: self.tests("contract", CONTRACT, limit)),
            Step("memcheck", 45, lambda limit: self.sanitizer("memcheck", limit)),
            Step("racecheck", 55, lambda limit: self.sanitizer("racecheck", limit)),
            Step("times", 125, self.times),
        ]  # fmt: skip

    def environment(self, limit: float) -> dict[str, Any]:
        try:
            found = self._program("environment", limit, "--device", self.device)
        except FailedError as error:
            self.has_cuda &= bool(error.data.get("cuda_available", True))
            raise
        self.has_cuda &= bool(found["cuda_available"])
        return found

    def compile_times(self, limit: float) -> dict[str, Any]:
        self._need_cuda()
        return self._program("compile_times", limit)

    def times(self, limit: float) -> dict[str, Any]:
        seconds = SMALL_TIMES_S if self.small else max(5.0, limit - TIMES_RESERVE_S)
        if self.device == "cuda":
            self._need_cuda()
        small = ["--small"] if self.small else []
        return self._program(
            "times", limit, "--device", self.device, "--seconds", f"{seconds:.0f}", *small
        )

    def tests(self, name: str, shards: Sequence[Sequence[str]], limit: float) -> dict[str, Any]:
        """Run tests on the GPU, a process for each shard; those that pass are counted, and none
        is a failure."""
        self._need_cuda()

        def run(number: int) -> Shard:
            return self._shard(f"{name}-{number}", shards[number], limit)

        with ThreadPoolExecutor(len(shards)) as threads:
            ran = list(threads.map(run, range(len(shards))))
        data = junit.merge([shard.counts for shard in ran])
        bad = [shard for shard in ran if shard.problem]
        if bad:
            data["output"] = "\n".join(shard.output[-TAIL_CHARS:] for shard in bad)
            kind = TimedOutError if any(shard.timed_out for shard in bad) else FailedError
            raise kind("; ".join(shard.problem for shard in bad), data)
        if data["passed"] == 0:
            raise FailedError("no test passed: all were skipped", data)
        return data

    def _shard(self, name: str, selection: Sequence[str], limit: float) -> Shard:
        result = self.out / f"junit-{name}.xml"
        result.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--tb=short",
            "--device=cuda", f"--junitxml={result}", *selection,
        ]  # fmt: skip
        try:
            status, text = self._start(name, limit, command)
        except TimedOutError as error:
            text = error.data.get("output", "")
            return Shard(junit.read_log(text), f"{name} {error}", text, timed_out=True)
        if not result.exists():
            return Shard(junit.read_log(text), f"{name}: pytest exited with {status}", text)
        counts = junit.read(result)
        problem = f"{name}: {counts['failures']} failed, {counts['errors']} errors"
        return Shard(counts, problem if status != 0 else "", text)

    def sanitizer(self, tool: str, limit: float) -> dict[str, Any]:
        """The kernels under a sanitizer, then a planted fault, which it must see."""
        self._need_cuda()
        path = find_sanitizer()
        if path is None:
            raise NotRunError("compute-sanitizer is not installed: it comes with the CUDA toolkit")
        command = [
            str(path), "--tool", tool, "--target-processes", "all",
            "--error-exitcode", str(FOUND_STATUS), *SANITIZERS[tool],
            sys.executable, "-m", "gpucheck.sanitized",
        ]  # fmt: skip
        # Every tensor an allocation of its own, so that its end is known.
        extra = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        try:
            status, text = self._start(tool, 0.6 * limit, command, extra)
        except TimedOutError as error:
            tail = str(error.data.get("output", ""))[-TAIL_CHARS:]
            raise TimedOutError(str(error), {"output": tail}) from None
        data = {"summary": summary_lines(text), "output": text[-TAIL_CHARS:]}
        if status != 0 or not is_clean(text):
            raise FailedError(f"exit status {status}, {data['summary'] or 'no summary'}", data)
        try:
            status, text = self._start(tool, 0.4 * limit, [*command, "--plant", tool], extra)
        except TimedOutError as error:
            raise TimedOutError(f"the planted fault: {error}", data) from None
        if status == 0 or not finds_something(text):
            data["output"] = text[-TAIL_CHARS:]
            raise FailedError("a planted fault was not seen: its silence says nothing", data)
        return {"summary": data["summary"], "planted": summary_lines(text)}

    def _need_cuda(self) -> None:
        if not self.has_cuda:
            raise NotRunError(NO_CUDA)

    def _program(self, name: str, limit: float, *arguments: str) -> dict[str, Any]:
        """Run a program of this package that leaves its findings in a file.

        Raises:
            FailedError: with what it had found until then.
        """
        result = self.out / f"{name}.json"
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"gpucheck.{name}", str(result), *arguments]
        try:
            status, text = self._start(name, limit, command)
        except TimedOutError as error:
            tail = str(error.data.get("output", ""))[-TAIL_CHARS:]
            raise TimedOutError(str(error), {"output": tail, **output.read(result)}) from None
        found = output.read(result)
        if status != 0:
            lines = text.strip().splitlines() or [""]
            reason = f"exit status {status}: {lines[-1][:300]}"
            raise FailedError(reason, {**found, "output": text[-TAIL_CHARS:]})
        return found

    def _start(
        self, name: str, limit: float, command: Sequence[str], extra: dict[str, str] | None = None
    ) -> tuple[int, str]:
        paths = [ROOT / "src", ROOT / "benchmarks", ROOT, os.environ.get("PYTHONPATH", "")]
        environment = {
            "PYTHONPATH": os.pathsep.join(str(path) for path in paths if str(path)),
            "PYTHONUNBUFFERED": "1",
            "KAN_IMPLS_CACHE": str(self.cache),
            **(extra or {}),
        }
        return self._run_program(command, limit, environment, self.out / f"{name}.log", ROOT)


def gpu_tests(folder: Path = ROOT / "tests") -> list[list[str]]:
    """Arguments of pytest for the tests that need a GPU."""
    files = [file for file in sorted(folder.glob("test_*.py")) if GPU_MARK in file.read_text()]
    return [[*map(str, files), "-m", "gpu"]]


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
