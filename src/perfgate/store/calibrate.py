"""Runs of identical code: what a figure does when nothing changes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perfgate.files import write_atomically
from perfgate.judge.limits import limits_of
from perfgate.judge.parse import figures_of, parse_benchmark, parse_run
from perfgate.judge.provenance import Machine, Origin
from perfgate.judge.record import FIGURES, Calibration, Measurement, Run
from perfgate.progress import Progress
from perfgate.run.processes import Command, measure_in_process
from perfgate.run.worker import Order
from perfgate.store.baseline import read_json, stored

# The noise of one benchmark is known to a quarter of itself then, and better by what all have
# in common.
RUNS = 10


class CalibrationError(Exception):
    """The runs do not make a calibration; the message says what to do."""


def calibrate(
    command: Command,
    runs: int,
    processes: int,
    announce: Callable[[str], None],
    keep: Path | None = None,
    add_to: Path | None = None,
    check: Callable[[dict[str, Any]], None] = lambda measured: None,
) -> dict[str, Any]:
    """Measure the same code in several runs of several processes.

    Args:
        command: how pytest is started.
        runs: how many runs.
        processes: processes of each of them, as the runs will have that are judged by it.
        announce: hears what happens.
        keep: a folder for what each process measured, with the seconds of every round.
        add_to: where baselines are stored, whose newest of this device the runs are to join.
        check: is given what the first process measured, and raises what ends the calibration.

    Returns:
        a run in pytest-benchmark's JSON, of all processes, with its calibration.

    Raises:
        WorkerError: a process failed.
        CalibrationError: memory, or what is measured, differed between the runs; `keep` holds an
            earlier calibration, or cannot be written; or the runs cannot be added.
        BaselineError: the baseline to add to cannot be read.
    """
    if keep is not None:
        _prepare(keep)
    data: list[list[dict[str, Any]]] = []
    names: list[str] | None = None
    progress = Progress(runs * processes)
    for run in range(1, runs + 1):
        data.append([])
        for number in range(1, processes + 1):
            announce(f"run {run} of {runs}, process {number} of {processes} [{progress.begin()}]")
            # Memory in every run: it must not differ.
            order = Order(names=names, only_times=number > 1, processes=processes, keep_rounds=True)
            measured = measure_in_process(command, order, announce)
            if names is None:  # before an hour of measuring
                check(measured)
                if add_to is not None:
                    _check_addable(add_to, measured, processes)
            names = [entry["fullname"] for entry in measured["benchmarks"]]
            if not names:
                raise CalibrationError(
                    "nothing was measured; expected one benchmark or more: see what the options "
                    "of pytest select"
                )
            if keep is not None:
                _keep(keep / f"run{run:02}-process{number}.json", measured)
            data[-1].append(measured)
    return calibration_of(data)


def _prepare(keep: Path) -> None:
    """Make the folder, before minutes are measured for it."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
        earlier = sorted(keep.glob("run*-process*.json"))
    except OSError as error:
        raise _unwritable(keep, error) from error
    if earlier:
        raise CalibrationError(
            f"{keep} holds {earlier[0].name} of an earlier calibration; expected a folder without: "
            "name another one, or move what is there"
        )


def _keep(path: Path, measured: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(measured))
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> CalibrationError:
    return CalibrationError(
        f"the folder {folder} cannot be written ({error.strerror}); expected a writable one for "
        "what --keep keeps: change its permissions, or name another"
    )


def calibration_of(data: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """One run of all processes, with the calibration that they make.

    Args:
        data: for each run its processes' JSON, the first one with memory.

    Raises:
        CalibrationError: memory, or what is measured, differed between the runs.
    """
    runs = [[parse_run(process) for process in processes] for processes in data]
    _check_same(runs)
    result: dict[str, Any] = json.loads(json.dumps(data[-1][0]))
    for entry in result["benchmarks"]:
        name = entry["fullname"]
        of = [[process.measurements[name] for process in run] for run in runs]
        figures = [
            (run_figures(measured), origin_of(run[0]))
            for measured, run in zip(of, runs, strict=True)
        ]
        own = figures_of(entry)
        own.pop("rounds", None)
        own |= {
            "processes": [p.entry() for run in of for m in run for p in m.processes],
            "calibration": {
                "processes": len(runs[0]),
                "runs": [found for found, _ in figures if found],
                "commit": runs[0][0].commit,
                "datetime": runs[0][0].datetime,
                "origins": [asdict(origin) for found, origin in figures if found],
            },
        }
        entry["stats"] = nearest_median(
            parse_benchmark(entry).median_ns,
            [
                candidate["stats"]
                for run in data
                for process in run
                for candidate in process["benchmarks"]
                if candidate["fullname"] == name
            ],
        )
    return result


def nearest_median(median_ns: float, stats: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The statistics whose median is that of all, or nearest to it."""
    return min(stats, key=lambda one: abs(one["median"] * 1e9 - median_ns))


def origin_of(run: Run) -> Origin:
    """Where and when a run was measured."""
    machine = run.machine or Machine(None)
    return Origin(run.datetime, machine.id, machine.boot, run.commit)


def joined(held: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A new calibration together with the stored one, of code that costs the same.

    Args:
        held, new: runs in pytest-benchmark's JSON.

    Raises:
        CalibrationError: a benchmark took other memory in the stored one, or other processes.
    """
    before, now = parse_run(held).measurements, parse_run(new)
    of = {entry["fullname"]: entry for entry in held["benchmarks"]}
    for entry in new["benchmarks"]:
        name = entry["fullname"]
        old = before.get(name)
        measurement = now.measurements[name]
        if old is None or old.calibration is None or old.measured != measurement.measured:
            continue
        if not _same_memory(measurement, old, now.device_key):
            raise CalibrationError(
                f"{name} takes {dict(measurement.memory)} bytes and took {dict(old.memory)} in the "
                "stored baseline; expected code that costs the same: calibrate without --add"
            )
        info = figures_of(entry)
        info["processes"] = [process.entry() for process in old.processes] + info["processes"]
        added = info["calibration"]
        _check_processes(old.calibration, added["processes"], "the stored baseline")
        info["calibration"] = {
            **added,
            "runs": [*old.calibration.runs, *added["runs"]],
            "origins": [*map(asdict, old.calibration.origins_of_runs), *added["origins"]],
        }
        level = parse_benchmark(entry).median_ns
        entry["stats"] = nearest_median(level, [of[name]["stats"], entry["stats"]])
    return new


def _check_addable(baselines: Path, measured: dict[str, Any], processes: int) -> None:
    """Refuse to measure what the present baseline would not be joined with."""
    for path in stored(baselines, parse_run(measured).device_key)[-1:]:
        for measurement in parse_run(read_json(path)).measurements.values():
            if measurement.calibration is not None:
                _check_processes(measurement.calibration, processes, str(path))


def _check_processes(held: Calibration, processes: int, source: str) -> None:
    if held.processes != processes:
        raise CalibrationError(
            f"the runs are of {processes} processes; expected {held.processes}, as those of "
            f"{source}: add --processes {held.processes}"
        )


def run_figures(processes: Sequence[Measurement]) -> dict[str, float]:
    """A run's figures: medians over its clean processes, if these are at least half of all."""
    found: dict[str, float] = {}
    for figure in FIGURES:
        values = [value for measurement in processes for value in measurement.values(figure)]
        if values and 2 * len(values) >= sum(len(m.processes) for m in processes):
            found[figure] = statistics.median(values)
    return found


def _check_same(runs: Sequence[Sequence[Run]]) -> None:
    first = runs[0][0]
    for run in runs:
        for process in run:
            if process.device_key != first.device_key:
                raise CalibrationError(
                    f"one process is {process.device_key} and another {first.device_key}; expected "
                    "the same: set threads and precision in conftest.py, or in every benchmark "
                    "module"
                )
            if process.measurements.keys() != first.measurements.keys():
                different = process.measurements.keys() ^ first.measurements.keys()
                raise CalibrationError(
                    f"only some of the runs measured {', '.join(sorted(different))}; expected the "
                    "same benchmarks in all: run it again, and see why they fail or are skipped"
                )
        for name, measurement in run[0].measurements.items():
            if not _same_memory(measurement, first.measurements[name], first.device_key):
                raise CalibrationError(
                    f"{name} took {dict(measurement.memory)} bytes in one run and "
                    f"{dict(first.measurements[name].memory)} in another; expected the same code "
                    "to take the same memory: find what differs before it is gated"
                )


def _same_memory(now: Measurement, before: Measurement, device_key: str) -> bool:
    allowed = limits_of(device_key).memory_bytes
    return now.memory.keys() == before.memory.keys() and all(
        abs(size - before.memory[kind]) <= allowed for kind, size in now.memory.items()
    )
