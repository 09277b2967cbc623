"""Clocks, what they time, and wall time up to the end of the device's work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch


class Timed:
    """Work that is timed once in every round.

    Args:
        run: what is timed.
        prepare: what comes before it, untimed.
        release: what comes after it, untimed.
    """

    def __init__(
        self,
        run: Callable[[], object],
        prepare: Callable[[], None] = lambda: None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.run = run
        self.prepare = prepare
        self.release = release


class Timer:
    """A clock in seconds, which also times one run of a work. Another way to time is a subclass."""

    def __call__(self) -> float:
        return time.perf_counter()

    def time(self, work: Timed, before: Callable[[], None] = lambda: None) -> float:
        """Seconds of one run; `before` is called at the edge of the timed window."""
        work.prepare()
        before()
        start = self()
        result = work.run()
        seconds = self() - start
        del result
        work.release()
        return seconds


class SynchronizedTimer(Timer):
    """A clock that is read when the device has finished what was launched."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device.type == "cuda":
            # The whole device: events would miss work on side streams.
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.device})"


class ReplayTimer:
    """Gives pytest-benchmark durations that were measured before, as a clock would.

    Its own rounds know no interleaving, no dropped samples and no turns; what it is given
    through its timer it analyses and stores like its own.
    """

    def __init__(self) -> None:
        self._readings: list[float] = []

    def load(self, seconds: Sequence[float]) -> None:
        """The next pairs of readings differ by these durations."""
        self._readings = [reading for value in seconds for reading in (0.0, value)][::-1]

    def __call__(self) -> float:
        # A benchmark that did not come from here, such as a plain one, is timed by the clock.
        return self._readings.pop() if self._readings else time.perf_counter()
