"""What a run recorded, read from pytest-benchmark's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class InvalidRunError(ValueError):
    """The data is not a run that pytest-benchmark wrote."""


@dataclass(frozen=True)
class Measurement:
    """One benchmark of a run.

    Args:
        name: pytest's node id.
        measured: what was measured (case, shape, options, pass, reference); empty for a
            benchmark that does not say.
        median_ns: median time of a round.
        rounds: number of rounds.
        ratio: median over rounds of the time over the interleaved reference's; None where
            there is no reference.
        ratio_uncertainty: relative half-width of the ratio's interval.
        ratio_to_mlp, ratio_to_mlp_uncertainty: the same over the MLP, where it was interleaved.
        memory: kind (`forward_peak_bytes`, ...) to bytes.
        info: everything else that the benchmark recorded.
    """

    name: str
    measured: Mapping[str, Any]
    median_ns: float
    rounds: int
    ratio: float | None = None
    ratio_uncertainty: float = 0.0
    ratio_to_mlp: float | None = None
    ratio_to_mlp_uncertainty: float = 0.0
    memory: Mapping[str, int] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """All benchmarks of a run, by name, and the machine they ran on."""

    environment: Mapping[str, Any]
    commit: str
    datetime: str
    measurements: Mapping[str, Measurement]

    @property
    def device_key(self) -> str:
        return str(self.environment.get("device_key", "unknown"))


def parse_run(data: Any) -> Run:
    """Read pytest-benchmark's JSON.

    Raises:
        InvalidRunError: a part is missing or of the wrong kind; the message names it.
    """
    try:
        measurements = [_parse_benchmark(entry) for entry in data["benchmarks"]]
        environment = data["machine_info"].get("kan_impls", {})
        commit = data["commit_info"].get("id") or "unversioned"
        return Run(
            environment, str(commit), str(data["datetime"]), {m.name: m for m in measurements}
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidRunError(f"it has no usable {error}") from error


def _parse_benchmark(entry: Mapping[str, Any]) -> Measurement:
    info = entry.get("extra_info", {})
    ratio, to_mlp = info.get("ratio"), info.get("ratio_to_mlp")
    return Measurement(
        name=str(entry["fullname"]),
        measured=info.get("measured", {}),
        median_ns=float(entry["stats"]["median"]) * 1e9,
        rounds=int(entry["stats"]["rounds"]),
        ratio=None if ratio is None else float(ratio),
        ratio_uncertainty=float(info.get("ratio_uncertainty", 0.0)),
        # Without an uncertainty it is the MLP itself, by definition 1.
        ratio_to_mlp=float(to_mlp) if "ratio_to_mlp_uncertainty" in info else None,
        ratio_to_mlp_uncertainty=float(info.get("ratio_to_mlp_uncertainty", 0.0)),
        memory={kind: int(size) for kind, size in info.get("memory", {}).items()},
        info=info,
    )
