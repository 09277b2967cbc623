"""A measurement as the report document holds it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perfgate.judge.record import BESIDE, Measurement, Process

_WORK_TYPES: Mapping[str, type] = {
    "case": str,
    "implementation": str,
    "pass": str,
    "reference": str,
    "cache": str,
    "timer": str,
    "backend": str,
    "precision": str,
    "mode": str,
    "batch": int,
    "config": dict,
}

FLOAT_BYTES = 4

# What two works of a pass each do not share, though they are passes of one thing.
_OF_PASS = {"pass", "reference", "reference_flops"}


def measurement_entry(
    now: Measurement, before: Measurement | None = None, pairs: Measurement | None = None
) -> dict[str, Any]:
    """A measurement, beside that of the baseline and what pairs of processes say, if any do."""
    info = now.info
    return {
        "name": now.name,
        "measured": work_entry(now.measured),
        **_figures(now),
        "parameters": whole(info.get("parameters")),
        "trainable_parameters": whole(info.get("trainable_parameters")),
        "flops": whole(info.get("flops")),
        "floor_fraction": not_negative(info.get("floor_fraction")),
        "package_version": _text(info.get("package_version")),
        "float64_error": not_negative(info.get("float64_error")),
        "rounds": now.rounds,
        "disturbed_rounds": now.disturbed,
        "processes": [_process(process) for process in now.processes],
        "pairs": [] if pairs is None else [_pair(process) for process in pairs.processes],
        "calibration_runs": None if now.calibration is None else len(now.calibration.runs),
        "evidence": [
            plain(part) for part in _list(info.get("evidence")) if isinstance(part, Mapping)
        ],
        "baseline": None if before is None else _figures(before),
    }


def _figures(measurement: Measurement) -> dict[str, Any]:
    return {
        "median_ns": not_negative(measurement.median("median_ns")),
        "ratio": not_negative(measurement.median("ratio")),
        **_beside(measurement.beside()),
        "memory_bytes": dict(measurement.memory),
    }


def _beside(ratios: Mapping[str, float]) -> dict[str, float | None]:
    return {f"{BESIDE}{name}": not_negative(ratio) for name, ratio in ratios.items()}


def companions(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of what was shown beside any of the entries of the document."""
    keys = dict.fromkeys(key for entry in entries for key in entry if key.startswith(BESIDE))
    return [key.removeprefix(BESIDE) for key in keys]


def extremes(entry: Mapping[str, Any], figure: str) -> tuple[float, float]:
    """The least and the greatest of a figure that an entry has, over all of its processes."""
    found = [process.get(figure) for process in entry["processes"]]
    values = [value for value in [*found, entry[figure]] if value is not None]
    return min(values), max(values)


def _process(process: Process) -> dict[str, Any]:
    return {
        "median_ns": not_negative(process.median_ns),
        "ratio": not_negative(process.ratio),
        **_beside(process.beside),
        "rounds": process.rounds,
        "disturbed_rounds": process.disturbed,
    }


def _pair(process: Process) -> dict[str, Any]:
    return {
        "time_factor": not_negative(process.median_ns),
        "rounds": process.rounds,
        "disturbed_rounds": process.disturbed,
    }


def work_entry(measured: Any) -> dict[str, Any]:
    """What was measured; a benchmark of other plugins may say anything, or nothing."""
    if not isinstance(measured, Mapping):
        return {}
    work: dict[str, Any] = plain(dict(measured))
    known = {key: kind for key, kind in _WORK_TYPES.items() if key in work}
    for key, kind in known.items():
        if not isinstance(work[key], kind) or isinstance(work[key], bool):
            del work[key]
    widths = work.get("widths", [])
    if not isinstance(widths, list) or not all(type(width) is int for width in widths):
        del work["widths"]
    return work


def says_all(work: Mapping[str, Any]) -> bool:
    """Whether a work says under which heading, and in which row and column, its figures belong."""
    return {"case", "batch", "implementation", "pass"} <= work.keys()


def cost_of_step(passes: Mapping[str, Mapping[str, Any]]) -> tuple[float, int] | None:
    """Nanoseconds and bytes of a training step, from the entries of one row by their passes; None
    where they do not tell. The bytes are the parameters, and the peak of forward and backward
    above them."""
    if "training_step" in passes:
        own = passes["training_step"]
        step_ns = own["median_ns"]
    elif {"forward", "backward"} <= passes.keys():
        own = passes["backward"]
        times = [passes["forward"]["median_ns"], own["median_ns"]]
        step_ns = None if None in times else sum(times)
    else:
        return None
    peak, parameters = own["memory_bytes"].get("backward_peak_bytes"), own["parameters"]
    if not step_ns or peak is None or parameters is None:
        return None
    return step_ns, peak + FLOAT_BYTES * parameters


def conditions(work: Mapping[str, Any]) -> str:
    """How time was taken, where that is not the usual way: such figures stand by themselves."""
    timer = f", timer {work['timer']}" if "timer" in work else ""
    cache = f", {work['cache']} caches" if work.get("cache", "warm") != "warm" else ""
    return timer + cache


def heading(work: Mapping[str, Any]) -> str:
    """What figures must share to stand side by side."""
    return f"{work['case']}, batch {work['batch']:,}{conditions(work)}"


def label(work: Mapping[str, Any]) -> str:
    """The implementation, and how it is run where that is not the usual way."""
    ways = (work[name] for name in ("backend", "precision", "mode") if name in work)
    return " ".join([work["implementation"], *ways])


def row_key(work: Mapping[str, Any]) -> str:
    """What the passes of one row share: all that the work says but for the pass."""
    return repr(sorted((key, repr(part)) for key, part in work.items() if key not in _OF_PASS))


def finite(value: Any) -> float | None:
    """A number that JSON has; None for any other."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # more digits than a float has room for
        return None


def not_negative(value: Any) -> float | None:
    """A number of 0 or more; None for any other."""
    number = finite(value)
    return None if number is None or number < 0 else number


def whole(value: Any) -> int | None:
    """A count; None for any other."""
    return value if type(value) is int and value >= 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def plain(value: Any) -> Any:
    """The same in JSON's types: numbers that it has not are None, other objects are text."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return finite(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
