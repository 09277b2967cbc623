"""Which part of a long work begins, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Work that takes less in all needs no estimate, and fewer seconds make none.
LEAST_SECONDS = 10


@dataclass
class Progress:
    """A work of parts that take about the same time.

    Args:
        total: how many parts there are.
        clock: in seconds.
        started: how many have begun.
    """

    total: int
    clock: Callable[[], float] = time.monotonic
    started: int = 0
    _first: float = field(default=0.0, init=False)

    def begin(self) -> str:
        """A part begins: its number, as in "3/20", and the time left where the parts before tell
        it, as in "3/20, 4 min left"."""
        now = self.clock()
        done = self.started
        self.started += 1
        if done == 0:
            self._first = now
        taken = now - self._first
        text = f"{self.started}/{self.total}"
        if done == 0 or taken < LEAST_SECONDS:
            return text
        return f"{text}, {in_words(taken / done * max(1, self.total - done))} left"


def in_words(seconds: float) -> str:
    """To ten seconds, and beyond two minutes to one."""
    if seconds <= 115:
        return f"{max(1, round(seconds / 10)) * 10} s"
    return f"{round(seconds / 60)} min"
