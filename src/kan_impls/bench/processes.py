"""Starting workers, and reading what they measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kan_impls.bench.record import InvalidRunError, parse_run
from kan_impls.bench.worker import Order

PROGRESS = re.compile(r"\[\d+/\d+\] \S+")
LINES_OF_FAILURE = 40

# What pytest sets for one test must not be there for another process's.
NOT_INHERITED = ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")


class WorkerError(Exception):
    """A worker measured nothing; the message holds the end of its output."""


@dataclass(frozen=True)
class Command:
    """How pytest is started.

    Args:
        arguments: pytest's, without those that the order replaces.
        folder: where.
        python: interpreter and options before `-m pytest`, or a script in its place.
        environment: variables on top of this process's.
    """

    arguments: Sequence[str]
    folder: Path
    python: Sequence[str] = (sys.executable, "-m", "pytest")
    environment: Mapping[str, str] | None = None

    def start(self, order_path: Path, pass_fds: Iterable[int] = ()) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
        return subprocess.Popen(
            [*self.python, f"--kan-worker={order_path}", *self.arguments],
            cwd=self.folder, env={**inherited, **(self.environment or {})}, text=True,
            errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
        )  # fmt: skip


def measure_in_process(
    command: Command, order: Order, announce: Callable[[str], None]
) -> dict[str, Any]:
    """What a fresh process measures, in pytest-benchmark's JSON.

    Args:
        command: how pytest is started.
        order: what it measures; the output is chosen here.
        announce: hears which benchmark runs.

    Raises:
        WorkerError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="kan-bench-") as folder:
        output, order_path = Path(folder, "run.json"), Path(folder, "order.json")
        replace(order, output=str(output)).write(order_path)
        with command.start(order_path) as process:
            tail = follow(process, announce)
        return read_output(output, process.returncode, tail)


def follow(process: subprocess.Popen[str], announce: Callable[[str], None]) -> list[str]:
    """Wait for a worker; the last lines of its output."""
    assert process.stdout is not None
    tail: list[str] = []
    for line in process.stdout:
        if found := PROGRESS.search(line):
            announce(found.group())
        tail = [*tail, line][-LINES_OF_FAILURE:]
    process.wait()
    return tail


def read_output(output: Path, returncode: int, tail: Sequence[str]) -> dict[str, Any]:
    """The run that a worker wrote.

    Raises:
        WorkerError: there is none.
    """
    if returncode:
        raise WorkerError(
            f"a measuring process ended with status {returncode}; expected 0: its output ended "
            f"with\n{''.join(tail)}"
        )
    try:
        data: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        parse_run(data)
    except (OSError, json.JSONDecodeError, InvalidRunError) as error:
        raise WorkerError(
            f"a measuring process left no run ({error}); expected one: its output ended with\n"
            f"{''.join(tail)}"
        ) from error
    return data
