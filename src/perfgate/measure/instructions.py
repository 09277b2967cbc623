"""Instructions that passes execute, counted by valgrind's callgrind on an emulated CPU.

Load, clock and caches do not change the count; where memory lies does (presumably by tables that
are hashed by addresses, in the interpreter and in autograd). Lines of code that never ran moved a
backward pass by 2% that way, while repeats agreed to 0.01%. So a layout is sampled and not frozen:
each of several processes has its own hash seed, and each repeat its own objects, scattered. The
process is the unit of replication.

`torch.utils.benchmark.Timer.collect_callgrind` starts one valgrind process per statement, each of
which imports torch under callgrind: 65 s for each of 20 statements. It can neither leave out what
prepares a backward pass, nor choose seed and environment. Here one process imports torch before
callgrind instruments anything (16 s), and torch's own client requests, which the Timer uses as
well, collect around the passes alone (`measure/callgrind.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from perfgate.measure.callgrind import CALLS, PLAN, REPEATS, CollectionError

PROCESSES = 6

DUMP = "callgrind.out"
TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)
LONGEST = 600  # seconds of a process; one takes 30 to 60


class Counts(NamedTuple):
    """Instructions of statements.

    Args:
        environment: what decides the count beside the code, such as the interpreter's build.
        calls: statement to instructions of a call, one figure per process.
    """

    environment: Mapping[str, str]
    calls: Mapping[str, Sequence[int]]


def unavailable() -> str | None:
    """Why nothing can be counted here, if so."""
    if not sys.platform.startswith("linux"):
        return f"instructions are counted on Linux only, and this is {sys.platform}: use Linux"
    if not torch._C._valgrind_supported_platform():
        return (
            f"torch {torch.__version__} was built without valgrind's requests; expected a build "
            "with them, as PyTorch's own for Linux: install one"
        )
    for command in ("valgrind", "callgrind_control"):
        if shutil.which(command) is None:
            return f"{command} is not installed; expected it on the path: apt install valgrind"
    return None


def collect(arguments: Sequence[str], processes: int = PROCESSES) -> Counts:
    """Run a script in several processes, and read what was counted.

    Args:
        arguments: the script and its arguments, as Python gets them; it calls `callgrind.count`.
        processes: number of processes; as many at once as there are cores, which changes no count.

    Raises:
        CollectionError: a process failed, or counted nothing.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runs = list(pool.map(lambda seed: _in_process(arguments, seed), range(processes)))
    names = runs[0].calls
    return Counts(runs[0].environment, {n: [run.calls[n][0] for run in runs] for n in names})


def _in_process(arguments: Sequence[str], seed: int) -> Counts:
    with tempfile.TemporaryDirectory(prefix="kan-instructions-") as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            "--collect-atstart=no",
            "--dump-line=no",
            f"--callgrind-out-file={DUMP}",
            sys.executable,
            *arguments,
        ]
        try:
            finished = subprocess.run(
                command,
                cwd=folder,
                env=_clean(seed),
                timeout=LONGEST,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CollectionError(
                f"valgrind failed ({error}); expected a process to count within {LONGEST} s: "
                f"try it by hand: {' '.join(command)}"
            ) from error
        if finished.returncode:
            raise CollectionError(
                f"a counting process ended with status {finished.returncode}; expected 0: see the "
                f"end of its output:\n{finished.stdout[-3000:]}"
            )
        return read_process(Path(folder))


def _clean(seed: int) -> dict[str, str]:
    """All variables of a counting process: of yours, only what finds callgrind_control."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONHASHSEED": str(seed),
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def read_process(folder: Path) -> Counts:
    """What one process counted: the mean over its repeats, in instructions of a call.

    Args:
        folder: where it left its plan, and a dump for each repeat of each statement in turn.

    Raises:
        CollectionError: the plan or a dump is missing, or a dump holds nothing.
    """
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CollectionError(
            f"a counting process left no {PLAN}; expected its script to call count(): correct it"
        ) from error
    names = plan["names"]
    totals = dict.fromkeys(names, 0)
    for repeat in range(1, 1 + REPEATS):
        for position, name in enumerate(names):
            totals[name] += _total(folder / f"{DUMP}.{repeat * len(names) + position + 1}", name)
    calls = {name: [round(total / (REPEATS * CALLS))] for name, total in totals.items()}
    return Counts(plan["environment"], calls)


def _total(dump: Path, name: str) -> int:
    """Instructions of a dump of callgrind's."""
    found = TOTAL.search(dump.read_text(encoding="utf-8")) if dump.exists() else None
    if found is None or not int(found[1]):
        raise CollectionError(
            f"callgrind counted nothing of {name} ({dump.name}); expected a dump with a line "
            "'totals:' above 0: see whether valgrind supports this CPU"
        )
    return int(found[1])
