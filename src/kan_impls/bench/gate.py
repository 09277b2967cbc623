"""From a first run to verdicts: what looks changed is measured again before it is called so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kan_impls.bench.record import Process, Run
from kan_impls.bench.verdict import Verdict

# How many processes a run has where it is judged, and how many more runs a benchmark may cost.
PROCESSES = 3
FURTHER_RUNS = 2


def decide(
    run: Run,
    judge: Callable[[Run], Sequence[Verdict]],
    measure: Callable[[Sequence[str]], Mapping[str, Sequence[Process]]],
    most_runs: int = FURTHER_RUNS,
    announce: Callable[[str], None] = lambda text: None,
) -> tuple[Run, Sequence[Verdict]]:
    """Judge a run, measuring again what is not clear.

    Args:
        run: the first run.
        judge: verdicts of a run.
        measure: measures benchmarks once more, in fresh processes.
        most_runs: how often at most.
        announce: hears what happens.

    Returns:
        the run with what was added, and its verdicts.
    """
    verdicts = judge(run)
    for left in range(most_runs, 0, -1):
        # One that would need more runs than are left stays unclear with them, too.
        names = [v.name for v in verdicts if v.further_runs and v.further_runs <= left]
        if not names:
            break
        announce(f"measuring again in fresh processes, because it is not clear: {', '.join(names)}")
        run = run.confirmed_by(measure(names))
        verdicts = judge(run)
    return run, verdicts
