"""Steps one after the other, each within its own limit and all within the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PASSED, FAILED, TIMED_OUT, NOT_RUN, NO_TIME = (
    "passed",
    "failed",
    "timed out",
    "not run",
    "no time left",
)
BAD = (FAILED, TIMED_OUT, NO_TIME)

# A step that would get less is not started.
SHORTEST_S = 2.0


class NotRunError(Exception):
    """The step cannot run here, which is no failure; the message is the reason."""


class FailedError(Exception):
    """The step failed; `data` is what it found until then."""

    def __init__(self, reason: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.data = data or {}


class TimedOutError(FailedError):
    """The step was ended at its limit."""


@dataclass(frozen=True)
class Step:
    """`run(limit_s)` returns what it found; it ends itself at its limit with TimedOutError."""

    name: str
    limit_s: float
    run: Callable[[float], dict[str, Any]]


@dataclass
class Outcome:
    """What became of a step."""

    name: str
    status: str
    seconds: float
    limit_s: float
    reason: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def run_steps(
    steps: Sequence[Step],
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run every step, whatever becomes of those before it."""
    end, outcomes = clock() + budget_s, []
    for number, step in enumerate(steps, start=1):
        limit = min(step.limit_s, end - clock())
        say(f"[{number}/{len(steps)}] {step.name}, at most {max(limit, 0):.0f} s")
        outcome = _run(step, limit, clock)
        reason = f": {outcome.reason}" if outcome.reason else ""
        say(f"    {outcome.status} after {outcome.seconds:.1f} s{reason}")
        outcomes.append(outcome)
    return outcomes


def _run(step: Step, limit: float, clock: Callable[[], float]) -> Outcome:
    start = clock()

    def outcome(status: str, reason: str = "", data: dict[str, Any] | None = None) -> Outcome:
        return Outcome(step.name, status, clock() - start, limit, reason, data or {})

    if limit < min(SHORTEST_S, step.limit_s):
        return outcome(NO_TIME, "the steps before took the whole budget")
    try:
        return outcome(PASSED, data=step.run(limit))
    except NotRunError as error:
        return outcome(NOT_RUN, str(error))
    except TimedOutError as error:
        return outcome(TIMED_OUT, str(error), error.data)
    except FailedError as error:
        return outcome(FAILED, str(error), error.data)
    except Exception as error:  # a fault of the step itself must not end the others
        return outcome(FAILED, f"{type(error).__name__}: {error}")


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """1 if anything failed, timed out or found no time, else 0."""
    return int(any(outcome.status in BAD for outcome in outcomes))


def as_json(outcomes: Sequence[Outcome], device: str, seconds: float) -> dict[str, Any]:
    """The whole check as one object."""
    return {
        "format": 1,
        "device": device,
        "seconds": seconds,
        "exit_status": exit_status(outcomes),
        "steps": [asdict(outcome) for outcome in outcomes],
    }
