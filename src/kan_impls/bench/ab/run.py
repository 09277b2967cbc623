"""`kan-bench ab`: verdicts on a head revision by its base, both measured now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from kan_impls.bench import gate
from kan_impls.bench.ab.duel import Pair, Plan, duel
from kan_impls.bench.ab.trees import Tree
from kan_impls.bench.limits import LimitTable, limits_of, read_rules
from kan_impls.bench.processes import TIMEOUT_SECONDS, Command, WorkerError
from kan_impls.bench.record import Calibration, Figure, Measurement, Process, Run
from kan_impls.bench.verdict import FALSE_ALARM, Judge, Verdict

# Pairs of processes to begin with. In busy minutes pairs of identical code differ by 3%; six of
# them, and six fresh ones, then find 5% in 99 of 100 cases (docs/trust.md).
PAIRS = 6

# Both revisions see the same minutes of the same machine, so that half the change that the
# stored baseline must show is seen, and time itself can be compared closely.
VISIBLE = 0.05
ABSOLUTE = 0.10


@dataclass(frozen=True)
class Outcome:
    """What a comparison of two revisions found.

    Args:
        run: the head's; its figures are those of the head over the base.
        head: the head's own figures, in its first process.
        verdicts: of all benchmarks that both have.
    """

    run: Run
    head: Run
    verdicts: Sequence[Verdict]


@dataclass
class Contestants:
    """Two revisions, and how their benchmarks are started.

    Args:
        base, head: their files. The harness and the benchmarks are the head's on both sides.
        arguments: pytest's.
        plan: how long a pair of processes measures.
        announce: hears what happens.
        pairs: how many pairs were measured.
        timeout: seconds without progress after which a process is ended.
    """

    base: Tree
    head: Tree
    arguments: Sequence[str]
    plan: Plan
    announce: Callable[[str], None]
    pairs: int = 0
    timeout: float = TIMEOUT_SECONDS

    def measure(self, count: int, names: Sequence[str] | None = None) -> list[Pair]:
        """That many pairs of fresh processes; memory in the very first."""
        found = []
        for number in range(1, count + 1):
            self.announce(f"pair {number} of {count}")
            found.append(
                duel(
                    self._command(self.base), self._command(self.head), names, self.plan,
                    with_memory=self.pairs == 0, announce=self.announce,
                    base_first=self.pairs % 2 == 0,
                )
            )  # fmt: skip
            self.pairs += 1
        return found

    def _command(self, tree: Tree) -> Command:
        harness = self.head.source / "kan_impls" / "bench"
        if not harness.is_dir():  # a project of its own, with kan_impls installed beside it
            harness = Path(__file__).resolve().parents[1]
        bootstrap = harness / "ab" / "bootstrap.py"
        python = (sys.executable, str(bootstrap), str(tree.source), str(harness))
        return Command(self.arguments, self.head.folder, python, timeout=self.timeout)


def compare_revisions(
    contestants: Contestants,
    pairs: int = PAIRS,
    most_runs: int = gate.FURTHER_RUNS,
    false_alarm: float = FALSE_ALARM,
    names: Sequence[str] | None = None,
) -> Outcome:
    """Measure both revisions, again what is not clear, and judge.

    Args:
        contestants: the two revisions.
        pairs: pairs of processes of a run.
        most_runs: how many more runs a benchmark may cost.
        false_alarm: the probability that identical code has any false alarm.
        names: the benchmarks; None for all that the options of pytest select.

    Raises:
        WorkerError: a process failed.
        LimitsError: a limit cannot be used.
    """
    rules = read_rules(contestants.head.folder / "pyproject.toml")
    measured = contestants.measure(pairs, names)
    run = _run_of(measured)
    default = replace(limits_of(run.device_key), visible=VISIBLE, absolute=ABSOLUTE)
    limits = LimitTable(default, rules, run.device_key)

    def again(names: Sequence[str]) -> Mapping[str, Sequence[Process]]:
        more = contestants.measure(pairs, names)
        for pair in more:
            if lost := set(names) - pair.compared.keys():
                raise WorkerError(
                    f"fresh processes did not measure {', '.join(sorted(lost))}, which the first "
                    "ones did; expected the same benchmarks: run it once more"
                )
        return {name: [pair.compared[name] for pair in more] for name in names}

    run, verdicts = gate.decide(
        run,
        partial(_judge, base=measured[0].base, limits=limits, false_alarm=false_alarm, pairs=pairs),
        again,
        most_runs,
        contestants.announce,
    )
    return Outcome(run, measured[0].head, [*verdicts, *_on_one_side(measured[0])])


def _on_one_side(pair: Pair) -> list[Verdict]:
    gone = [Verdict(name, "missing", "the base has it, the head does not") for name in pair.gone]
    return [
        *gone,
        *(Verdict(name, "no_baseline", "the base does not have it") for name in pair.new),
    ]


def _run_of(pairs: Sequence[Pair]) -> Run:
    """The head's run, whose figures are those of the head over the base."""
    head = pairs[0].head
    measurements = {
        name: replace(head.measurements[name], processes=[pair.compared[name] for pair in pairs])
        for name in pairs[0].compared
        if all(name in pair.compared for pair in pairs)
    }
    return replace(head, measurements=measurements)


def _judge(
    run: Run, base: Run, limits: LimitTable, false_alarm: float, pairs: int
) -> list[Verdict]:
    measurements = {
        name: _baseline_of(measurement, base.measurements[name])
        for name, measurement in run.measurements.items()
    }
    judge = Judge(replace(base, measurements=measurements), None, limits, false_alarm, pairs=pairs)
    return judge.judge_run(run)


def _baseline_of(measurement: Measurement, base: Measurement) -> Measurement:
    """What the head over the base would be without a change: 1, with the noise of the pairs.

    The MLP is no companion here: it may be what the head changed.
    """
    has_ratio = measurement.has("ratio")
    figures: list[Figure] = ["median_ns", "ratio"] if has_ratio else ["median_ns"]
    compared = [*measurement.processes, *measurement.confirming]
    runs: list[dict[str, float]] = [
        {str(figure): cast(float, process.figure(figure)) for figure in figures}
        for process in compared
        if process.is_clean
    ]
    return replace(
        base,
        processes=[Process(median_ns=1.0, ratio=1.0 if has_ratio else None)],
        confirming=(),
        calibration=Calibration(processes=1, runs=runs),
    )
