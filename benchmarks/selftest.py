"""The gate tries itself on this machine: faults go red, identical code stays green.

Copies the files as they are into a repository of its own, calibrates two benchmarks there and runs
the gate on them, once for each way to be green or red (five minutes). Exit status 0 if all came out
as they must. Nothing that is stored here changes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfgate.judge.exit_codes import GateExit
from perfgate.judge.parse import figures_of

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = "benchmarks/test_reference.py"
SELECTION = ["-k", "(mlp or fused_fourier_kan) and forward and not kan_upstream"]
OPTIONS = [
    *SELECTION,
    "--device=cpu",
    "--processes=2",
    "--benchmark-max-time=0.6",
    "-p",
    "no:cacheprovider",
]
PLANT = "\nimport planted  # noqa: E402, F401\n"

Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trial:
    """A run of the gate.

    Args:
        name: what is tried.
        expected: the exit status.
        options: of pytest, after those of all trials.
        plant: what is wrong with the fused layer.
        edit: changes the stored baseline before.
        words: what the output must hold.
    """

    name: str
    expected: int
    options: tuple[str, ...] = ()
    plant: str | None = None
    edit: Change | None = None
    words: str = ""


def add_entry(data: dict[str, Any]) -> None:
    data["benchmarks"].append({**data["benchmarks"][0], "fullname": f"{BENCHMARKS}::test_gone"})


def other_device(data: dict[str, Any]) -> None:
    data["machine_info"]["perfgate"]["device_key"] = "cpu_other"


def slower_before(data: dict[str, Any]) -> None:
    for entry in data["benchmarks"]:
        for process in figures_of(entry)["processes"]:
            process["ratio"] *= 1.5
            if process.get("ratio_to_mlp"):
                process["ratio_to_mlp"] *= 1.5


def never_calibrated(data: dict[str, Any]) -> None:
    for entry in data["benchmarks"]:
        del figures_of(entry)["calibration"]


def of_a_lost_commit(data: dict[str, Any]) -> None:
    never_calibrated(data)
    data["commit_info"]["id"] = "0123456789" * 4


TRIALS = (
    Trial("identical code", GateExit.PASSED),
    Trial("a fifth longer", GateExit.REGRESSED, plant="slow", words="in turns with"),
    Trial("4 KiB more", GateExit.REGRESSED, plant="alloc", words="_peak_bytes +4,096 B"),
    Trial("a benchmark is gone", GateExit.MISSING, edit=add_entry, words="missing"),
    Trial("timing is off", GateExit.NOTHING_MEASURED, ("--benchmark-disable",)),
    Trial("an empty selection", GateExit.NOTHING_MEASURED, ("-k", "no_such_benchmark")),
    Trial("another device", GateExit.INCOMPARABLE, edit=other_device),
    Trial("stored times that are wrong", GateExit.PASSED, edit=slower_before, words="in turns"),
    Trial("unknown noise", GateExit.PASSED, edit=never_calibrated, words="in turns"),
    Trial(
        "a lost commit",
        GateExit.INCONCLUSIVE,
        ("--fail-on-inconclusive",),
        edit=of_a_lost_commit,
        words="git fetch",
    ),
    Trial(
        "faster",
        GateExit.IMPROVED,
        ("--fail-on-improved", "--against=slower"),
        edit=never_calibrated,
    ),
)


@dataclass(frozen=True)
class Copy:
    """The files as they are, in a repository of their own."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Copy":
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("benchmarks/baselines/cpu"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        copy = cls(folder)
        copy.git("init", "-q", "-b", "main")
        copy.commit("as it is")
        copy.plant()
        copy.commit("slower")
        copy.git("tag", "slower")
        copy.git("reset", "-q", "--hard", "HEAD~")
        return copy

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x"]
        subprocess.run(["git", *identity, *arguments], cwd=self.folder, check=True)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def plant(self) -> None:
        with (self.folder / "src/kan_impls/fused/product.py").open("a", encoding="utf-8") as file:
            file.write(PLANT)

    def run(self, *command: str, plant: str = "slow") -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(str(self.folder / part) for part in ("src", "benchmarks"))
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "PLANT": plant},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def pytest(self, *options: str, plant: str = "slow") -> subprocess.CompletedProcess[str]:
        return self.run("pytest", "-q", BENCHMARKS, *OPTIONS, *options, plant=plant)


def calibrate(copy: Copy, folder: Path) -> Path:
    """A calibrated baseline; the file."""
    finished = copy.run(
        "perfgate.cli",
        "calibrate",
        "--runs=5",
        "--processes=2",
        f"--baselines={folder}",
        "--",
        BENCHMARKS,
        *OPTIONS,
    )
    if finished.returncode:
        sys.exit(finished.stdout)
    (path,) = folder.glob("*/*.json")
    return path


def attempt(copy: Copy, trial: Trial, good: Path, folder: Path) -> str | None:
    """What did not come out as it must, if anything."""
    path = good
    if trial.edit is not None:
        data = json.loads(good.read_text(encoding="utf-8"))
        trial.edit(data)
        path = folder / "edited.json"
        path.write_text(json.dumps(data), encoding="utf-8")
    if trial.plant is not None:
        copy.plant()
    finished = copy.pytest(
        f"--benchmark-compare={path}",
        f"--report={folder / 'report'}",
        *trial.options,
        plant=trial.plant or "slow",
    )
    copy.git("checkout", "-q", ".")
    return check(trial, finished.returncode, finished.stdout)


def check(trial: Trial, status: int, output: str) -> str | None:
    if status != trial.expected or trial.words not in output:
        return f"{trial.name}: exit status {status} instead of {trial.expected}\n{output}"
    return None


def special_trials(copy: Copy, folder: Path) -> list[str | None]:
    """What needs no baseline, or a broken one."""
    broken = folder / "broken.json"
    broken.write_text("{", encoding="utf-8")
    corrupt = Trial("a damaged baseline", GateExit.CORRUPT_BASELINE)
    absent = Trial("no baseline", GateExit.NO_BASELINE)
    device_free = Trial("4 KiB more, without a device", 1, words="4,096")
    empty = folder / "empty"
    empty.mkdir()
    in_the_way = copy.pytest(f"--benchmark-compare={broken}")
    none = copy.pytest(
        f"--baselines={empty}",
        "--benchmark-compare",
        "--require-baseline",
        f"--report={folder / 'report'}",
    )
    fake = copy.run(
        "pytest",
        "-q",
        "-p",
        "planted",
        "benchmarks/test_memory.py",
        "-k",
        "stored and fused_fourier_kan",
        plant="alloc",
    )
    return [
        check(corrupt, in_the_way.returncode, in_the_way.stdout),
        check(absent, none.returncode, none.stdout),
        check(device_free, fake.returncode, fake.stdout),
    ]


def main() -> int:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kan-bench-") as name:
        folder = Path(name).resolve()
        copy = Copy.make(folder / "copy")
        print("calibrating", flush=True)
        good = calibrate(copy, folder / "baselines")
        wrong = []
        for trial in TRIALS:
            print(f"{trial.name}: expecting exit status {trial.expected:d}", flush=True)
            wrong.append(attempt(copy, trial, good, folder))
        print("damaged, absent, and without a device", flush=True)
        wrong += special_trials(copy, folder)
    found = [text for text in wrong if text]
    print("\n".join(found) or f"the gate is as it must be ({time.monotonic() - start:.0f} s)")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
