"""A program in a process group of its own, ended with all it started at its limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpucheck.steps import TimedOutError

TAIL_CHARS = 4000


def run_program(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str], log: Path, folder: Path
) -> tuple[int, str]:
    """Exit status and output, which is also appended to `log`.

    Raises:
        TimedOutError: the limit passed; the data hold the output until then.
    """
    with log.open("a+b") as file:
        start = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            reason = f"ended at its limit of {limit_s:.0f} s"
            raise TimedOutError(reason, {"output": _since(log, start)}) from None
        finally:
            _end(process)
    return status, _since(log, start)


def _since(log: Path, start: int) -> str:
    return log.read_bytes()[start:].decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it left running."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
