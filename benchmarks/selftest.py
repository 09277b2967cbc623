"""The gate tries itself on this machine: faults go red, identical code stays green.

Calibrates two benchmarks into a folder of its own and runs the gate on them, once for each way
to be green or red (four minutes). Exit status 0 if all came out as they must. Nothing that is
stored changes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kan_impls.bench.exit_codes import GateExit
from kan_impls.bench.record import figures_of

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
    data["machine_info"]["kan_impls"]["device_key"] = "cpu_other"


def slower_before(data: dict[str, Any]) -> None:
    for entry in data["benchmarks"]:
        for process in figures_of(entry)["processes"]:
            process["ratio"] *= 1.5
            if process["ratio_to_mlp"]:
                process["ratio_to_mlp"] *= 1.5


def noisier_before(data: dict[str, Any]) -> None:
    for entry in data["benchmarks"]:
        for number, run in enumerate(figures_of(entry)["calibration"]["runs"]):
            for figure in run:
                run[figure] *= 1.5 if number % 2 else 1


TRIALS = (
    Trial("identical code", GateExit.PASSED),
    Trial("a fifth longer", GateExit.REGRESSED, plant="slow", words="time over"),
    Trial("4 KiB more", GateExit.REGRESSED, plant="alloc", words="_peak_bytes +4,096 B"),
    Trial("a benchmark is gone", GateExit.MISSING, edit=add_entry, words="missing"),
    Trial("timing is off", GateExit.NOTHING_MEASURED, ("--benchmark-disable",)),
    Trial("an empty selection", GateExit.NOTHING_MEASURED, ("-k", "no_such_benchmark")),
    Trial("another device", GateExit.INCOMPARABLE, edit=other_device),
    Trial("faster", GateExit.IMPROVED, ("--fail-on-improved",), edit=slower_before),
    Trial("noise", GateExit.INCONCLUSIVE, ("--fail-on-inconclusive",), edit=noisier_before),
)


def pytest(*options: str, plant: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    if plant:
        environment["PLANT"] = plant
        options = (*options, "-p", "planted")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", BENCHMARKS, *OPTIONS, *options],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def calibrate(folder: Path) -> Path:
    """A calibrated baseline; the file."""
    command = [
        sys.executable, "-m", "kan_impls.bench.cli", "calibrate", "--runs=5", "--processes=2",
        f"--baselines={folder}", "--", BENCHMARKS, *OPTIONS,
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (path,) = folder.glob("*/*.json")
    return path


def attempt(trial: Trial, good: Path, folder: Path) -> str | None:
    """What did not come out as it must, if anything."""
    path = good
    if trial.edit is not None:
        data = json.loads(good.read_text(encoding="utf-8"))
        trial.edit(data)
        path = folder / "edited.json"
        path.write_text(json.dumps(data), encoding="utf-8")
    finished = pytest(
        f"--benchmark-compare={path}", f"--report={folder / 'report'}", *trial.options,
        plant=trial.plant,
    )  # fmt: skip
    return check(trial, finished.returncode, finished.stdout)


def check(trial: Trial, status: int, output: str) -> str | None:
    if status != trial.expected or trial.words not in output:
        return f"{trial.name}: exit status {status} instead of {trial.expected}\n{output}"
    return None


def special_trials(folder: Path) -> list[str | None]:
    """What needs no baseline, or a broken one."""
    broken = folder / "broken.json"
    broken.write_text("{", encoding="utf-8")
    corrupt = Trial("a damaged baseline", GateExit.CORRUPT_BASELINE)
    absent = Trial("no baseline", GateExit.NO_BASELINE)
    device_free = Trial("4 KiB more, without a device", 1, plant="alloc", words="4,096")
    in_the_way = pytest(f"--benchmark-compare={broken}")
    none = pytest(
        f"--baselines={folder / 'none'}", "--benchmark-compare", "--require-baseline",
        f"--report={folder / 'report'}",
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks"), "PLANT": "alloc"}
    fake = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "planted", "benchmarks/test_memory.py",
         "-k", "stored and fused_fourier_kan"],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return [
        check(corrupt, in_the_way.returncode, in_the_way.stdout),
        check(absent, none.returncode, none.stdout),
        check(device_free, fake.returncode, fake.stdout),
    ]


def main() -> int:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kan-bench-") as name:
        folder = Path(name).resolve()
        print("calibrating", flush=True)
        good = calibrate(folder / "baselines")
        wrong = []
        for trial in TRIALS:
            print(f"{trial.name}: expecting exit status {trial.expected:d}", flush=True)
            wrong.append(attempt(trial, good, folder))
        print("damaged, absent, and without a device", flush=True)
        wrong += special_trials(folder)
    found = [text for text in wrong if text]
    print("\n".join(found) or f"the gate is as it must be ({time.monotonic() - start:.0f} s)")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
