"""Verdicts: what was compared, and the name of what follows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from perfgate.judge.record import Figure, Measurement
from perfgate.judge.rule import Finding

Status = Literal[
    "improved",
    "unchanged",
    "regressed",
    "inconclusive",
    "unjudged",
    "no_baseline",
    "missing",
    "incomparable",
]
# With what a time is compared: the last accepted run, the oldest kept one, or a revision.
Against = Literal["baseline", "anchor", "base"]

# The probability that a run of unchanged code has any false alarm.
FALSE_ALARM = 0.01

# Where so large a change is not excluded after all turns, nothing was judged.
UNKNOWN = 1.0

COMPANIONS: Mapping[Figure, str] = {"ratio": "time over reference", "median_ns": "time"}
AGAINST: Mapping[Against, str] = {
    "baseline": "the baseline",
    "anchor": "the oldest baseline",
    "base": "the base",
}


@dataclass(frozen=True)
class TimeChange:
    """One figure compared with an earlier one. Changes are relative: 0.1 is 10% slower.

    Args:
        figure: what is compared.
        against: with what.
        status: what follows; a stored time is never `regressed` or `improved`.
        change: the change.
        limit: what unchanged code exceeds hardly ever.
        visible: the largest change that is not excluded.
        processes: how many processes of this run count, or pairs of processes.
        commit: of the code that was measured in turns; None for a stored time.
        noise_of: what its noise is known from.
        given_up: why no more pairs were measured, of what they would not decide.
    """

    figure: Figure
    against: Against
    status: Finding
    change: float
    limit: float
    visible: float
    processes: int
    commit: str | None = None
    noise_of: str = ""
    given_up: str = ""

    def __str__(self) -> str:
        limit = f"(limit {self.limit:.1%}, {self.processes} "
        if self.commit is not None:
            return (
                f"{self.change:+.1%} in turns with {AGAINST[self.against]}'s code "
                f"{self.commit[:10]} {limit}pairs of processes"
                f"{self.given_up and ', '}{self.given_up})"
            )
        basis = f", noise of {self.noise_of}" if self.noise_of else ""
        text = f"{COMPANIONS[self.figure]} {self.change:+.1%} {limit}processes{basis})"
        return text if self.against == "baseline" else f"{text} since {AGAINST[self.against]}"


@dataclass(frozen=True)
class CountChange:
    """A number of events of one kind, before and now."""

    kind: str
    status: Finding
    before: int
    now: int

    unit: ClassVar[str] = ""

    def __str__(self) -> str:
        change = f"{self.now - self.before:+,}{self.unit}"
        return f"{self.kind} {change} ({self.before:,} to {self.now:,})"


class MemoryChange(CountChange):
    """Bytes of one kind, before and now."""

    unit = " B"


@dataclass(frozen=True)
class Verdict:
    """A named judgement on one benchmark.

    Args:
        name: pytest's node id.
        status: the judgement.
        cause: why, in one line.
        times, memory, counts: all that was compared.
        open: with what its code is to be compared in turns, before time is judged.
    """

    name: str
    status: Status
    cause: str
    times: Sequence[TimeChange] = ()
    memory: Sequence[MemoryChange] = ()
    open: Sequence[Against] = ()
    counts: Sequence[CountChange] = ()


@dataclass(frozen=True)
class Answers:
    """What comparisons in turns brought.

    Args:
        times: name to what they found.
        obstacles: name and with what it was to be compared, to why it was not, and what to do.
        lacking: names that the earlier code does not run.
        memory, counts: name to exact figures beside the base's, of what has no baseline.
    """

    times: Mapping[str, Sequence[TimeChange]]
    obstacles: Mapping[tuple[str, Against], str]
    lacking: Collection[str] = ()
    memory: Mapping[str, Sequence[MemoryChange]] = field(default_factory=dict)
    counts: Mapping[str, Sequence[CountChange]] = field(default_factory=dict)


NO_ANSWERS = Answers({}, {})


def verdict_of(
    name: str,
    times: Sequence[TimeChange],
    memory: Sequence[MemoryChange] = (),
    counts: Sequence[CountChange] = (),
) -> Verdict:
    """The verdict that findings make, of one time or more; what took turns outweighs what is
    stored."""
    judged = [change for change in times if change.commit is not None] or times
    statuses: Sequence[Finding] = ("regressed", "inconclusive", "improved")
    for status in statuses:
        causes = [explain(change) for change in judged if change.status == status]
        causes += [str(change) for change in (*memory, *counts) if change.status == status]
        if causes:
            unknown = status == "inconclusive" and any(map(_is_unknown, judged))
            named: Status = "unjudged" if unknown else status
            return Verdict(name, named, "; ".join(causes), times, memory, counts=counts)
    return Verdict(name, "unchanged", str(judged[0]), times, memory, counts=counts)


def _is_unknown(change: TimeChange) -> bool:
    """Whether the turns left it open so far that the time may have doubled."""
    if change.status != "inconclusive" or change.commit is None:
        return False
    measured, slower = math.log1p(change.change), math.log1p(change.visible)
    if change.against != "anchor":  # whose gains are no finding
        slower += measured - abs(measured)
    return slower >= math.log1p(UNKNOWN)


def explain(change: TimeChange) -> str:
    if change.status != "inconclusive":
        return str(change)
    if abs(math.log1p(change.change)) > math.log1p(change.limit):
        return f"{change}: it seems changed"
    return f"{change}: a change of up to {change.visible:.0%} is not excluded"


def memory_changes(before: Measurement, now: Measurement, allowed: int) -> list[MemoryChange]:
    """Bytes of every kind that both have, judged; a change of up to `allowed` is none."""
    return [
        MemoryChange(kind, _finding(size, now.memory[kind], allowed), size, now.memory[kind])
        for kind, size in before.memory.items()
        if kind in now.memory
    ]


def count_changes(before: Measurement, now: Measurement) -> list[CountChange]:
    """Kernel launches, judged, where both were counted: they are exact."""
    if before.launches is None or now.launches is None:
        return []
    status = _finding(before.launches, now.launches)
    return [CountChange("launches", status, before.launches, now.launches)]


def _finding(before: int, now: int, allowed: int = 0) -> Finding:
    if abs(now - before) <= allowed:
        return "unchanged"
    return "regressed" if now > before else "improved"


def says_forms(verdict: Verdict, before: Measurement | None, now: Measurement | None) -> Verdict:
    """The verdict, which says if the work was done in another form than before: its time may have
    changed by that alone."""
    forms = [each.info.get("forms") for each in (before, now) if each is not None]
    then, today = forms if len(forms) == 2 else (None, None)
    if not isinstance(then, Mapping) or not isinstance(today, Mapping) or then == today:
        return verdict
    return replace(verdict, cause=f"{verdict.cause}; another form ran: {difference(then, today)}")


def difference(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """What two descriptions of measured work differ in."""
    return ", ".join(
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    )
