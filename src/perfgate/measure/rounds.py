"""Rounds: an implementation and what it is compared with, timed shortly after one another.

All then see the same state of a machine whose speed drifts, and their ratio does not see it.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from perfgate.judge.record import Process
from perfgate.measure.evidence import Witness

if TYPE_CHECKING:
    from perfgate.measure.timing import Timed, Timer

# Runs before the rounds are counted: lazy initialisation, thread pools, the allocator's
# first pages.
WARMUP_ROUNDS = 2
# One warm-up must do for what takes this long.
SLOW_SECONDS = 3.0

OWN = "own"
REFERENCE = "reference"


@dataclass(frozen=True)
class Round:
    """Seconds of each of the works, and what disturbed the round, if anything did."""

    seconds: Mapping[str, float]
    disturbance: str | None = None


class Schedule(Protocol):
    """Says when there is another round."""

    def start(self) -> None:
        """Before the warm-up, which takes cores as well."""

    def turns(self, seconds: float, whole: float) -> Iterator[None]:
        """One item for each round: of `whole` seconds, with what is not timed, of which the
        implementation takes `seconds`."""

    def done(self, measured: Round) -> None:
        """Hears of each round."""


@dataclass
class Budget:
    """Rounds that fill a time; a disturbed one is made up for, up to as many again.

    Args:
        max_seconds: how long the implementation's own rounds may take.
        min_rounds: how many clean rounds there are at least.
    """

    max_seconds: float
    min_rounds: int
    clean: int = 0

    def start(self) -> None:
        """At once."""

    def turns(self, seconds: float, whole: float) -> Iterator[None]:
        rounds = max(self.min_rounds, int(self.max_seconds / max(seconds, 1e-9)))
        self.clean = 0
        for _ in range(2 * rounds):
            if self.clean == rounds:
                return
            yield

    def done(self, measured: Round) -> None:
        self.clean += measured.disturbance is None


@dataclass
class Contest:
    """An implementation and its companions, by name; the ratio to `REFERENCE` is judged.

    Args:
        own: the implementation.
        companions: what it is compared with.
        timer: a clock, which times each of them.
        witness: what tells a disturbed round.
        flush: what comes before each timed window.
    """

    own: Timed
    companions: Mapping[str, Timed]
    timer: Timer
    witness: Witness
    flush: Callable[[], None]
    _forwards: bool = field(default=True, init=False)

    def warm_up(self) -> tuple[float, float]:
        """Run everything untimed; seconds of the implementation's last run, and of that round."""
        seconds = whole = 0.0
        for _ in range(WARMUP_ROUNDS):
            start = self.timer()
            seconds = self.time_round().seconds[OWN]
            whole = self.timer() - start
            if seconds > SLOW_SECONDS:
                break
        return seconds, whole

    def run(self, schedule: Schedule) -> list[Round]:
        """Warm up, then a round at each turn of the schedule."""
        schedule.start()
        seconds, whole = self.warm_up()
        rounds = []
        was_enabled = gc.isenabled()
        gc.collect()
        gc.disable()  # it would fall into some rounds and not into others
        try:
            for _ in schedule.turns(seconds, whole):
                rounds.append(self.time_round())
                schedule.done(rounds[-1])
        finally:
            if was_enabled:
                gc.enable()
        return rounds

    def time_round(self) -> Round:
        """Each of the works once; the order is turned around from round to round."""
        works = [*self.companions.items(), (OWN, self.own)]
        seconds, disturbances = {}, []
        for name, work in works if self._forwards else reversed(works):
            seconds[name] = self.timer.time(work, self._before_window)
            disturbances.append(self.witness.end(seconds[name]))
        self._forwards = not self._forwards
        return Round(seconds, next(filter(None, disturbances), None))

    def _before_window(self) -> None:
        self.flush()
        self.witness.begin()


def clean_rounds(rounds: list[Round]) -> list[Round]:
    """The undisturbed ones; all of them if there is none."""
    return [r for r in rounds if r.disturbance is None] or rounds


def process_of(rounds: list[Round]) -> Process:
    """What the rounds say together: medians over the clean ones.

    Raises:
        ValueError: there is no round.
    """
    if not rounds:
        raise ValueError("there are 0 rounds; expected one or more: the schedule gave no turn")
    used = clean_rounds(rounds)
    disturbed = sum(r.disturbance is not None for r in rounds)
    ratios = {
        name: statistics.median(r.seconds[OWN] / r.seconds[name] for r in used)
        for name in used[0].seconds
        if name != OWN
    }
    return Process(
        median_ns=statistics.median(r.seconds[OWN] for r in used) * 1e9,
        ratio=ratios.pop(REFERENCE, None),
        beside=ratios,
        rounds=len(rounds) - disturbed,
        disturbed=disturbed,
    )
