"""The command `kan-bench`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from perfgate import options
from perfgate.compare import PROCESSES
from perfgate.judge.sequential import LEAST_PAIRS, MOST_PAIRS
from perfgate.paths import BASELINES, LAST_RUN, REPORTS
from perfgate.run.processes import TIMEOUT_SECONDS
from perfgate.store.calibrate import RUNS

AFTER = "; options of pytest, such as -k, follow after --"

Commands = argparse._SubParsersAction


def parser() -> argparse.ArgumentParser:
    """The command line of `kan-bench`."""
    whole = argparse.ArgumentParser(
        prog="kan-bench", description="Baselines and comparisons of the benchmarks of this folder."
    )
    commands = whole.add_subparsers(dest="command", required=True)
    for add in (_add_accept, _add_calibrate, _add_ab, _add_gate, _add_report):
        add(commands)
    return whole


def _count(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_count.__name__ = "count, 1 or more"  # what argparse calls it in its message


def _add_accept(commands: Commands[argparse.ArgumentParser]) -> None:
    accept = commands.add_parser("accept", help="store the last run as the baseline of its device")
    accept.add_argument("--run", type=options.path, help=f"default: the last one, {LAST_RUN}")
    _add_storing(accept)


def _add_storing(command: argparse.ArgumentParser) -> None:
    _add_baselines(command)
    command.add_argument(
        "--name", type=options.words, help="a name for the file; default: the commit of the run"
    )
    command.add_argument(
        "--new-history", type=options.words, metavar="REASON",
        help="later runs are not compared with baselines older than this one",
    )  # fmt: skip
    partial = command.add_mutually_exclusive_group()
    partial.add_argument(
        "--merge", action="store_true",
        help="keep the present baseline's entries for benchmarks that the run does not have",
    )  # fmt: skip
    partial.add_argument(
        "--replace", action="store_true",
        help="drop the present baseline's entries for benchmarks that the run does not have",
    )  # fmt: skip


def _add_calibrate(commands: Commands[argparse.ArgumentParser]) -> None:
    calibrate = commands.add_parser(
        "calibrate", help=f"store a baseline with its noise, from runs of this very code{AFTER}"
    )
    calibrate.add_argument("--runs", type=_count, default=RUNS, help="default: %(default)s")
    calibrate.add_argument(
        "--processes", type=_count, default=PROCESSES, help="of each run; default: %(default)s"
    )
    calibrate.add_argument(
        "--keep",
        type=options.folder,
        metavar="DIR",
        help="keep every process's rounds there, for analysis",
    )
    calibrate.add_argument(
        "--add", action="store_true",
        help="join the runs to the stored calibration of this device, of code that costs the same, "
        "so that it holds on several days and machines",
    )  # fmt: skip
    _add_timeout(calibrate)
    _add_storing(calibrate)


def _add_baselines(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--baselines", type=options.folder, default=BASELINES, help="default: %(default)s"
    )


def _add_ab(commands: Commands[argparse.ArgumentParser]) -> None:
    ab = commands.add_parser(
        "ab", help=f"compare two git revisions, measured in turns on this machine{AFTER}"
    )
    ab.add_argument("base", help="a branch, tag or commit")
    ab.add_argument("head", nargs="?", help="another one; default: the files as they are")
    _add_pairs(ab)
    ab.add_argument("--report", type=options.folder, metavar="DIR", help="where the reports go")


def _pairs(text: str) -> int:
    """A whole number of at least the fewest pairs that tell of their noise."""
    number = int(text)
    if number < LEAST_PAIRS:
        raise ValueError(text)
    return number


_pairs.__name__ = f"count, {LEAST_PAIRS} or more"


def _add_pairs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--pairs", type=_pairs, default=MOST_PAIRS,
        help="pairs of processes at most; default: %(default)s",
    )  # fmt: skip
    _add_timeout(command)
    command.add_argument(
        "--fail-on-inconclusive", action="store_true", help="an unclear verdict fails the command"
    )


def _add_timeout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--worker-timeout", type=options.seconds, default=TIMEOUT_SECONDS, metavar="SECONDS",
        help="a measuring process without progress for so long is ended; default: %(default)g",
    )  # fmt: skip


def _add_gate(commands: Commands[argparse.ArgumentParser]) -> None:
    merge = commands.add_parser(
        "gate",
        help="judge the files as they are by the stored baseline, and what its times leave open by "
        f"where they branched off from a base{AFTER}",
    )
    merge.add_argument("base", help="what they are to be merged into: a branch, tag or commit")
    _add_pairs(merge)
    _add_baselines(merge)
    merge.add_argument(
        "--report", type=options.folder, default=REPORTS, help="default: %(default)s"
    )


def _add_report(commands: Commands[argparse.ArgumentParser]) -> None:
    report = commands.add_parser("report", help="make all reports again from a report.json")
    report.add_argument("document", type=options.path, help="a report.json")
    report.add_argument("--out", type=options.folder, default=REPORTS, help="default: %(default)s")
    _add_baselines(report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 when it did what was asked and found nothing."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    chosen = parser().parse_args(given[:split])
    chosen.pytest = given[split + 1 :]
    from perfgate import commands

    return commands.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
