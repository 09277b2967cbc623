"""Exit statuses of a gate: each says by itself why it is not green.

pytest's own are 0 to 5; one of its own that is not 0 stays, since a benchmark that fails
is no measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

from perfgate.judge.verdict import Status


class GateExit(IntEnum):
    """What a gate says to its caller."""

    PASSED = 0
    REGRESSED = 10  # larger, or slower than the earlier code, measured in turns
    MISSING = 11  # in the baseline and not measured
    NOTHING_MEASURED = 12  # disabled, xdist, an empty selection, all skipped
    INCOMPARABLE = 13  # another device, shape or option than the baseline's
    CORRUPT_BASELINE = 14  # damaged, unreadable or unknown
    NO_BASELINE = 15  # with --require-baseline
    IMPROVED = 16  # with --fail-on-improved
    INCONCLUSIVE = 17  # with --fail-on-inconclusive
    STOPPED = 18  # a measuring process hung or was killed
    UNJUDGED = 19  # no time could be judged; not with --allow-unjudged


# The worst first: the first that occurs is the exit status.
_SEVERITY: Mapping[Status, GateExit] = {
    "regressed": GateExit.REGRESSED,
    "missing": GateExit.MISSING,
    "incomparable": GateExit.INCOMPARABLE,
    "unjudged": GateExit.UNJUDGED,
    "no_baseline": GateExit.NO_BASELINE,
    "inconclusive": GateExit.INCONCLUSIVE,
    "improved": GateExit.IMPROVED,
}

# What must not pass a gate: a loss, and silence.
FAILING: frozenset[Status] = frozenset({"regressed", "missing", "incomparable", "unjudged"})

# What else must not pass, by the option that says so.
_ASKED: Mapping[str, Status] = {
    "require_baseline": "no_baseline",
    "fail_on_improved": "improved",
    "fail_on_inconclusive": "inconclusive",
}


def failing_by(options: object) -> frozenset[Status]:
    """What must not pass, by the options of pytest or of `kan-bench`, which lacks some of them."""
    asked = {status for name, status in _ASKED.items() if getattr(options, name, False)}
    allowed = {"unjudged"} if getattr(options, "allow_unjudged", False) else set()
    return (FAILING | asked) - allowed


def gate_exit(
    statuses: Iterable[Status], failing: Iterable[Status] = FAILING, stopped: bool = False
) -> GateExit:
    """The exit status for the verdicts of a run.

    Args:
        statuses: those of all benchmarks.
        failing: the ones that are not to pass.
        stopped: whether a measuring process was killed, or hung, which only a loss outweighs.
    """
    found, stops = set(statuses), set(failing)
    if stopped and "regressed" not in found & stops:
        return GateExit.STOPPED
    if not found:
        return GateExit.NOTHING_MEASURED
    for status, code in _SEVERITY.items():
        if status in found & stops:
            return code
    return GateExit.PASSED
