"""What stored times leave open is put to the earlier code itself, in turns, here and now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perfgate.ab.duel import Pair
from perfgate.ab.run import Contestants, take_turns
from perfgate.ab.trees import RevisionError, is_shallow, tree_of
from perfgate.compare import Stored
from perfgate.judge.record import Code, Process
from perfgate.judge.sequential import MOST_PAIRS, Goal
from perfgate.judge.verdict import (
    Against,
    Answers,
    CountChange,
    MemoryChange,
    TimeChange,
    Verdict,
)
from perfgate.plain_text import one_line
from perfgate.run.processes import TIMEOUT_SECONDS, WorkerError, WorkerStoppedError


@dataclass(frozen=True)
class Place:
    """Where and how this code's benchmarks are started.

    Args:
        root: the folder of the project in its repository.
        folder: where pytest is started.
        arguments: pytest's.
        announce: hears what happens.
        timeout: seconds without progress after which a process is ended.
    """

    root: Path
    folder: Path
    arguments: Sequence[str]
    announce: Callable[[str], None]
    timeout: float = TIMEOUT_SECONDS


@dataclass
class Settlement:
    """What the comparisons in turns brought, so far.

    Args:
        times, obstacles, lacking, memory, counts: see `Answers`.
        pairs: name to this code's time over the earlier one's, of each pair of processes; over
            the baseline's rather than the oldest one's.
        error: why a comparison could not be measured, or broke off.
    """

    times: dict[str, list[TimeChange]] = field(default_factory=dict)
    obstacles: dict[tuple[str, Against], str] = field(default_factory=dict)
    lacking: set[str] = field(default_factory=set)
    memory: dict[str, Sequence[MemoryChange]] = field(default_factory=dict)
    counts: dict[str, Sequence[CountChange]] = field(default_factory=dict)
    pairs: dict[str, list[Process]] = field(default_factory=dict)
    error: WorkerError | None = None

    @property
    def answers(self) -> Answers:
        return Answers(self.times, self.obstacles, self.lacking, self.memory, self.counts)

    @property
    def stopped(self) -> bool:
        """Whether a measuring process was killed, or hung."""
        return isinstance(self.error, WorkerStoppedError)


def settle(
    verdicts: Sequence[Verdict],
    stored: Stored,
    place: Place,
    base: str | None = None,
    most_pairs: int = MOST_PAIRS,
    judge_new: bool = True,
) -> Settlement:
    """Compare in turns what is open.

    Args:
        verdicts: by what is stored.
        stored: the runs of which the code is compared with.
        place: where this code's benchmarks are started.
        base: a revision that takes the place of the baseline's code.
        most_pairs: of how many pairs of processes at most.
        judge_new: whether the base judges what has no baseline, too.
    """
    found = Settlement()
    if base is None or not judge_new:
        verdicts = [verdict for verdict in verdicts if verdict.open]
    questions = _questions(verdicts, stored, base)
    # All comparisons of a run together have its probability of a false alarm.
    share = stored.false_alarm / max(1, len(questions))
    for (against, code), names in questions.items():
        place.announce(
            f"not clear by stored times: {len(names)} benchmarks, measured in turns with "
            f"{code.commit[:10]}"
        )
        if obstacle := _uncommitted(code):
            _hinder(found, names, against, obstacle)
            continue
        try:
            _compare(found, names, against, code.commit, stored, place, most_pairs, share)
        except RevisionError as error:
            _hinder(found, names, against, _unavailable(place.root, code.commit, error))
        except WorkerError as error:
            found.error = error
            _hinder(found, names, against, f"its code cannot be measured here ({error.headline})")
            place.announce(str(error).partition("\n")[2])
    return found


def _hinder(found: Settlement, names: Sequence[str], against: Against, why: str) -> None:
    found.obstacles |= {(name, _asked(against)): why for name in names}


def _asked(against: Against) -> Against:
    """The base answers in the baseline's place."""
    return "baseline" if against == "base" else against


def _questions(
    verdicts: Sequence[Verdict], stored: Stored, base: str | None
) -> dict[tuple[Against, Code], list[str]]:
    """Names by what they are compared with: each code is measured once for all of them."""
    found: dict[tuple[Against, Code], list[str]] = {}
    for verdict in verdicts:
        if verdict.status == "no_baseline":
            found.setdefault(("base", Code(str(base), False)), []).append(verdict.name)
        for against in verdict.open:
            replaced = base is not None and against == "baseline"
            code = Code(str(base), False) if replaced else stored.code_of(verdict.name, against)
            found.setdefault(("base" if replaced else against, code), []).append(verdict.name)
    return found


def _compare(
    found: Settlement,
    names: Sequence[str],
    against: Against,
    commit: str,
    stored: Stored,
    place: Place,
    most_pairs: int,
    false_alarm: float,
) -> None:
    def goals(pair: Pair) -> Mapping[str, Goal]:
        return {name: _goal(stored, pair, name, against) for name in pair.compared}

    known = stored.run.measurements if stored.run else {}
    new = [name for name in names if name not in known]
    with tree_of(place.root, commit) as base, tree_of(place.root, None) as head:
        contestants = Contestants(
            base, head, place.arguments, place.announce, place.folder, timeout=place.timeout
        )
        comparison = take_turns(
            contestants, goals, names, false_alarm, most_pairs, with_memory=bool(new)
        )
    found.error = comparison.error or found.error
    for name in names:
        if name in comparison.compared:
            why = comparison.obstacle(name) or ""
        elif name in comparison.first.new:
            found.lacking.add(name)
            why = f"the code of {commit[:10]} does not run this benchmark"
        else:
            failing = "this code" if name in comparison.first.gone else "neither code"
            runs = "does not run it" if name in comparison.first.gone else "runs it"
            why = f"in turns with the code of {commit[:10]}, {failing} {runs}; see why it fails"
        if why:
            _hinder(found, [name], against, why)
            continue
        change = comparison.change(name, against, base.commit)
        found.times.setdefault(name, []).append(change)
        if against != "anchor" or name not in found.pairs:
            found.pairs[name] = list(comparison.compared[name])
        if name in new:
            allowed = stored.limits(comparison.first.head.measurements[name]).memory_bytes
            found.memory[name], found.counts[name] = comparison.exact_changes(name, allowed)


def _goal(stored: Stored, pair: Pair, name: str, against: Against) -> Goal:
    limits = stored.limits(pair.head.measurements[name])
    if against == "anchor":
        return Goal(limits.drift, limits.visible_drift, only_slower=True)
    return Goal(limits.ratio, limits.visible)


def _uncommitted(code: Code) -> str | None:
    if code.commit == "unversioned":
        return (
            "it was stored without a git commit; expected one to compare with: measure in a git "
            "repository and run kan-bench accept, or compare with kan-bench ab COMMIT"
        )
    if code.dirty:
        return (
            f"it was stored from uncommitted work on {code.commit[:10]}, which cannot be measured "
            f"again; commit, measure and run kan-bench accept, or compare with the commit alone: "
            f"kan-bench ab {code.commit[:10]}"
        )
    return None


def _unavailable(root: Path, commit: str, error: RevisionError) -> str:
    remedy = "git fetch --unshallow" if is_shallow(root) else f"git fetch origin {commit}"
    why = one_line(str(error))
    return f"its code cannot be had ({why}); run {remedy} and then kan-bench ab {commit[:10]}"
