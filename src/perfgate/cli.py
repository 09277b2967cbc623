"""The command `kan-bench`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from perfgate import options
from perfgate.compare import PROCESSES
from perfgate.options import declare
from perfgate.paths import BASELINES, LAST_RUN, REPORTS
from perfgate.run.processes import TIMEOUT_SECONDS
from perfgate.store.calibrate import RUNS

# Of each subcommand, at the end of its help.
EXAMPLES = {
    "init": "kan-bench init",
    "doctor": "kan-bench doctor",
    "accept": 'kan-bench accept --merge --name "wider kernel"',
    "calibrate": "kan-bench calibrate --runs 5 -- benchmarks -k forward",
    "ab": "kan-bench ab main -- benchmarks/test_speed.py",
    "gate": "kan-bench gate main --report gate --fail-on-inconclusive -- benchmarks",
    "advise": "kan-bench advise --batch 100 --widths 1000 1000 1",
    "report": "kan-bench report gate/report.json --out page",
}

AFTER = "; options of pytest, such as -k, follow after --"

Commands = argparse._SubParsersAction


def parser() -> argparse.ArgumentParser:
    """The command line of `kan-bench`."""
    whole = argparse.ArgumentParser(
        prog="kan-bench", description="Baselines and comparisons of the benchmarks of this folder."
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = whole.add_subparsers(dest="command", required=True)
    for add in (
        _add_init,
        _add_doctor,
        _add_accept,
        _add_calibrate,
        _add_ab,
        _add_gate,
        _add_report,
        _add_advise,
    ):
        add(commands)
    for name, command in commands.choices.items():
        command.epilog = f"example: {EXAMPLES[name]}"
    return whole


def _complete(whole: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a line goes on (the extra `complete`), and end."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(whole)


def _version() -> str:
    try:
        return metadata.version("kan-impls")
    except metadata.PackageNotFoundError:  # from a folder on the path
        return "not installed"


def _add_init(commands: Commands[argparse.ArgumentParser]) -> None:
    commands.add_parser(
        "init", help="write the files that this folder needs, and nothing over what is there"
    )


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor", help="what is fine here for measuring and judging, and what to do about the rest"
    )
    declare(doctor.add_argument, "--baselines", default=BASELINES)


def _add_accept(commands: Commands[argparse.ArgumentParser]) -> None:
    accept = commands.add_parser("accept", help="store the last run as the baseline of its device")
    accept.add_argument("--run", type=options.path, help=f"default: the last one, {LAST_RUN}")
    _add_storing(accept)


def _add_storing(command: argparse.ArgumentParser) -> None:
    declare(command.add_argument, "--baselines", default=BASELINES)
    command.add_argument(
        "--name", type=options.words, help="a name for the file; default: the commit of the run"
    )
    command.add_argument(
        "--new-history",
        type=options.words,
        metavar="REASON",
        help="later runs are not compared with baselines older than this one",
    )
    partial = command.add_mutually_exclusive_group()
    partial.add_argument(
        "--merge",
        action="store_true",
        help="keep the present baseline's entries for benchmarks that the run does not have",
    )
    partial.add_argument(
        "--replace",
        action="store_true",
        help="drop the present baseline's entries for benchmarks that the run does not have",
    )


def _add_calibrate(commands: Commands[argparse.ArgumentParser]) -> None:
    calibrate = commands.add_parser(
        "calibrate", help=f"store a baseline with its noise, from runs of this very code{AFTER}"
    )
    calibrate.add_argument(
        "--runs", type=options.at_least(1), default=RUNS, metavar="N", help="default: %(default)s"
    )
    declare(calibrate.add_argument, "--processes", default=PROCESSES)
    calibrate.add_argument(
        "--keep",
        type=options.folder,
        metavar="DIR",
        help="keep every process's rounds there, for analysis",
    )
    calibrate.add_argument(
        "--add",
        action="store_true",
        help="join the runs to the stored calibration of this device, of code that costs the same, "
        "so that it holds on several days and machines",
    )
    declare(calibrate.add_argument, "--worker-timeout", default=TIMEOUT_SECONDS)
    _add_storing(calibrate)


def _add_ab(commands: Commands[argparse.ArgumentParser]) -> None:
    ab = commands.add_parser(
        "ab", help=f"compare two git revisions, measured in turns on this machine{AFTER}"
    )
    ab.add_argument("base", help="a branch, tag or commit")
    ab.add_argument("head", nargs="?", help="another one; default: the files as they are")
    _add_pairs(ab)
    declare(ab.add_argument, "--report", shown="none are written")


def _add_pairs(command: argparse.ArgumentParser) -> None:
    declare(command.add_argument, "--pairs")
    declare(command.add_argument, "--false-alarm")
    declare(command.add_argument, "--worker-timeout", default=TIMEOUT_SECONDS)
    declare(command.add_argument, "--fail-on-inconclusive")


def _add_gate(commands: Commands[argparse.ArgumentParser]) -> None:
    merge = commands.add_parser(
        "gate",
        help="judge the files as they are by the stored baseline, and what its times leave open by "
        f"where they branched off from a base{AFTER}",
    )
    merge.add_argument("base", help="what they are to be merged into: a branch, tag or commit")
    _add_pairs(merge)
    declare(merge.add_argument, "--baselines", default=BASELINES)
    declare(merge.add_argument, "--report", default=REPORTS)


def _add_report(commands: Commands[argparse.ArgumentParser]) -> None:
    report = commands.add_parser("report", help="make all reports again from a report.json")
    report.add_argument("document", type=options.path, help="a report.json")
    report.add_argument("--out", type=options.folder, default=REPORTS, help="default: %(default)s")
    declare(report.add_argument, "--baselines", default=BASELINES)


def _add_advise(commands: Commands[argparse.ArgumentParser]) -> None:
    advise = commands.add_parser(
        "advise", help="the fastest and the smallest implementation at a shape, by stored figures"
    )
    count = options.at_least(1)
    advise.add_argument("--batch", type=count, required=True, metavar="N", help="rows of the input")
    advise.add_argument(
        "--widths",
        type=count,
        nargs="+",
        required=True,
        metavar="N",
        help="features at the input and after each layer",
    )
    advise.add_argument(
        "--device", type=options.words, help="a part of the device's key or model; default: any"
    )
    advise.add_argument(
        "--memory", type=count, metavar="MB", help="what a step may need at most, in 10^6 bytes"
    )
    declare(advise.add_argument, "--baselines", default=BASELINES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 when it did what was asked and found nothing."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    whole = parser()
    _complete(whole)
    chosen, unknown = whole.parse_known_args(given[:split])
    if unknown:
        whole.error(
            f"unrecognized arguments: {' '.join(unknown)}; put what is pytest's behind --, as in "
            f"kan-bench {chosen.command} ... -- {' '.join(unknown)}"
        )
    chosen.pytest = given[split + 1 :]
    from perfgate import commands

    return commands.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
