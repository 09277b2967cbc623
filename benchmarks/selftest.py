"""The gate, tried on this machine: unchanged code stays green, planted faults go red.

Runs the reference benchmarks six times (a quarter of an hour): for a baseline, three times
unchanged, with a slower layer, and with 4 KiB more memory. Exit status 0 if all came out
as they must. Figures go to a temporary folder; nothing that is stored changes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SELECTION = sys.argv[1:]


def run_suite(baselines: Path, plant: str | None, *options: str) -> int:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        f"--baselines={baselines}",
        *options,
        *SELECTION,
    ]
    environment = dict(os.environ)
    if plant:
        command += ["-p", "planted"]
        environment |= {"PLANT": plant, "PYTHONPATH": str(HERE)}
    finished = subprocess.run(
        command, cwd=HERE.parent, env=environment, text=True, stdout=subprocess.PIPE
    )
    shown = ("unchanged", "improved", "regressed", "inconclusive", "missing", "incomparable")
    print("\n".join(line for line in finished.stdout.splitlines() if line.startswith(shown)))
    return finished.returncode


def accept(baselines: Path) -> None:
    command = [sys.executable, "-m", "kan_impls.bench.cli", "accept", f"--baselines={baselines}"]
    subprocess.run(command, cwd=HERE.parent, check=True)


def main() -> int:
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        baselines = Path(folder)
        if run_suite(baselines, None, "--benchmark-only"):
            print("the benchmarks themselves fail: run pytest --benchmark-only to see how")
            return 1
        accept(baselines)
        trials = [("unchanged", None, 0)] * 3 + [("slow", "slow", 1), ("alloc", "alloc", 1)]
        for name, plant, expected in trials:
            print(f"\n== {name}: expecting exit status {expected}", flush=True)
            status = run_suite(baselines, plant, "--benchmark-compare", "--require-baseline")
            if status != expected:
                wrong.append(f"{name} exited {status} instead of {expected}")
    print("\n" + ("; ".join(wrong) or "the gate is as it must be"))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
