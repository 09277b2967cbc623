"""What of machine, torch, git and baseline is fine here, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from perfgate.ab.trees import RevisionError, commit_of, is_shallow
from perfgate.judge.record import Run
from perfgate.start.init import PLUGIN, names_plugin
from perfgate.store.baseline import BaselineError, find, read_run, stored

# A processor this busy disturbs rounds: others take the cores that a pass needs.
BUSY = 0.5


def report(root: Path, baselines: Path) -> tuple[list[str], bool]:
    """The lines of the report, and whether nothing is missing without which nothing is judged.

    Args:
        root: the folder in which pytest is started.
        baselines: where they are stored.
    """
    from perfgate.measure.environment import describe_environment, resolve_device

    environment = describe_environment(resolve_device(None))
    lines = []
    for title, facts in (
        ("python", _python()),
        ("torch", _torch(environment["torch"])),
        ("device", [environment["device_key"]]),
        ("machine", _machine()),
        ("plugin", _plugin(root)),
        ("git", _git(root)),
        ("baseline", _baseline(root, baselines, environment["device_key"])),
        ("page", _package("plotly", "report.html is not written", "'kan-impls[report]'")),
        ("callgrind", _callgrind()),
    ):
        lines += [f"{title:10}{fact}" for fact in facts]
    return lines, not any("MISSING" in line for line in lines)


def _python() -> Iterator[str]:
    yield f"{platform.python_version()}, {sys.executable}"


def _torch(version: str) -> Iterator[str]:
    import torch

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA build"
    found = torch.cuda.device_count() if torch.version.cuda else 0
    yield f"{version}, {cuda}, {found} GPUs, {torch.get_num_threads()} threads"
    if found:
        yield from _package("pynvml", "what others do on the GPU is not seen", "'kan-impls[gpu]'")


def _machine() -> Iterator[str]:
    from perfgate.measure.processor import usable_cores

    cores = usable_cores()
    yield f"{platform.system()} {platform.machine()}, {cores:g} cores"
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > BUSY * cores:
        yield (
            f"BUSY: a load of {load:.1f} on {cores:g} cores; verdicts take longer, and some stay "
            "open: wait until the others are done"
        )


def _plugin(root: Path) -> Iterator[str]:
    if names_plugin(root / "conftest.py"):
        yield "named in conftest.py"
    else:
        yield (
            f"MISSING: conftest.py in {root} does not name {PLUGIN}; without it "
            "--benchmark-compare is pytest-benchmark's own: run kan-bench init"
        )


def _git(root: Path) -> Iterator[str]:
    try:
        yield f"at {commit_of(root, 'HEAD')[:10]}"
    except RevisionError as error:
        yield (
            f"MISSING: {error}; the code of a baseline is found by its commit: run git init, and "
            "commit"
        )
        return
    if is_shallow(root):
        yield (
            "MISSING: the clone is shallow, so that a baseline's code cannot be had: run "
            "git fetch --unshallow"
        )


def _baseline(root: Path, baselines: Path, device_key: str) -> Iterator[str]:
    try:
        path = find(baselines, device_key)
        newest = None if path is None else read_run(path)
        number = len(stored(baselines, device_key))
    except BaselineError as error:
        yield f"MISSING: {error}"
        return
    if newest is None:
        yield (
            f"none of this device in {baselines}: run pytest --benchmark-only, and then "
            "kan-bench accept"
        )
        return
    yield (
        f"{len(newest.measurements)} benchmarks of {newest.datetime[:10]} at {newest.commit[:10]}, "
        f"the newest of {number}; {_noise(newest)}"
    )
    if newest.dirty:
        yield "its code was not committed, so that it judges no time: measure and accept again"
        return
    try:
        commit_of(root, newest.commit)
    except RevisionError:
        yield f"its commit is not here: run git fetch origin {newest.commit}"


def _noise(run: Run) -> str:
    calibrations = [m.calibration for m in run.measurements.values() if m.calibration is not None]
    if not calibrations:
        return "its noise is not known, so that all times are compared in turns"
    return f"its noise rests on {calibrations[0].basis}"


def _callgrind() -> Iterator[str]:
    found = shutil.which("valgrind")
    yield found or "no valgrind, so that no instructions are counted: apt install valgrind"


def _package(module: str, without: str, install: str) -> Iterator[str]:
    if importlib.util.find_spec(module) is None:
        yield f"{module} is not installed, so that {without}: pip install {install}"
    else:
        yield f"{module} is installed"
