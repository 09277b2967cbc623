"""Wall time up to the end of the device's work, interleaved with references."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch


class SynchronizedTimer:
    """A clock in seconds that is read when the device has finished what was launched."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device.type == "cuda":
            # The whole device: events would miss work on side streams.
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.device})"


class Interleaved:
    """Work that is timed once in every round, right before what it is compared with.

    Both then see the same state of a machine whose speed drifts, and their ratio does
    not see it at all.

    Args:
        run: what is timed.
        prepare: what comes before it, untimed.
        release: what comes after it, untimed.
    """

    def __init__(
        self,
        run: Callable[[], object],
        prepare: Callable[[], None] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.run = run
        self.prepare = prepare
        self.release = release
        self.seconds: list[float] = []

    def time_once(self, timer: Callable[[], float]) -> None:
        if self.prepare is not None:
            self.prepare()
        start = timer()
        result = self.run()
        self.seconds.append(timer() - start)
        del result
        if self.release is not None:
            self.release()

    def ratios_of(self, seconds: Sequence[float]) -> list[float]:
        """Round by round, a time over this one's."""
        return [mine / own for mine, own in zip(seconds, self.seconds, strict=True)]


def median_and_uncertainty(values: Sequence[float]) -> tuple[float, float]:
    """The median, and the relative half-width of its interval, 1.57 IQR / sqrt(n).

    Source: McGill, Tukey & Larsen, *Variations of Box Plots* (1978): two medians whose
    intervals do not overlap differ at about the 5% level. Infinite for one value.
    """
    median = statistics.median(values)
    if len(values) < 2:
        return median, float("inf")
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, 1.57 * (high - low) / len(values) ** 0.5 / median


def rounds_within(max_seconds: float, min_rounds: int, seconds_per_round: float) -> int:
    """How many rounds fill `max_seconds`, at least `min_rounds`."""
    return max(min_rounds, int(max_seconds / max(seconds_per_round, 1e-9)))
