"""Which of several ways to compute the same is the fastest here: measured once, kept on disk.

The candidates run in turns on the user's own tensors. Within the joint 95% margin of two medians,
or within `TIE` of the faster one, their given order decides, so that processes that measure at
once come to the same choice. A choice is one decision on disk, see `decisions`: one that is
damaged, foreign or names no candidate is a miss, and is measured anew.

`KAN_IMPLS_TUNE` is read when something is first met in a process: `1` (the default) takes stored
choices and measures what is missing, `refresh` measures everything anew, `0` chooses nothing.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, get_args

import torch

from kan_impls.fused import decisions, proof
from kan_impls.fused.compiler import CompileError, KernelUnavailable

VARIABLE = "KAN_IMPLS_TUNE"
Mode = Literal["0", "1", "refresh"]

# Rounds in which each candidate runs once; fewer where they take long.
ROUNDS, LEAST_ROUNDS = 9, 3
SECONDS = 0.5

# After two rounds, what takes so many times longer than the fastest is left out.
HOPELESS = 2.0

# Candidates are as fast as each other within this part of the faster one's time.
TIE = 0.02

_KIND = "forms"


def mode() -> Mode:
    """What `KAN_IMPLS_TUNE` says.

    Raises:
        ValueError: nothing that is known.
    """
    found = os.environ.get(VARIABLE) or "1"
    if found not in get_args(Mode):
        raise ValueError(
            f"{VARIABLE} is {found!r}; expected one of {', '.join(get_args(Mode))}: set it to 1, "
            f"or unset it, to let measurements decide"
        )
    return found  # type: ignore[return-value]


def seconds_on_gpu(run: Callable[[], object], device: torch.device) -> float:
    """What one call takes on the current stream, with the launches that the host is late for."""
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


# What times a candidate, in seconds.
clock: Callable[[Callable[[], object], torch.device], float] = seconds_on_gpu


@dataclass(frozen=True)
class Timing:
    """Median of the time of a candidate, and the half width of its 95% interval."""

    median_us: float
    margin_us: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        median = statistics.median(seconds)
        deviation = 1.4826 * statistics.median(abs(value - median) for value in seconds)
        # The standard error of a median is 1.2533 times that of a mean.
        margin = 1.96 * 1.2533 * deviation / math.sqrt(len(seconds))
        return cls(median * 1e6, margin * 1e6)

    def ties_with(self, fastest: Timing) -> bool:
        joint = math.hypot(self.margin_us, fastest.margin_us)
        return self.median_us - fastest.median_us <= max(joint, TIE * fastest.median_us)

    def __str__(self) -> str:
        return f"{self.median_us:.1f} ± {self.margin_us:.1f} µs"


@dataclass(frozen=True)
class Choice:
    """The candidate that is chosen, and the times of all that were measured, by their names.

    Args:
        refused: candidates whose kernels have failed their known-answer test.
    """

    chosen: str
    timings: Mapping[str, Timing]
    refused: Sequence[str] = ()

    @classmethod
    def among(
        cls, timings: Mapping[str, Timing], left: Sequence[str], refused: Sequence[str] = ()
    ) -> Choice:
        """The first of those that are `left` and as fast as the fastest one. Others were measured
        so seldom that their margins tell nothing."""
        of = {name: timings[name] for name in timings if name in left}
        fastest = min(of.values(), key=lambda timing: timing.median_us)
        chosen = next(name for name, timing in of.items() if timing.ties_with(fastest))
        return cls(chosen, timings, refused)

    @classmethod
    def of(cls, decision: Mapping[str, object] | None) -> Choice | None:
        """The choice that was stored; None where something else was."""
        if decision is None or decision.keys() != {"chosen", "timings", "refused"}:
            return None
        chosen, timings, refused = (decision[key] for key in ("chosen", "timings", "refused"))
        if not isinstance(timings, dict) or not isinstance(chosen, str) or chosen not in timings:
            return None
        if not isinstance(refused, list) or not all(isinstance(name, str) for name in refused):
            return None
        found = {}
        for name, figures in timings.items():
            if not isinstance(figures, dict) or figures.keys() != {"median_us", "margin_us"}:
                return None
            if not all(isinstance(n, float) and 0 <= n < math.inf for n in figures.values()):
                return None
            found[name] = Timing(**figures)
        return cls(chosen, found, refused)

    def is_of(self, candidates: Sequence[str]) -> bool:
        """Whether it has considered all of these, the chosen one among them."""
        return self.chosen in candidates and {*candidates} <= {*self.timings, *self.refused}

    def __str__(self) -> str:
        """The chosen one first, and the others by their times."""
        times = sorted(
            self.timings.items(), key=lambda item: (item[0] != self.chosen, item[1].median_us)
        )
        return f"{self.chosen}: " + ", ".join(f"{name} {timing}" for name, timing in times)


def choose(
    subject: str,
    device: torch.device,
    candidates: Sequence[str],
    run: Callable[[str], object],
    give_up: Callable[[Exception], None],
) -> str | None:
    """The name of the candidate to take, or None where nothing is to be chosen.

    Args:
        subject: what is computed, and on what shape.
        device: a GPU.
        candidates: in the order that decides between equals.
        run: computes by a candidate. A kernel that cannot be had, and memory that runs out, leave
            it out of the choice.
        give_up: is told of the first kernel that cannot be had.

    Raises:
        ValueError: `KAN_IMPLS_TUNE` is unknown.
        Exception: whatever else `run` raises; or its first, where no candidate runs.
    """
    how = mode()
    if how == "0":
        return None
    environment = environment_of(device)
    if how == "1":
        stored = Choice.of(decisions.read(_KIND, environment, subject))
        if stored is not None and stored.is_of(candidates):
            return stored.chosen
    timings, left, lost = _measured(device, candidates, run)
    if not timings:
        raise next(iter(lost.values()))
    unusable = [error for error in lost.values() if not isinstance(error, torch.OutOfMemoryError)]
    if unusable:
        give_up(unusable[0])
    refused = [name for name, error in lost.items() if isinstance(error, proof.KernelRefused)]
    choice = Choice.among(timings, left, refused)
    if len(refused) == len(lost):  # what did not run this time may be the fastest another time
        decisions.write(_KIND, environment, subject, asdict(choice))
    return choice.chosen


def _measured(
    device: torch.device, candidates: Sequence[str], run: Callable[[str], object]
) -> tuple[dict[str, Timing], list[str], dict[str, Exception]]:
    """The times of the candidates that run, in their order; which of them were measured to the end;
    and why others do not run."""
    seconds, lost = dict[str, list[float]](), dict[str, Exception]()
    for name in candidates:  # compiled, proven, and its memory taken, before anything is timed
        try:
            run(name)
        except (KernelUnavailable, CompileError, torch.OutOfMemoryError) as error:
            lost[name] = error.with_traceback(None)  # which keeps the tensors of its frames
        else:
            seconds[name] = []
    left, spent = list(seconds), 0.0
    for number in range(ROUNDS):
        for name in left if number % 2 == 0 else reversed(left):
            try:
                seconds[name].append(clock(partial(run, name), device))
            except torch.OutOfMemoryError as error:  # another process has taken what there was
                lost[name] = error.with_traceback(None)
            else:
                spent += seconds[name][-1]
        left = [name for name in left if name not in lost]
        fastest = min((min(seconds[name]) for name in left), default=0)
        if number:
            left = [name for name in left if min(seconds[name]) <= HOPELESS * fastest]
        if spent > SECONDS and number + 1 >= LEAST_ROUNDS:
            break
    of = {name: Timing.of(each) for name, each in seconds.items() if name not in lost}
    return of, left or list(of), lost  # none is left where memory ran out for the fastest


def environment_of(device: torch.device) -> dict[str, str]:
    """Where a choice holds."""
    return {**proof.environment_of(device), "torch": torch.__version__}


def choices(device: torch.device) -> Iterator[tuple[str, Choice]]:
    """What is stored for this device: subject and choice."""
    for subject, decision in decisions.stored(_KIND, environment_of(device)):
        choice = Choice.of(decision)
        if choice is not None:
            yield subject, choice
