"""The gate, tried on this machine: unchanged code stays green, planted faults go red.

Runs the reference benchmarks six times (20 minutes): for a baseline, three times unchanged,
with a slower layer, and with 4 KiB more memory. Exit status 0 if all came out as they must.
Options, such as -k fused, select a part. Nothing that is stored changes.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from kan_impls.bench.cli import LAST_RUN
from kan_impls.bench.cli import main as kan_bench

ROOT = Path(__file__).resolve().parents[1]
SELECTION = sys.argv[1:]

# What must be among the lines of verdicts, and the exit status.
TRIALS = [
    *[("unchanged", None, "unchanged", 0)] * 3,
    ("slow", "slow", r"regressed .*fused_fourier_kan.*time over (reference|MLP)", 1),
    ("alloc", "alloc", r"regressed .*fused_fourier_kan.*_peak_bytes \+4,096 B", 1),
]
VERDICT = re.compile(
    "(unchanged|improved|regressed|inconclusive|missing|incomparable|no_baseline) +benchmarks/.*"
)


def run_suite(baselines: Path, plant: str | None, *options: str) -> tuple[int, list[str]]:
    """Exit status and verdicts of a run."""
    command = [sys.executable, "-m", "pytest", "-q", f"--baselines={baselines}", *options]
    environment = dict(os.environ)
    if plant:
        command += ["-p", "planted"]
        environment |= {"PLANT": plant, "PYTHONPATH": str(ROOT / "benchmarks")}
    finished = subprocess.run(
        [*command, *SELECTION], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE
    )
    return finished.returncode, list(filter(VERDICT.match, finished.stdout.splitlines()))


def try_gate(baselines: Path) -> list[str]:
    """What did not come out as it must."""
    if run_suite(baselines, None, "--benchmark-only")[0]:
        return ["the benchmarks themselves fail: run pytest --benchmark-only to see how"]
    kan_bench(["accept", f"--run={ROOT / LAST_RUN}", f"--baselines={baselines}"])
    wrong = []
    for name, plant, expected_line, expected_status in TRIALS:
        print(f"\n== {name}: expecting exit status {expected_status}", flush=True)
        status, lines = run_suite(baselines, plant, "--benchmark-compare", "--require-baseline")
        print("\n".join(lines), flush=True)
        if status != expected_status:
            wrong.append(f"{name} exited with {status} instead of {expected_status}")
        if not any(re.match(expected_line, line) for line in lines):
            wrong.append(f"{name} has no verdict such as {expected_line!r}")
    return wrong


def main() -> int:
    kept = {path: path.read_bytes() for path in (ROOT / LAST_RUN).parent.glob("last_run.*")}
    try:
        with tempfile.TemporaryDirectory() as folder:
            wrong = try_gate(Path(folder))
    finally:
        for path in (ROOT / LAST_RUN).parent.glob("last_run.*"):
            path.unlink()
        for path, content in kept.items():
            path.write_bytes(content)
    print("\n" + ("; ".join(wrong) or "the gate is as it must be"))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
