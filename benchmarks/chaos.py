"""Commands of the gate are killed at random moments: nothing is lost, and the next one works.

A small project in a temporary folder takes it. `accept`, `compare`, `calibrate` and `ab` are
started and killed (SIGKILL to the command alone, as the system does when memory runs out). Then

- every baseline is there, byte by byte, and what a file holds can be read;
- no measuring process goes on;
- the next commands end as they must, and leave no worktree, lock or temporary file behind.

Exit status 0 if all of this held. POSIX only.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from perfgate.judge.exit_codes import GateExit
from perfgate.report.document import ReportError, read_document
from perfgate.store.baseline import BaselineError, read_run

SOURCE = Path(__file__).resolve().parents[1] / "src"
MARK = "KAN_BENCH_CHAOS"

FILES = {
    "conftest.py": 'pytest_plugins = ["perfgate.plugin"]\n',
    ".gitignore": ".benchmarks/\n__pycache__/\nbenchmarks/baselines/\n",
    "work.py": "def work():\n    return sorted(range(2000), key=lambda number: -number)\n",
    "benchmarks/test_work.py": (
        "from work import work\n\n\ndef test_one(measure):\n    measure(work)\n\n\n"
        "def test_two(measure):\n    measure(lambda: (work(), work()))\n"
    ),
}

PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "--benchmark-max-time=0.05", "--device=cpu")
BENCH = ("-m", "perfgate.cli")
AFTER = ("--", *PYTEST[2:])
MEASURE = (*PYTEST, "--benchmark-only")
ACCEPT = (*BENCH, "accept")
COMMANDS = {
    "accept": ACCEPT,
    "compare": (*PYTEST, "--benchmark-compare", "--pairs=4"),
    "calibrate": (*BENCH, "calibrate", "--runs=2", "--processes=1", *AFTER),
    "ab": (*BENCH, "ab", "HEAD", "--pairs=4", *AFTER),
}

# A verdict on the noise of some milliseconds may be any; these say that something was broken.
BROKEN = {
    GateExit.MISSING,
    GateExit.NOTHING_MEASURED,
    GateExit.CORRUPT_BASELINE,
    GateExit.STOPPED,
    *range(1, 10),
}

# So many kills come between two rounds of all commands, which see what is left.
BETWEEN_ROUNDS = 10

# A measuring process sees that its starter is gone as soon as it runs.
END_SECONDS = 20


@dataclass
class Project:
    """The project that is killed in.

    Args:
        root: its folder.
        temporary: the system's folder for temporary files, as its commands see it.
        mark: value of a variable that all of its processes have.
        baselines: the baselines that were stored so far, and their bytes.
    """

    root: Path
    temporary: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    baselines: dict[Path, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, text in FILES.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        identity = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
        for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "start"]):
            subprocess.run(["git", *arguments], cwd=self.root, check=True)

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": str(SOURCE),
                "TMPDIR": str(self.temporary),
                "OMP_NUM_THREADS": "1",
                MARK: self.mark,
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def processes(self) -> list[psutil.Process]:
        """All that still run, but for those that wait to be collected."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found += [process] if process.environ().get(MARK) == self.mark else []
            except psutil.Error:  # gone, or another user's
                continue
        return found

    def faults_of_files(self) -> Iterator[str]:
        """What was lost, or can be read by half only."""
        stored = {
            path: path.read_bytes()
            for path in (self.root / "benchmarks" / "baselines").rglob("*.json")
            if not path.name.startswith(".")
        }
        for path, content in self.baselines.items():
            if stored.get(path) != content:
                yield f"{path.name} is not what it was"
        self.baselines = stored
        kept = self.root / ".benchmarks" / "last_run.json"
        for path in [*stored, *([kept] if kept.exists() else [])]:
            try:
                read_run(path)
            except BaselineError as error:
                yield str(error)
        report = self.root / ".benchmarks" / "report" / "report.json"
        if report.exists():
            try:
                read_document(report)
            except ReportError as error:
                yield str(error)

    def leftovers(self) -> Iterator[str]:
        """What a killed command left and the next one did not remove."""
        for path in self.temporary.glob("kan-bench-*"):
            if path.is_dir():
                yield f"the folder {path.name} is left"
        for path in self.root.rglob(".*.tmp"):
            yield f"the temporary file {path.name} is left"
        listed = subprocess.run(
            ["git", "worktree", "list"], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        yield from (f"the worktree {line} is left" for line in listed[1:])

    def run(self, name: str, arguments: Sequence[str], allowed: str = "\0") -> Iterator[str]:
        """Run a command to its end; what of it is wrong.

        Args:
            name, arguments: of the command.
            allowed: words of an error that it may end with.
        """
        process = self.start(arguments)
        try:
            said, _ = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            yield f"the next {name} did not end"
            return
        if "Traceback" in said or (process.returncode in BROKEN and allowed not in said):
            yield f"the next {name} ended with {process.returncode}: {said[-500:]}"

    def kill(self, arguments: Sequence[str], seconds: float) -> bool:
        """Start a command and kill it after so long; whether it still ran."""
        process = self.start(arguments)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.stdout.close()  # type: ignore[union-attr]
        return process.wait() == -signal.SIGKILL

    def after_a_kill(self) -> Iterator[str]:
        """What is wrong at once, and with a cheap next command."""
        end = time.monotonic() + END_SECONDS
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        for process in left:
            yield f"process {process.pid} goes on"
            process.kill()
        yield from self.faults_of_files()
        # A run that was killed is not kept, and an older one must not be taken for it.
        yield from self.run("accept", ACCEPT, allowed="was not kept")
        yield from self.faults_of_files()

    def round(self, commands: Sequence[str]) -> Iterator[str]:
        """A run, these commands, and what is left after them."""
        yield from self.run("measure", MEASURE)
        for name in commands:
            yield from self.run(name, COMMANDS[name])
        yield from self.faults_of_files()
        yield from self.leftovers()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--commands", nargs="+", choices=COMMANDS, default=[*COMMANDS], help="default: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    options = parser.parse_args()
    chance, killed, faults = random.Random(options.seed), Counter[str](), 0

    def report(found: Iterator[str], when: str) -> None:
        nonlocal faults
        for fault in found:
            faults += 1
            print(f"FAULT {when}: {fault}", flush=True)

    with tempfile.TemporaryDirectory() as place:
        root, temporary = Path(place, "project"), Path(place, "tmp")
        temporary.mkdir()
        project = Project(root, temporary)
        seconds = {}
        report(project.run("measure", MEASURE), "before any kill")
        for name in options.commands:
            began = time.monotonic()
            report(project.run(name, COMMANDS[name]), "before any kill")
            seconds[name] = time.monotonic() - began
        for number in range(1, options.kills + 1):
            name = options.commands[number % len(options.commands)]
            moment = chance.uniform(0, seconds[name])
            killed[name] += project.kill(COMMANDS[name], moment)
            when = f"kill {number}, {name} after {moment:.2f} of {seconds[name]:.1f} s"
            report(project.after_a_kill(), when)
            print(when, flush=True)
            if number % BETWEEN_ROUNDS == 0 or number == options.kills:
                report(project.round(options.commands), f"after {number} kills")
    shares = ", ".join(f"{name} {count}" for name, count in killed.items())
    print(f"killed {killed.total()} of {options.kills} commands ({shares}): {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
