"""Whether instructions changed, by limits that follow from their own noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Sequence

from perfgate.judge.noise import estimate, student_quantile
from perfgate.judge.verdict import FALSE_ALARM
from perfgate.store.instructions_baseline import ACCEPT, Entry, Stored

# No limit is below, since an unrelated line of code moves counts, too.
LEAST = 0.005


def limits(before: Stored, processes: int) -> dict[tuple[str, str], float]:
    """The change of each implementation and pass that is none of chance, as a fraction.

    Unchanged code exceeds any of them in one of a hundred comparisons (`FALSE_ALARM`), by
    Student's t; none is below `LEAST`.

    Args:
        before: what is compared with, the processes of which tell the noise.
        processes: number of processes that are compared with them.
    """
    figures = {
        f"{name} {pass_name}": counts
        for name, entry in before.entries.items()
        for pass_name, counts in entry.passes.items()
    }
    noises = estimate(figures, dict.fromkeys(figures, 1))
    tail = FALSE_ALARM / (2 * len(figures))  # up and down, of each
    found = {}
    for name, entry in before.entries.items():
        for pass_name, counts in entry.passes.items():
            noise = noises[f"{name} {pass_name}"]
            error = noise.standard_error(len(counts), processes)
            # Counts that never differ have no noise, and no degrees of freedom.
            beyond = student_quantile(tail, noise.df) * error if error else 0.0
            found[name, pass_name] = max(LEAST, math.expm1(beyond))
    return found


def differences(before: Stored, implementation: str, now: Entry) -> list[str]:
    """What is not as before, a sentence each; empty if all is within its limit.

    Args:
        before: of the same environment.
        implementation: what was measured.
        now: its instructions.
    """
    subject = f"{implementation} at {now.shape}"
    old = before.entries.get(implementation)
    if old is None:
        return [
            f"{subject} is not stored; expected instructions to compare with: add them with "
            f"{ACCEPT}"
        ]
    if old.shape != now.shape:
        return [
            f"{subject} is stored at {old.shape}; expected the same sizes: undo the change, or "
            f"accept it with {ACCEPT}"
        ]
    if old.passes.keys() != now.passes.keys():
        return [
            f"{subject} is stored with other passes than the measured {', '.join(now.passes)}; "
            f"expected the same ones: store them with {ACCEPT}"
        ]
    return list(_changed(subject, implementation, before, now))


def _changed(subject: str, implementation: str, before: Stored, now: Entry) -> Iterator[str]:
    fewest = min(len(counts) for counts in now.passes.values())
    allowed = limits(before, fewest)
    for pass_name, counts in now.passes.items():
        old = _typical(before.entries[implementation].passes[pass_name])
        new = _typical(counts)
        change, limit = new / old - 1, allowed[implementation, pass_name]
        said = (
            f"{subject}, {pass_name}: {old:,.0f} instructions became {new:,.0f} "
            f"({change:+.2%}, limit {limit:.2%})"
        )
        if change > limit:
            yield f"{said}; expected no more: take it back, or accept it with {ACCEPT}"
        elif 1 / (1 + limit) - 1 > change:
            yield f"{said}, improved: refresh, so that the baseline stays honest, with {ACCEPT}"


def _typical(counts: Sequence[int]) -> float:
    return statistics.geometric_mean(counts)


def unknown(before: Stored, known: Collection[str]) -> list[str]:
    """Of the implementations that are not counted any more, a sentence each."""
    return [
        f"{name} is stored, but no longer counted; expected only implementations that exist: drop "
        f"it with {ACCEPT}"
        for name in before.entries
        if name not in known
    ]
