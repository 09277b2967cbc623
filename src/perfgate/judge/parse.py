"""Reading what a run recorded from pytest-benchmark's JSON, of this and of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfgate.fields import FieldError, count, mapping, member, positive, sequence, text
from perfgate.judge.device_key import recorded_environment
from perfgate.judge.place import EARLIER, OURS, key_in, ours
from perfgate.judge.provenance import parse_machine, parse_machine_entry, parse_origin
from perfgate.judge.record import BESIDE, Calibration, Code, Measurement, Process, Run

# Ours in `extra_info` before that key held them.
OLD_KEYS = (
    "measured",
    "processes",
    "confirming",
    "memory",
    "calibration",
    "evidence",
    "rounds",
    "parameters",
    "trainable_parameters",
    "flops",
    "floor_product_ns",
    "floor_copy_ns",
    "floor_fraction",
)

# The least that pytest-benchmark's clock tells apart.
CLOCK_SECONDS = 1e-9


class InvalidRunError(ValueError):
    """The data is not a run that pytest-benchmark wrote."""


def parse_run(data: Any) -> Run:
    """Read pytest-benchmark's JSON.

    All that later code relies on is checked here, once.

    Raises:
        InvalidRunError: a part is missing or of the wrong kind; the message names it.
    """
    try:
        whole = mapping(data, "the file")
        entries = sequence(member(whole, "benchmarks", "the file"), "benchmarks")
        measurements = [
            parse_benchmark(entry, f"benchmarks[{number}]") for number, entry in enumerate(entries)
        ]
        machine = mapping(member(whole, "machine_info", "the file"), "machine_info")
        named = ours(machine, "machine_info")
        if "device_key" in named:
            text(named["device_key"], f"machine_info.{key_in(machine)}.device_key")
        environment = recorded_environment(machine)
        code = _parse_code(member(whole, "commit_info", "the file"), "commit_info")
        anchor = ours(whole, "the file").get("anchor")
        return Run(
            environment,
            code.commit,
            text(member(whole, "datetime", "the file"), "datetime"),
            {m.name: m for m in measurements},
            None if anchor is None else text(anchor, f"{key_in(whole)}.anchor"),
            code.dirty,
            parse_machine(machine),
        )
    except FieldError as error:
        raise InvalidRunError(str(error)) from error
    except (TypeError, ValueError, AttributeError) as error:  # facts of a processor
        raise InvalidRunError(f"machine_info: {error}") from error


def parse_benchmark(entry: Any, where: str = "the benchmark") -> Measurement:
    """An entry of `benchmarks`.

    Raises:
        FieldError: a part is missing or of the wrong kind.
    """
    whole = mapping(entry, where)
    name = text(member(whole, "fullname", where), f"{where}.fullname")
    stats = mapping(member(whole, "stats", where), f"{where}.stats")
    # A benchmark of somebody else's says nothing of processes: it is what one of them saw.
    alone = process_alone(
        member(stats, "median", f"{where}.stats"), member(stats, "rounds", f"{where}.stats"), where
    )
    extra = mapping(whole.get("extra_info", {}), f"{where}.extra_info")
    info, where = _ours(extra, f"{where}.extra_info")
    measured = info.get("measured", {})
    calibration, code, machine = info.get("calibration"), info.get("code"), info.get("machine")
    group = whole.get("group")
    # Earlier versions kept those apart that were started because the first ones looked changed.
    kept = [*_processes(info, "processes", where), *_processes(info, "confirming", where)]
    return Measurement(
        name=name,
        # Before there was a place for ours, a benchmark's own might stand here.
        measured=measured if isinstance(measured, Mapping) else {},
        processes=kept or [alone],
        memory={
            kind: count(size, f"{where}.memory.{kind}")
            for kind, size in mapping(info.get("memory", {}), f"{where}.memory").items()
        },
        launches=None
        if info.get("launches") is None
        else count(info["launches"], f"{where}.launches"),
        calibration=None
        if calibration is None
        else _parse_calibration(calibration, f"{where}.calibration"),
        code=None if code is None else _parse_code(code, f"{where}.code"),
        machine=None if machine is None else parse_machine_entry(machine, f"{where}.machine"),
        group=None if group is None else str(group),
        info={**_own_words(extra), **info},
    )


def figures_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The place of our own figures in an entry of `benchmarks`, to be changed.

    `extra_info` belongs to those who write benchmarks; ours is one key in it. Files
    that are older than this have ours beside theirs, or by an earlier name: they are moved.
    """
    extra = entry.setdefault("extra_info", {})
    if isinstance(extra.get(EARLIER), dict) and OURS not in extra:
        extra[OURS] = extra.pop(EARLIER)
    if not isinstance(extra.get(OURS), dict):
        old, _ = _ours(extra, "extra_info")
        extra[OURS] = {key: extra.pop(key) for key in OLD_KEYS if key in old}
    found: dict[str, Any] = extra[OURS]
    return found


def _ours(extra: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """Our figures in an `extra_info`, and where they stand."""
    if (key := key_in(extra)) in extra:
        return ours(extra, where), f"{where}.{key}"
    measured, processes = extra.get("measured"), extra.get("processes")
    is_old = isinstance(measured, Mapping) and {"implementation", "pass"} <= measured.keys()
    if isinstance(processes, (list, tuple)):
        is_old |= any(isinstance(part, Mapping) and "median_ns" in part for part in processes)
    return (extra if is_old else {}), where


def _own_words(extra: Mapping[str, Any]) -> dict[str, str | float]:
    """What a benchmark of ours says beside its figures."""
    kinds = {"package_version": str, "float64_error": float}
    return {key: extra[key] for key, kind in kinds.items() if isinstance(extra.get(key), kind)}


def _processes(info: Mapping[str, Any], key: str, where: str) -> list[Process]:
    parts = sequence(info.get(key, ()), f"{where}.{key}")
    return [parse_process(part, f"{where}.{key}[{n}]") for n, part in enumerate(parts)]


def process_alone(median: Any, rounds: Any, where: str = "the benchmark") -> Process:
    """What pytest-benchmark's own statistics say of the process that it ran in.

    A median of 0 is a time below what the clock can tell: it is taken for the least that it can.

    Args:
        median: in seconds.
        rounds: how many.
        where: what an error names.
    """
    seconds = median if median != 0 else CLOCK_SECONDS
    number = positive(seconds, f"{where}.stats.median") * 1e9
    return Process(median_ns=number, rounds=count(rounds, f"{where}.stats.rounds"))


def parse_process(part: Any, where: str = "the process") -> Process:
    """An entry of `processes`.

    Raises:
        FieldError: a part is missing or of the wrong kind.
    """
    whole = mapping(part, where)
    ratio = whole.get("ratio")
    return Process(
        median_ns=positive(member(whole, "median_ns", where), f"{where}.median_ns"),
        ratio=None if ratio is None else positive(ratio, f"{where}.ratio"),
        beside={
            key.removeprefix(BESIDE): positive(value, f"{where}.{key}")
            for key, value in whole.items()
            if key.startswith(BESIDE) and value is not None
        },
        rounds=count(member(whole, "rounds", where), f"{where}.rounds"),
        disturbed=count(whole.get("disturbed", 0), f"{where}.disturbed"),
    )


def _parse_code(part: Any, where: str) -> Code:
    """As pytest-benchmark describes a commit."""
    whole = mapping(part, where)
    commit = whole.get("id")
    return Code(
        "unversioned" if commit is None else text(commit, f"{where}.id"), whole.get("dirty") is True
    )


def _parse_calibration(part: Any, where: str) -> Calibration:
    whole = mapping(part, where)
    processes = count(member(whole, "processes", where), f"{where}.processes")
    if processes == 0:
        raise FieldError(f"{where}.processes: 0 where 1 or more belongs")
    runs = sequence(member(whole, "runs", where), f"{where}.runs")
    origins = sequence(whole.get("origins", []), f"{where}.origins")
    if origins and len(origins) != len(runs):
        raise FieldError(f"{where}.origins: {len(origins)} of {len(runs)} runs")
    return Calibration(
        processes=processes,
        runs=[
            {
                figure: positive(value, f"{where}.runs[{number}].{figure}")
                for figure, value in mapping(run, f"{where}.runs[{number}]").items()
            }
            for number, run in enumerate(runs)
        ],
        commit=text(whole.get("commit", "unknown"), f"{where}.commit"),
        datetime=text(whole.get("datetime", ""), f"{where}.datetime"),
        origins=[
            parse_origin(origin, f"{where}.origins[{number}]")
            for number, origin in enumerate(origins)
        ],
    )
