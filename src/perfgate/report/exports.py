"""The figures for services that keep histories, memory and ratios included.

- `customSmallerIsBetter` of the GitHub action github-action-benchmark: one series for each
  figure.
- Bencher Metric Format, for `bencher run --adapter json`: measures by benchmark; its built-in
  measure `latency` is in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfgate.judge.record import BESIDE
from perfgate.report.measured import companions, extremes
from perfgate.report.words import kind_words

# Lengths that Bencher takes.
_BENCHER_NAME = 1024
_BENCHER_MEASURE = 64


def github_action_benchmark(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries of time, ratios and memory; a range is half the spread over processes."""
    statuses = {verdict["name"]: verdict["status"] for verdict in document["verdicts"]}
    entries = []
    for measurement in document["measurements"]:
        name = measurement["name"]
        extra = _extra(document, measurement, statuses.get(name))
        entries += [
            {"name": f"{name} · {what}", **entry, "extra": extra}
            for what, entry in _series(measurement)
        ]
    return entries


def _figures(measurement: Mapping[str, Any]) -> Iterator[tuple[str, float, float, float]]:
    """Each figure of time: what it is, its value, the least and the greatest over processes."""
    ratios = {f"{BESIDE}{name}": f"time over {name}" for name in companions([measurement])}
    for figure, what in {"median_ns": "time", "ratio": "time over reference", **ratios}.items():
        if measurement[figure] is not None:
            yield what, measurement[figure], *extremes(measurement, figure)


def _series(measurement: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for what, value, lowest, highest in _figures(measurement):
        unit, scale = ("ms", 1e-6) if what == "time" else ("ratio", 1.0)
        entry = {"unit": unit, "value": value * scale}
        if highest > lowest:
            entry["range"] = f"± {(highest - lowest) / 2 * scale:.6g}"
        yield what, entry
    for kind, size in measurement["memory_bytes"].items():
        yield kind_words(kind), {"unit": "bytes", "value": size}


def _extra(document: Mapping[str, Any], measurement: Mapping[str, Any], status: str | None) -> str:
    lines = [
        f"device: {document['environment'].get('device_key', 'unknown')}",
        f"commit: {document['commit'][:10]}",
        f"processes: {len(measurement['processes'])}",
        f"rounds: {measurement['rounds']}, {measurement['disturbed_rounds']} disturbed",
    ]
    return "\n".join([*lines, *([f"verdict: {status}"] if status else [])])


def bencher(document: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Measures by benchmark; the lower and upper values are the extremes over processes."""
    return {m["name"][:_BENCHER_NAME]: dict(_measures(m)) for m in document["measurements"]}


def _measures(measurement: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    for what, *figures in _figures(measurement):
        yield "latency" if what == "time" else what.replace(" ", "-"), _metric(*figures)
    for kind, size in measurement["memory_bytes"].items():
        # The slug that Bencher would make of it.
        name = kind.lower().replace("_", "-")[:_BENCHER_MEASURE]
        yield name, _metric(size, size, size)


def _metric(value: float, lowest: float, highest: float) -> dict[str, float]:
    return {"value": value, "lower_value": lowest, "upper_value": highest}
