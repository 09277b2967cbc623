"""Two live processes that take turns: the base's round, the head's round, and turned around."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from perfgate.judge.parse import parse_run
from perfgate.judge.record import Process, Run
from perfgate.measure.rounds import OWN, Round
from perfgate.run import lifeline
from perfgate.run.processes import (
    Command,
    WorkerError,
    WorkerStoppedError,
    folder_of_orders,
    follow,
    last_words,
    read_output,
)
from perfgate.run.worker import Channel, ChannelClosedError, Order

# A thread that waits actively for its next task takes a core from the other side for some
# milliseconds after each turn, and a layer of many small parallel operations has two speeds,
# depending on whether its threads still spin or sleep already. Threads that always sleep have one.
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}

# A block is not counted: some memory is still touched for the first time.
UNCOUNTED_ROUNDS = 2


@dataclass(frozen=True)
class Plan:
    """How long a duel takes.

    Args:
        max_seconds: how long a benchmark may take on one side, with what is not timed.
        min_rounds, max_rounds: how many rounds there are at least, and at most.
    """

    max_seconds: float = 0.6
    min_rounds: int = 10
    max_rounds: int = 24

    @classmethod
    def for_benchmarks(cls, number: int) -> Plan:
        """Few benchmarks take longer each: processes that start cost as much for one as for all."""
        return cls(max_seconds=min(2.0, max(cls.max_seconds, 6 / max(1, number))), max_rounds=60)

    def rounds(self, seconds: float) -> int:
        """How many there are of a work that takes `seconds`: an even number, but one of what can
        be measured once only, which says that it takes infinitely long."""
        if math.isinf(seconds):
            return 1
        wanted = int(self.max_seconds / seconds) if seconds > 0 else self.max_rounds
        return 2 * (max(self.min_rounds, min(self.max_rounds, wanted)) // 2)


@dataclass(frozen=True)
class Pair:
    """What a pair of processes measured.

    Args:
        base, head: their runs.
        compared: for each benchmark that both measured, the time of the head over the base's.
        gone, new: benchmarks that only the base, or only the head, could measure.
        failed: benchmarks that neither could measure, but for those that both skip.
    """

    base: Run
    head: Run
    compared: dict[str, Process]
    gone: Sequence[str]
    new: Sequence[str]
    failed: Sequence[str] = ()


@dataclass
class Side:
    """A worker of one revision; `skipped` are the benchmarks that it left out by itself."""

    name: str
    process: Any
    channel: Channel
    output: Path
    tail: list[str]
    reader: threading.Thread
    skipped: set[str] = field(default_factory=set)

    @cached_property
    def collected(self) -> set[str]:
        """The benchmarks that it could measure."""
        return {str(name) for name in self._receive("collected")["collected"]}

    def wait_for(self, name: str) -> bool:
        """Until it is ready for a benchmark; False if it does not measure it."""
        message = self._receive("ready", "finished")
        if message.get("ready", message.get("finished")) != name:
            raise WorkerError(f"the process of the {self.name} is at {message}; expected {name}")
        return "ready" in message

    def start_warm_up(self) -> None:
        """Let it run its benchmark untimed."""
        self._send(go=1)

    def end_warm_up(self) -> float | None:
        """Seconds of its last round of the warm-up, with what is not timed; None if it failed."""
        message = self._receive("warm", "finished")
        return float(message["warm"]) if "warm" in message else None

    def stop(self, name: str) -> None:
        """End the benchmark's rounds."""
        self._send(stop=True)
        self._receive("finished")

    def turn(self) -> Round | None:
        """A round now; None if the benchmark failed."""
        self._send(go=1)
        message = self._receive("round", "finished")
        if "finished" in message:
            return None
        found = message["round"]
        return Round(found["seconds"], found["disturbance"])

    def select(self, names: Sequence[str]) -> None:
        """Tell it what is measured."""
        self._send(select=list(names))

    def _send(self, **message: Any) -> None:
        try:
            self.channel.send(**message)
        except ChannelClosedError as error:
            raise self._ended("a listener") from error

    def _ended(self, expected: str) -> WorkerError:
        self.reader.join()
        kind = WorkerStoppedError if self.process.returncode < 0 else WorkerError
        return kind(
            f"the process of the {self.name} ended early; expected {expected}: "
            f"{last_words(self.tail)}\n{''.join(self.tail)}"
        )

    def _receive(self, *kinds: str) -> dict[str, Any]:
        try:
            message = self.channel.receive()
        except ChannelClosedError as error:
            raise self._ended(" or ".join(kinds)) from error
        if not message.keys() & set(kinds):
            raise WorkerError(
                f"the process of the {self.name} sent {message}; expected {' or '.join(kinds)}"
            )
        if message.get("skipped"):
            self.skipped.add(message["finished"])
        return message

    def run(self) -> Run:
        """What it wrote at its end."""
        self.reader.join()
        try:
            return parse_run(read_output(self.output, self.process.returncode, self.tail))
        except WorkerError as error:
            raise WorkerError(f"of the {self.name}: {error}") from error


def duel(
    base: Command,
    head: Command,
    names: Sequence[str] | None,
    plan: Plan,
    with_memory: bool,
    announce: Callable[[str], None],
    base_first: bool = True,
) -> Pair:
    """Measure benchmarks with a pair of fresh processes. One that fails on a side is the other's.

    Args:
        base, head: how pytest is started on each side.
        names: the benchmarks; None for all.
        plan: how long.
        with_memory: measure memory, too.
        announce: hears which benchmark runs.
        base_first: which side begins.

    Raises:
        WorkerError: a side failed.
    """
    lifeline.end_on_sigterm()
    with folder_of_orders() as folder, contextlib.ExitStack() as stack:

        def start(label: str, command: Command, names: Sequence[str] | None) -> Side:
            return stack.enter_context(_side(label, command, folder, names, with_memory))

        if names is None:
            # The base collects no other files: the tests are the head's, and need not fit its code.
            second = start("head", head, None)
            sides = [start("base", base, sorted(second.collected)), second]
        elif base_first:
            sides = [start("base", base, names), start("head", head, names)]
        else:
            sides = [start("head", head, names), start("base", base, names)][::-1]
        collected = [side.collected for side in sides]
        every = collected[0] | collected[1] if names is None else set(names)
        common = sorted(every & collected[0] & collected[1])
        matches = _Matches()
        _take_all(sides, common, plan, announce, base_first, matches)
        runs = [side.run() for side in sides]
    gone = sorted(every & collected[0] - collected[1]) + matches.only[0]
    new = sorted(every & collected[1] - collected[0]) + matches.only[1]
    skipped = sides[0].skipped & sides[1].skipped
    failed = sorted(every - {*matches.compared, *gone, *new, *skipped})
    return Pair(runs[0], runs[1], matches.compared, gone, new, failed)


@dataclass
class _Matches:
    """What both sides measured, and what only one of them did."""

    compared: dict[str, Process] = field(default_factory=dict)
    only: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))


@contextlib.contextmanager
def _side(
    label: str,
    command: Command,
    folder: Path,
    names: Sequence[str] | None,
    with_memory: bool,
) -> Iterator[Side]:
    output, order_path = folder / f"{label}.json", folder / f"{label}-order.json"
    from_worker, worker_writes = os.pipe()
    worker_reads, to_worker = os.pipe()
    channel = (worker_reads, worker_writes)
    Order(str(output), names, only_times=not with_memory, channel=channel).write(order_path)
    process = command.start(order_path, channel)
    os.close(worker_reads)
    os.close(worker_writes)
    tail: list[str] = []
    reader = threading.Thread(
        target=lambda: tail.extend(follow(process, lambda text: None, command.timeout))
    )
    reader.start()
    side = Side(label, process, Channel(from_worker, to_worker), output, tail, reader)
    try:
        yield side
    finally:
        side.channel.close()
        if reader.is_alive():
            process.kill()
            reader.join()


def _take_all(
    sides: Sequence[Side],
    names: Sequence[str],
    plan: Plan,
    announce: Callable[[str], None],
    base_first: bool,
    matches: _Matches,
) -> None:
    """Both sides go through the same benchmarks in the same order."""
    for side in sides:
        side.select(names)
    for number, name in enumerate(names, start=1):
        runs = [side.wait_for(name) for side in sides]
        if all(runs):
            announce(name)
            pairs = _take_turns(sides, plan, (number % 2 == 0) == base_first, runs)
            if all(runs):
                matches.compared[name] = compare_rounds(pairs)
        for side, only, it_runs in zip(sides, matches.only, runs, strict=True):
            if it_runs:
                side.stop(name)
                if not all(runs):
                    only.append(name)


def _take_turns(
    sides: Sequence[Side], plan: Plan, base_first: bool, runs: list[bool]
) -> list[tuple[Round, Round]]:
    """Warm up, then one round of each side in turn, as in base, head, head, base: what a round owes
    to being the second, with the caches of the first, and to a machine that drifts, then falls on
    both.

    A side on which the benchmark fails is marked in `runs`, and ends it.
    """
    # Both at once: the side that touches its memory first gets other pages than the second, and
    # keeps them. Alone, it was 1 to 3% slower in all its rounds.
    for side in sides:
        side.start_warm_up()
    found = [side.end_warm_up() for side in sides]
    runs[:] = [seconds is not None for seconds in found]
    if not all(runs):
        return []
    each = max(seconds or 0.0 for seconds in found)
    if not math.isinf(each):
        start = time.monotonic()
        _rounds(sides, UNCOUNTED_ROUNDS, base_first, runs)
        each = (time.monotonic() - start) / (UNCOUNTED_ROUNDS * len(sides))
    return _rounds(sides, plan.rounds(each), base_first, runs) if all(runs) else []


def _rounds(
    sides: Sequence[Side], number: int, base_first: bool, runs: list[bool]
) -> list[tuple[Round, Round]]:
    """So many rounds of each side; fewer where the benchmark ends on one."""
    pairs: list[tuple[Round, Round]] = []
    for _ in range(number):
        measured: dict[int, Round] = {}
        for index in (0, 1) if base_first else (1, 0):
            taken = sides[index].turn()
            runs[index] = taken is not None
            if taken is not None:
                measured[index] = taken
        if not all(runs):  # of which both sides were asked, since it may fail on both
            break
        pairs.append((measured[0], measured[1]))
        base_first = not base_first
    return pairs


def compare_rounds(pairs: Sequence[tuple[Round, Round]]) -> Process:
    """The head over the base, by the faster half of the rounds of each.

    What disturbs a round makes it longer, never shorter. Pairs of identical code so differ by three
    quarters of what they do by medians (docs/trust.md).
    """
    base, head = zip(*pairs, strict=True)
    disturbed = sum(any(measured.disturbance for measured in pair) for pair in pairs)
    return Process(
        median_ns=math.exp(_faster_half(head) - _faster_half(base)),
        rounds=len(pairs) - disturbed,
        disturbed=disturbed,
    )


def _faster_half(rounds: Sequence[Round]) -> float:
    """Mean logarithm of their seconds."""
    seconds = sorted(measured.seconds[OWN] for measured in rounds)
    return statistics.fmean(map(math.log, seconds[: (len(seconds) + 1) // 2]))
