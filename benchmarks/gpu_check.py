"""Everything that only a GPU can tell, in one command within eight minutes: `make gpu-check`.

    PYTHONPATH=src python benchmarks/gpu_check.py --out DIR
    PYTHONPATH=src python benchmarks/gpu_check.py --device cpu --small    # a dry run

Needs an NVIDIA GPU, a CUDA build of torch, pytest, pytest-benchmark, hypothesis and scipy, and
no network. Writes gpu-check.json and gpu-check.md, and the output of every step beside them.
Exit status 1 if anything failed.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from gpucheck import report, steps
from gpucheck.plan import BUDGET_S, ROOT, Check


def main(arguments: list[str] | None = None) -> int:
    """Run the check; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-check", metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes: a dry run")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.log"):
        old.unlink()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        check = Check(options.device, options.small, out, Path(cache))
        outcomes = steps.run_steps(
            check.steps(), options.budget, say=lambda line: print(line, flush=True)
        )
    found = steps.as_json(outcomes, options.device, time.monotonic() - start)
    (out / "gpu-check.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "gpu-check.md").write_text(report.markdown(found), encoding="utf-8")
    print(f"{out / 'gpu-check.md'} and gpu-check.json")
    return found["exit_status"]


if __name__ == "__main__":
    sys.exit(main())
