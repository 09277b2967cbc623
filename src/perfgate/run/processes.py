"""Starting workers, and reading what they measured."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perfgate.fields import loads
from perfgate.files import WRITABLE_TMPDIR, temporary_folder
from perfgate.judge.parse import parse_run
from perfgate.plain_text import one_line
from perfgate.run import lifeline
from perfgate.run.worker import Order

PROGRESS = re.compile(r"\[\d+/\d+(, \d+ \w+ left)?\] \S+(?=\s)")
LINES_OF_FAILURE = 40

# The longest benchmark here, ten passes of a minute each, takes a third of it.
TIMEOUT_SECONDS = 1800.0

# What pytest sets for one test must not be there for another process's.
NOT_INHERITED = ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")


class WorkerError(Exception):
    """A worker measured nothing; the message holds the end of its output."""

    @property
    def headline(self) -> str:
        """What happened, without the output."""
        return one_line(str(self).partition("\n")[0])


class WorkerStoppedError(WorkerError):
    """A worker hung or was killed, which says nothing of what it measured."""


@dataclass(frozen=True)
class Command:
    """How pytest is started.

    Args:
        arguments: pytest's, without those that the order replaces.
        folder: where.
        python: interpreter and options before `-m pytest`, or a script in its place.
        environment: variables on top of this process's.
        timeout: seconds without progress after which a process is ended.
    """

    arguments: Sequence[str]
    folder: Path
    python: Sequence[str] = (sys.executable, "-m", "pytest")
    environment: Mapping[str, str] | None = None
    timeout: float = TIMEOUT_SECONDS

    def start(self, order_path: Path, pass_fds: Iterable[int] = ()) -> subprocess.Popen[bytes]:
        """Start it. It ends with this process, however that ends.

        Raises:
            WorkerError: it cannot be started.
        """
        inherited = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
        its_end, our_end = os.pipe()
        try:
            process = subprocess.Popen(
                [*self.python, f"--kan-worker={order_path}", *self.arguments],
                cwd=self.folder,
                env={**inherited, lifeline.VARIABLE: str(its_end), **(self.environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(*pass_fds, its_end),
            )
        except (OSError, ValueError) as error:
            os.close(our_end)
            raise WorkerError(
                f"a measuring process cannot be started ({error}); expected {self.python[0]} to "
                f"run in {self.folder}: see that both exist, and that memory and processes are left"
            ) from error
        finally:
            os.close(its_end)
        weakref.finalize(process, os.close, our_end)
        return process


def measure_in_process(
    command: Command,
    order: Order,
    announce: Callable[[str], None],
) -> dict[str, Any]:
    """What a fresh process measures, in pytest-benchmark's JSON.

    Args:
        command: how pytest is started.
        order: what it measures; the output is chosen here.
        announce: hears which benchmark runs.

    Raises:
        WorkerError: the process failed.
        WorkerStoppedError: it was killed, or hung.
    """
    lifeline.end_on_sigterm()
    with folder_of_orders() as folder:
        output, order_path = folder / "run.json", folder / "order.json"
        replace(order, output=str(output)).write(order_path)
        process = command.start(order_path)
        try:
            tail = follow(process, announce, command.timeout)
        finally:
            _end(process)
        return read_output(output, process.returncode, tail)


@contextlib.contextmanager
def folder_of_orders() -> Iterator[Path]:
    """A folder for what workers are told and what they write, which goes at the end.

    Raises:
        WorkerError: it, or another file that they need, cannot be made.
    """
    try:
        with temporary_folder() as folder:
            yield folder
    except OSError as error:
        raise WorkerError(
            f"a measuring process cannot be given its orders ({error}); {WRITABLE_TMPDIR}"
        ) from error


def follow(
    process: subprocess.Popen[bytes],
    announce: Callable[[str], None],
    timeout: float = TIMEOUT_SECONDS,
) -> list[str]:
    """Wait for a worker; the last lines of its output.

    A worker that says nothing for `timeout` seconds is killed; then the last line says so.
    """
    tail = [""]
    said = ""
    for piece in _pieces(process, timeout):
        if piece is None:
            process.kill()
            where = f" in {said}" if said else " before its first benchmark"
            tail.append(f"{_HUNG}: no progress for {timeout:g} seconds{where}\n")
            break
        *whole, rest = (tail.pop() + piece).splitlines(keepends=True) or [""]
        tail = [*tail, *whole, rest][-LINES_OF_FAILURE:]
        if tail[-1].endswith("\n"):
            tail.append("")
        # It names a benchmark before it measures it, and ends the line when it has.
        for line in (*whole, rest):
            if (found := PROGRESS.search(line)) and found.group() != said:
                said = found.group()
                announce(said)
    process.wait()
    return [line for line in tail if line]


# How the last line of a worker begins that was killed for its silence.
_HUNG = "it was ended"


def _pieces(process: subprocess.Popen[bytes], seconds: float) -> Iterator[str | None]:
    """Its output as it comes; None and no more once it was silent for so long."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector, process.stdout as output:
        selector.register(output, selectors.EVENT_READ)
        while selector.select(seconds):
            piece = os.read(output.fileno(), 65536)
            if not piece:
                return
            yield piece.decode(errors="replace")
        yield None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def last_words(tail: Sequence[str]) -> str:
    """The last error that pytest shows in some output, or else its last line."""
    lines = [line.strip() for line in tail if line.strip()]
    errors = [line[1:].strip() for line in lines if line.startswith("E  ")]
    return (errors or lines or ["it said nothing"])[-1]


def read_output(output: Path, returncode: int, tail: Sequence[str]) -> dict[str, Any]:
    """The run that a worker wrote.

    Raises:
        WorkerError: there is none.
        WorkerStoppedError: the worker was killed, or hung.
    """
    if returncode < 0:
        hung = tail[-1].strip() if tail and tail[-1].startswith(_HUNG) else None
        how = hung or f"signal {-returncode} ({_signal_name(-returncode)}) ended it"
        raise WorkerStoppedError(
            f"a measuring process did not come to its end: {how}; expected all of its benchmarks: "
            "see whether one of them waits for ever (--worker-timeout is the limit), or memory ran "
            f"out. Its output ended with\n{''.join(tail)}"
        )
    # 1: some of its benchmarks failed; the others were measured.
    if returncode and not (returncode == 1 and output.exists()):
        raise WorkerError(
            f"a measuring process ended with status {returncode}; expected 0: {last_words(tail)}\n"
            f"{''.join(tail)}"
        )
    try:
        data: dict[str, Any] = loads(output.read_text(encoding="utf-8"))
        parse_run(data)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"a measuring process left no run ({error}); expected one: its output ended with\n"
            f"{''.join(tail)}"
        ) from error
    return data


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in {*signal.Signals} else "unknown"
