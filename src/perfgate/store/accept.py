"""Storing a run as the baseline of its device."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perfgate.judge.parse import figures_of, parse_run
from perfgate.judge.place import OURS, ours
from perfgate.judge.record import Run
from perfgate.store import baseline


def accept(
    data: dict[str, Any],
    source: str,
    baselines: Path,
    name: str | None = None,
    merge: bool = False,
    replace: bool = False,
    new_history: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    join: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None,
) -> Path:
    """Store a run as the newest baseline of its device; its calibration goes on.

    Args:
        data: the run, in pytest-benchmark's JSON.
        source: what messages call it.
        baselines: where baselines are stored.
        name: for the file; the commit of the run if None.
        merge: keep the present baseline's entries for benchmarks that the run does not have.
        replace: drop them.
        new_history: why later runs are not to be compared with older baselines than this one.
        say: hears which times are of no use, and that another process stores at the same time,
            before this one waits for it.
        join: makes what is stored of the present baseline and the run.

    Raises:
        BaselineError: the run measured nothing, or does not say on which device; it lacks
            benchmarks of the present baseline (without `merge` or `replace`); or the folder cannot
            be written.
    """
    run = parse_run(data)
    _check_whole(run, source)
    if busy := [m.name for m in run.measurements.values() if not m.values("median_ns")]:
        say(
            f"{source} was disturbed in every process of {', '.join(busy)}: their memory is "
            "stored, and their time will be judged by this code, in turns"
        )
    if run.commit == "unversioned" or run.dirty:
        what = "without a git commit" if run.commit == "unversioned" else "with uncommitted work"
        say(
            f"{source} was measured {what}: its code cannot be measured again, so that a time that "
            "stored figures leave open will be inconclusive; commit and measure to avoid it"
        )
    # What is kept of the present baseline is read under the lock under which it is replaced:
    # of two that merge at once, the second keeps what the first one stored.
    with baseline.changing(baselines, run.device_key, say) as folder:
        present = baseline.find(baselines, run.device_key)
        if present is not None:
            held = baseline.read_json(present)
            data = join(held, data) if join else data
            _inherit_calibration(data["benchmarks"], held["benchmarks"])
            data["benchmarks"] += _kept(data, held, source, present, merge, replace)
        data.setdefault(OURS, {})["anchor"] = new_history
        file_name = re.sub(r"[^\w.-]+", "-", name or run.commit[:10])
        return baseline.write_next(folder, data, file_name)


def _check_whole(run: Run, source: str) -> None:
    """Whether what a run holds is worth to compare with."""
    if not run.measurements:
        raise baseline.BaselineError(
            f"{source} holds no measurement; expected one or more: run pytest --benchmark-only"
        )
    if not run.says_device:
        raise baseline.BaselineError(
            f"{source} does not say of which device it is; expected a run with the plugin of "
            "perfgate, since a baseline is found by its device: measure with the plugin, or "
            f"compare with this file by pytest --benchmark-compare={source}"
        )


def _inherit_calibration(entries: list[dict[str, Any]], held: list[dict[str, Any]]) -> None:
    """How much a figure differs between runs of one code is the same for the next code."""
    of = {entry["fullname"]: figures_of(entry) for entry in held}
    for entry in entries:
        info, old = figures_of(entry), of.get(entry["fullname"], {})
        same_work = info.get("measured") == old.get("measured")
        if "calibration" in old and "calibration" not in info and same_work:
            info["calibration"] = old["calibration"]


def _kept(
    data: dict[str, Any],
    held: dict[str, Any],
    source: str,
    present: Path,
    merge: bool,
    replace: bool,
) -> list[dict[str, Any]]:
    """Entries of the present baseline that go on, as what they are: figures of its commit and
    machine."""
    if not merge and not replace:
        check_covers(data, held, source, present)
    names = {entry["fullname"] for entry in data["benchmarks"]}
    others = [entry for entry in held["benchmarks"] if entry["fullname"] not in names]
    commit = {key: held["commit_info"].get(key) for key in ("id", "dirty")}
    machine = ours(held["machine_info"], "machine_info").get("machine")
    for entry in others:
        figures = figures_of(entry)
        if "code" not in figures:  # else it was kept before, from an earlier run
            figures |= {"code": commit, "machine": machine}
    return [] if replace else others


def check_covers(data: dict[str, Any], held: dict[str, Any], source: str, present: Path) -> None:
    """Refuse a run that would drop benchmarks of the present baseline.

    Raises:
        BaselineError: it lacks some of them.
    """
    names = {entry["fullname"] for entry in held["benchmarks"]}
    if lost := names - {entry["fullname"] for entry in data["benchmarks"]}:
        raise baseline.BaselineError(
            f"{source} lacks {len(lost)} of the {len(names)} benchmarks of {present}; expected all "
            "of them: run them all, or keep the old entries with --merge, or drop them with "
            "--replace"
        )


def refuse_part(baselines: Path, source: str, data: dict[str, Any]) -> None:
    """Refuse what `accept` would not store without `merge` or `replace`, before more is measured.

    Raises:
        BaselineError: it lacks benchmarks of the present baseline, or that cannot be read.
    """
    present = baseline.find(baselines, parse_run(data).device_key)
    if present is not None:
        check_covers(data, baseline.read_json(present), source, present)
