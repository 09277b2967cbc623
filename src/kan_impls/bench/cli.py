"""The command `kan-bench`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kan_impls.bench import baseline
from kan_impls.bench.record import parse_run

LAST_RUN = Path(".benchmarks") / "last_run.json"
BASELINES = Path("benchmarks") / "baselines"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 when it did what was asked, else 1."""
    parser = argparse.ArgumentParser(
        prog="kan-bench", description="Baselines of the benchmarks of this folder."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    accept = commands.add_parser("accept", help="store the last run as the baseline of its device")
    accept.add_argument("--run", type=Path, default=LAST_RUN, help="default: %(default)s")
    accept.add_argument("--baselines", type=Path, default=BASELINES, help="default: %(default)s")
    accept.add_argument("--name", help="a name for the file; default: the commit of the run")
    partial = accept.add_mutually_exclusive_group()
    partial.add_argument(
        "--merge", action="store_true",
        help="keep the present baseline's entries for benchmarks that the run does not have",
    )  # fmt: skip
    partial.add_argument(
        "--replace", action="store_true",
        help="drop the present baseline's entries for benchmarks that the run does not have",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        path = accept_run(
            options.run, options.baselines, options.name, options.merge, options.replace
        )
    except baseline.BaselineError as error:
        print(f"kan-bench: {error}", file=sys.stderr)
        return 1
    print(f"stored {path}")
    return 0


def accept_run(
    run_path: Path, baselines: Path, name: str | None, merge: bool = False, replace: bool = False
) -> Path:
    """Store a run as the newest baseline of its device.

    Raises:
        BaselineError: there is no such run, it measured nothing, it lacks benchmarks of the
            present baseline (without `merge` or `replace`), or the folder cannot be written.
    """
    if not run_path.exists():
        raise baseline.BaselineError(
            f"{run_path} does not exist; expected the last run: make one with "
            "pytest --benchmark-only, in the folder of the benchmarks"
        )
    data = baseline.read_json(run_path)
    run = parse_run(data)
    if not run.measurements:
        raise baseline.BaselineError(
            f"{run_path} holds no measurement; expected one or more: run pytest --benchmark-only"
        )
    present = baseline.find(baselines, run.device_key)
    if present is not None and not replace:
        held = baseline.read_json(present)
        dropped = [b for b in held["benchmarks"] if b["fullname"] not in run.measurements]
        if dropped and not merge:
            raise baseline.BaselineError(
                f"{run_path} lacks {len(dropped)} of the {len(held['benchmarks'])} benchmarks of "
                f"{present}; expected all of them: run them all, or keep the old entries with "
                "--merge, or drop them with --replace"
            )
        data["benchmarks"] += dropped
    name = re.sub(r"[^\w.-]+", "-", name or run.commit[:10])
    return baseline.store(baselines, run.device_key, data, name)


if __name__ == "__main__":
    sys.exit(main())
