"""The judgement: two measurements and the limits in, a named verdict out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kan_impls.bench.record import Measurement, Run

Status = Literal[
    "improved", "unchanged", "regressed", "inconclusive", "no_baseline", "missing", "incomparable"
]

# What must not pass a gate: a loss, and silence.
FAILING: frozenset[Status] = frozenset({"regressed", "missing", "incomparable"})


# The quartiles of three rounds of seconds each have called the same code twice as slow.
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Limits:
    """How far a figure may move before it is called changed.

    Args:
        ratio: relative change of the time over the interleaved reference. Between runs of
            identical code on a shared 2-core machine the steadier moved by up to 7.8%; 10%
            leaves room for that and catches every 20%.
        absolute: relative change of the time itself, which also catches a slowdown that
            hits the reference too. A busy neighbour alone has been seen to make it 2.3 times.
        memory_bytes: growth of a peak or of the saved bytes. On a CPU the figures repeat to
            the byte, so none is allowed.
    """

    ratio: float = 0.10
    absolute: float = 3.0
    memory_bytes: int = 0


CPU_LIMITS = Limits()
# The vendor's libraries choose workspaces of up to some hundred KiB by heuristics.
CUDA_LIMITS = Limits(memory_bytes=2**20)


@dataclass(frozen=True)
class Verdict:
    """A named judgement on one benchmark, with its cause in one line."""

    name: str
    status: Status
    cause: str


@dataclass(frozen=True)
class Finding:
    """What one figure says."""

    status: Literal["improved", "unchanged", "regressed", "inconclusive"]
    cause: str


def judge(
    name: str,
    baseline: Measurement | None,
    current: Measurement | None,
    limits: Limits = CPU_LIMITS,
    absent_because: str = "it did not run",
) -> Verdict:
    """Judge a benchmark against its baseline.

    Args:
        name: pytest's node id.
        baseline: the accepted measurement, if there is one.
        current: this run's measurement, if there is one.
        limits: how far each figure may move.
        absent_because: why there is no current measurement.
    """
    if current is None:
        return Verdict(name, "missing", f"in the baseline, but {absent_because}")
    if baseline is None:
        return Verdict(name, "no_baseline", "store one with: kan-bench accept")
    if baseline.measured != current.measured:
        return Verdict(name, "incomparable", _difference(baseline.measured, current.measured))
    if (baseline.ratio is None) != (current.ratio is None):
        return Verdict(name, "incomparable", "only one of the two has an interleaved reference")

    if lost := baseline.memory.keys() - current.memory.keys():
        return Verdict(name, "incomparable", f"{', '.join(sorted(lost))} was not measured")

    findings = [_judge_time(baseline, current, limits), *_judge_memory(baseline, current, limits)]
    for status in ("regressed", "inconclusive", "improved"):
        causes = [finding.cause for finding in findings if finding.status == status]
        if causes:
            return Verdict(name, status, "; ".join(causes))
    return Verdict(name, "unchanged", findings[0].cause)


def judge_run(
    baseline: Run | None,
    current: Run,
    limits: Limits,
    absent: Mapping[str, str] | None = None,
    not_selected: Iterable[str] = (),
) -> list[Verdict]:
    """Judge every benchmark of the run or of its baseline.

    Args:
        baseline: the accepted run for this device, if there is one.
        current: this run.
        limits: how far each figure may move.
        absent: name to reason, of benchmarks that were collected and did not measure.
        not_selected: names that the user left out of this run on purpose; these are not
            missing.
    """
    accepted = baseline.measurements if baseline else {}
    names = {**accepted, **current.measurements}
    left_out = set(not_selected)
    return [
        judge(
            name,
            accepted.get(name),
            current.measurements.get(name),
            limits,
            (absent or {}).get(name, "this run does not have it"),
        )
        for name in names
        if name in current.measurements or name not in left_out
    ]


def _judge_time(baseline: Measurement, current: Measurement, limits: Limits) -> Finding:
    absolute = current.median_ns / baseline.median_ns - 1
    if absolute > limits.absolute:
        return Finding("regressed", f"time {absolute:+.0%} (limit {limits.absolute:+.0%})")
    if baseline.ratio is None or current.ratio is None:
        if absolute < -limits.absolute / (1 + limits.absolute):
            return Finding("improved", f"time {absolute:+.0%}")
        return Finding("unchanged", f"time {absolute:+.0%}, without a reference")

    changes = [
        (
            "reference",
            *_change(
                baseline.ratio, baseline.ratio_uncertainty, current.ratio, current.ratio_uncertainty
            ),
        ),
    ]
    if baseline.ratio_to_mlp is not None and current.ratio_to_mlp is not None:
        changes.append(
            (
                "MLP",
                *_change(
                    baseline.ratio_to_mlp,
                    baseline.ratio_to_mlp_uncertainty,
                    current.ratio_to_mlp,
                    current.ratio_to_mlp_uncertainty,
                ),
            )
        )
    # A busy machine slows works of different composition differently: the companion whose
    # ratio was steadier is the one of the same kind.
    companion, change, uncertainty = min(changes, key=lambda entry: entry[2])
    text = f"time over {companion} {change:+.1%} ± {uncertainty:.1%}"
    if abs(change) <= limits.ratio:
        if uncertainty > limits.ratio:
            return Finding("inconclusive", f"{text}: too noisy for the limit of {limits.ratio:.0%}")
        return Finding("unchanged", text)
    if min(baseline.rounds, current.rounds) < MIN_ROUNDS:
        return Finding("inconclusive", f"{text}: too few rounds to tell, below {MIN_ROUNDS}")
    if abs(change) - uncertainty <= limits.ratio:
        return Finding("inconclusive", f"{text}: not clear of the limit of {limits.ratio:.0%}")
    return Finding("regressed" if change > 0 else "improved", f"{text} (limit {limits.ratio:.0%})")


def _change(before: float, before_by: float, now: float, now_by: float) -> tuple[float, float]:
    """The relative change of a ratio, and the uncertainty of both together."""
    return now / before - 1, math.hypot(before_by, now_by)


def _judge_memory(baseline: Measurement, current: Measurement, limits: Limits) -> list[Finding]:
    findings = []
    for kind, before in baseline.memory.items():
        growth = current.memory[kind] - before
        text = f"{kind} {growth:+,} B ({before:,} to {current.memory[kind]:,})"
        if growth > limits.memory_bytes:
            findings.append(Finding("regressed", text))
        elif growth < -limits.memory_bytes:
            findings.append(Finding("improved", text))
    return findings


def _difference(baseline: Mapping[str, object], current: Mapping[str, object]) -> str:
    parts = [
        f"{key} was {baseline.get(key)!r} and is {current.get(key)!r}"
        for key in {**baseline, **current}
        if baseline.get(key) != current.get(key)
    ]
    return "not the same work: " + ", ".join(parts)
