"""A head revision by its base, both measured now, in turns."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import perfgate
from perfgate.ab.duel import ENVIRONMENT, Pair, Plan, duel
from perfgate.ab.trees import Tree
from perfgate.judge.limits import LimitTable, limits_of, read_rules
from perfgate.judge.record import Process, Run
from perfgate.judge.sequential import LEAST_PAIRS, MOST_PAIRS, Decision, Goal, decide
from perfgate.judge.verdict import (
    FALSE_ALARM,
    Against,
    CountChange,
    MemoryChange,
    TimeChange,
    Verdict,
    count_changes,
    memory_changes,
    verdict_of,
)
from perfgate.run.processes import TIMEOUT_SECONDS, Command, WorkerError

# Both revisions see the same minutes of the same machine, so that half the change that a run
# against the stored baseline must show is seen.
VISIBLE = 0.05


@dataclass
class Contestants:
    """Two revisions, and how their benchmarks are started.

    Args:
        base, head: their files. The harness and the benchmarks are the head's on both sides.
        arguments: pytest's.
        announce: hears what happens.
        folder: where pytest is started; the head's if None.
        plan: how long a benchmark takes; by their number if None.
        pairs: how many pairs were measured.
        timeout: seconds without progress after which a process is ended.
    """

    base: Tree
    head: Tree
    arguments: Sequence[str]
    announce: Callable[[str], None]
    folder: Path | None = None
    plan: Plan | None = None
    pairs: int = 0
    timeout: float = TIMEOUT_SECONDS

    def measure(self, names: Sequence[str] | None = None, with_memory: bool = False) -> Pair:
        """A pair of fresh processes; the side that begins changes from pair to pair."""
        plan = self.plan or (Plan() if names is None else Plan.for_benchmarks(len(names)))
        self.pairs += 1
        return duel(
            self._command(self.base),
            self._command(self.head),
            names,
            plan,
            with_memory=with_memory,
            announce=self.announce,
            base_first=self.pairs % 2 == 1,
        )

    def _command(self, tree: Tree) -> Command:
        harness = self.head.source
        if not (harness / "perfgate").is_dir():  # a project of its own, with perfgate installed
            harness = Path(perfgate.__file__).resolve().parents[1]
        bootstrap = harness / "perfgate" / "ab" / "bootstrap.py"
        tops = (tree.top, self.head.top, self.head.checkout)
        folders = map(str, (bootstrap, tree.source, harness, *tops))
        python = (sys.executable, *folders)
        return Command(
            self.arguments, self.folder or self.head.folder, python, ENVIRONMENT, self.timeout
        )


@dataclass
class Comparison:
    """What the pairs of processes of two revisions say, so far.

    Args:
        first: the first pair, which measured memory if any did.
        compared: name to the head's time over the base's, of each pair.
        decisions: name to what these say together.
        lost: names that a later pair could not measure on both sides.
        error: why a pair after the first could not be measured, if so.
    """

    first: Pair
    compared: dict[str, list[Process]] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    error: WorkerError | None = None

    def obstacle(self, name: str) -> str | None:
        """Why its pairs ended before they decided, if so."""
        if name in self.decisions and not self.decisions[name].is_open:
            return None
        if name in self.lost:
            return "a later pair of processes could not measure it on both sides"
        if self.error is not None:
            return f"the pairs of processes broke off ({self.error.headline})"
        return None

    def add(self, pair: Pair, asked: Collection[str] = ()) -> None:
        """Take what a pair compared, and note what it was `asked` for and did not compare."""
        self.lost |= {*asked} - pair.compared.keys()
        for name, process in pair.compared.items():
            self.compared.setdefault(name, []).append(process)

    def decide(self, goals: Mapping[str, Goal], false_alarm: float, most_pairs: int) -> list[str]:
        """Judge what is open by all pairs; the names that still are."""
        factors = {name: _factors(processes) for name, processes in self.compared.items()}
        found = decide(factors, goals, false_alarm, most_pairs)
        # What was decided once stays so: each look has its share of the errors.
        kept = {name: d for name, d in self.decisions.items() if not d.is_open}
        self.decisions = {**found, **kept}
        # Of a benchmark with one pair nothing is decided.
        undecided = [n for n in factors if n not in self.decisions or self.decisions[n].is_open]
        return [name for name in undecided if name not in self.lost]

    def exact_changes(
        self, name: str, allowed_bytes: int
    ) -> tuple[list[MemoryChange], list[CountChange]]:
        """Memory and counts of the first pair, where it measured them."""
        before, now = self.first.base.measurements[name], self.first.head.measurements[name]
        return memory_changes(before, now, allowed_bytes), count_changes(before, now)

    def change(self, name: str, against: Against, commit: str) -> TimeChange:
        """The time of a benchmark over that of the base."""
        decision = self.decisions[name]
        found = decision.conclusion
        return TimeChange(
            "median_ns",
            against,
            found.finding,
            math.expm1(decision.change),
            math.expm1(found.limit),
            math.expm1(found.possible),
            decision.pairs,
            commit,
            given_up=_given_up(decision),
        )


def _factors(pairs: Sequence[Process]) -> list[float]:
    """The head's time over the base's in the pairs that count: those that others disturbed differ
    by tens of percent, and count only where the rest are too few to find a change."""
    clean = [pair.median_ns for pair in pairs if pair.is_clean]
    return clean if len(clean) >= LEAST_PAIRS else [pair.median_ns for pair in pairs]


def _given_up(decision: Decision) -> str:
    """Why no more pairs were measured, of a benchmark that was given up."""
    if not decision.is_hopeless:
        return ""
    return f"which differ by {math.expm1(decision.noise):.0%}, so that more would not decide"


def take_turns(
    contestants: Contestants,
    goals: Callable[[Pair], Mapping[str, Goal]],
    names: Sequence[str] | None = None,
    false_alarm: float = FALSE_ALARM,
    most_pairs: int = MOST_PAIRS,
    with_memory: bool = False,
) -> Comparison:
    """Pairs of processes until every benchmark is decided.

    Args:
        contestants: the two revisions.
        goals: what is asked of each benchmark that a pair compared.
        names: the benchmarks; None for all that the options of pytest select.
        false_alarm: the probability that identical code is called changed in any benchmark.
        most_pairs: of how many pairs at most.
        with_memory: measure memory as well, in the first pair.

    Raises:
        WorkerError: a process of the first pair failed.
    """
    contestants.announce(f"pair 1 of at most {most_pairs}")
    comparison = Comparison(contestants.measure(names, with_memory))
    comparison.add(comparison.first)
    wanted = goals(comparison.first)
    left = list(comparison.compared)
    for number in range(2, most_pairs + 1):
        if not left:
            break
        contestants.announce(f"pair {number} of at most {most_pairs}: {len(left)} undecided")
        try:
            comparison.add(contestants.measure(left), left)
        except WorkerError as error:
            comparison.error = error
            break
        left = comparison.decide(wanted, false_alarm, most_pairs)
    return comparison


@dataclass(frozen=True)
class Outcome:
    """What a comparison of two revisions found.

    Args:
        run: the head's; its figures are those of the head over the base.
        head: the head's own figures, in its first process.
        verdicts: of all benchmarks that either has.
        error: why the comparison broke off, if it did.
    """

    run: Run
    head: Run
    verdicts: Sequence[Verdict]
    error: WorkerError | None = None


def compare_revisions(
    contestants: Contestants,
    most_pairs: int = MOST_PAIRS,
    false_alarm: float = FALSE_ALARM,
) -> Outcome:
    """Measure both revisions until all is decided, and judge time and memory.

    Args:
        contestants: the two revisions.
        most_pairs: of how many pairs of processes at most.
        false_alarm: the probability that identical code has any false alarm.

    Raises:
        WorkerError: a process failed.
        LimitsError: a limit cannot be used.
    """
    rules = read_rules(contestants.head.folder / "pyproject.toml")

    def limits_table(pair: Pair) -> LimitTable:
        key = pair.head.device_key
        return LimitTable(replace(limits_of(key), visible=VISIBLE), rules, key)

    def goals(pair: Pair) -> Mapping[str, Goal]:
        limits = {name: limits_table(pair)(pair.head.measurements[name]) for name in pair.compared}
        return {name: Goal(limit.ratio, limit.visible) for name, limit in limits.items()}

    comparison = take_turns(contestants, goals, None, false_alarm, most_pairs, with_memory=True)
    first, table = comparison.first, limits_table(comparison.first)

    def verdict(name: str) -> Verdict:
        if obstacle := comparison.obstacle(name):
            return Verdict(name, "unjudged", obstacle)
        change = comparison.change(name, "base", contestants.base.commit)
        allowed = table(first.head.measurements[name]).memory_bytes
        return verdict_of(name, [change], *comparison.exact_changes(name, allowed))

    verdicts = [verdict(name) for name in comparison.compared]
    return Outcome(
        run_of_pairs(first.head, comparison.compared),
        first.head,
        [*verdicts, *_not_compared(first)],
        comparison.error,
    )


def run_of_pairs(run: Run, compared: Mapping[str, Sequence[Process]]) -> Run:
    """The run, with the figures of this code over another revision's."""
    measurements = {
        name: replace(run.measurements[name], processes=processes)
        for name, processes in compared.items()
        if name in run.measurements
    }
    return replace(run, measurements=measurements)


def _not_compared(pair: Pair) -> list[Verdict]:
    """Verdicts of what one side alone measures, and of what fails on both."""
    gone = [Verdict(name, "missing", "the base has it, the head does not") for name in pair.gone]
    failed = [Verdict(name, "missing", "it fails on both sides") for name in pair.failed]
    new = [Verdict(name, "no_baseline", "the base does not have it") for name in pair.new]
    return [*gone, *failed, *new]
