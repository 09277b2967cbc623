"""The side of a count that runs under callgrind: what it counts, and when."""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

REPEATS = 3  # after a first one, which is discarded
CALLS = 3  # in a repeat
WARM_UP = 20  # the interpreter specialises code that ran some times

PLAN = "plan.json"


class CollectionError(Exception):
    """Instructions cannot be counted; the message says what to do."""


class Statement(Protocol):
    """What is counted, such as a `ModulePass`."""

    def prepare(self) -> None:
        """What comes before each call, and is not counted."""

    def run(self) -> None:
        """What is counted."""

    def release(self) -> None:
        """Let go of what the last call left."""


def count(build: Mapping[str, Callable[[], Statement]]) -> None:
    """Count the statements; called once by the script that `instructions.collect` starts.

    Args:
        build: name to what makes a statement ready to run.

    Raises:
        CollectionError: callgrind does not listen.
    """
    torch.set_num_threads(1)
    layout = random.Random(os.environ["PYTHONHASHSEED"])
    kept: list[Any] = []
    statements = []
    for _ in range(1 + REPEATS):
        for make in build.values():
            kept.append(_scatter(layout))
            statements.append(make())
    for position, statement in enumerate(statements):
        for _ in range(WARM_UP if position < len(build) else 1):
            statement.prepare()
            statement.run()
        statement.release()
    gc.collect()
    gc.freeze()  # or each collection would go through all of torch, ten times slower than usual
    gc.disable()
    _instrument()
    for statement in statements:
        gc.collect()
        _count_calls(statement)
    plan = {"names": list(build), "environment": _environment()}
    Path(PLAN).write_text(json.dumps(plan), encoding="utf-8")


def _scatter(layout: random.Random) -> list[Any]:
    """Half of some objects, so that what comes next lies in holes of a heap like any other."""
    blocks: list[Any] = [bytearray(layout.randrange(16, 1024)) for _ in range(200)]
    blocks += [torch.empty(layout.randrange(1, 1024)) for _ in range(200)]
    layout.shuffle(blocks)
    return blocks[::2]


def _instrument() -> None:
    command = ["callgrind_control", "--instr=on", str(os.getpid())]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode or "OK" not in finished.stdout:
        raise CollectionError(
            f"callgrind_control reached no callgrind ({finished.stderr.strip()[-200:]}); expected "
            "this process under valgrind, and vgdb's pipes in a writable /tmp: permit both"
        )


def _count_calls(statement: Statement) -> None:
    statement.prepare()
    statement.run()  # the first call after a garbage collection fills lists of free objects
    for call in range(CALLS):
        statement.prepare()
        torch._C._valgrind_toggle()
        statement.run()
        if call < CALLS - 1:
            torch._C._valgrind_toggle()
        else:
            torch._C._valgrind_toggle_and_dump_stats()
    statement.release()


def _environment() -> dict[str, str]:
    # An interpreter of another build runs up to 10% more instructions: 3.11.2 and 3.11.7.
    return {
        "torch": torch.__version__,
        "python": sys.version,
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        # What valgrind emulates: AVX2 on a CPU with AVX-512, too.
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
