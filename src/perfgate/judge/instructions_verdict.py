"""Whether instructions changed, by limits that follow from their own noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from perfgate.judge.noise import estimate, student_quantile
from perfgate.judge.verdict import FALSE_ALARM
from perfgate.store.exact import Entry, Stored
from perfgate.store.instructions_baseline import STORE

# No limit is below, since unrelated code moves counts, too: one more module and import in the tree
# moved a forward pass of 60 operators by 0.67%.
LEAST = 0.01


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
    if not figures:
        return {}
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

    def changed(pass_name: str, before_counts: Sequence[int], counts: Sequence[int]) -> list[str]:
        old, new = statistics.geometric_mean(before_counts), statistics.geometric_mean(counts)
        change, limit = new / old - 1, allowed[implementation, pass_name]
        said = (
            f"{subject}, {pass_name}: {old:,.0f} instructions became {new:,.0f} "
            f"({change:+.2%}, limit {limit:.2%})"
        )
        if change > limit:
            return [STORE.worse(said, "more")]
        return [STORE.better(said)] if 1 / (1 + limit) - 1 > change else []

    allowed = limits(before, min(len(counts) for counts in now.passes.values()))
    return STORE.differences(before, implementation, now, subject, changed)
