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
from perfgate.judge.verdict import Against, Answers, TimeChange, Verdict
from perfgate.plain_text import one_line
from perfgate.run.processes import TIMEOUT_SECONDS, WorkerError


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
        times: name to what they found.
        obstacles: name to why there was none.
        pairs: name to this code's time over the earlier one's, of each pair of processes.
    """

    times: dict[str, list[TimeChange]] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, list[Process]] = field(default_factory=dict)

    @property
    def answers(self) -> Answers:
        return Answers(self.times, self.obstacles)


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
    for (against, code), names in _questions(verdicts, stored, base).items():
        place.announce(
            f"not clear by stored times: {len(names)} benchmarks, measured in turns with "
            f"{code.commit[:10]}"
        )
        if obstacle := _uncommitted(code):
            found.obstacles |= dict.fromkeys(names, obstacle)
            continue
        try:
            _compare(found, names, against, code.commit, stored, place, most_pairs)
        except RevisionError as error:
            found.obstacles |= dict.fromkeys(names, _unavailable(place.root, code.commit, error))
        except WorkerError as error:
            said = str(error).partition("\n")
            why = f"its code cannot be measured here ({one_line(said[0])})"
            found.obstacles |= dict.fromkeys(names, why)
            place.announce(said[2])
    return found


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
) -> None:
    def goals(pair: Pair) -> Mapping[str, Goal]:
        return {name: _goal(stored, pair, name, against) for name in pair.compared}

    with tree_of(place.root, commit) as base, tree_of(place.root, None) as head:
        contestants = Contestants(
            base, head, place.arguments, place.announce, place.folder, timeout=place.timeout
        )
        comparison = take_turns(contestants, goals, names, stored.false_alarm, most_pairs)
    for name in names:
        if name in comparison.decisions:
            change = comparison.change(name, against, base.commit)
            found.times.setdefault(name, []).append(change)
            found.pairs.setdefault(name, []).extend(comparison.compared[name])
        else:
            found.obstacles[name] = f"the code of {commit[:10]} does not run this benchmark"


def _goal(stored: Stored, pair: Pair, name: str, against: Against) -> Goal:
    limits = stored.limits(pair.head.measurements[name])
    if against == "anchor":
        return Goal(limits.drift, max(limits.visible, 2 * limits.drift), only_slower=True)
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
