"""Two live processes that take turns: the base's round, the head's round, and turned around."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kan_impls.bench.files import temporary_folder
from kan_impls.bench.measure.rounds import OWN, Round
from kan_impls.bench.processes import Command, WorkerError, WorkerStoppedError, follow, read_output
from kan_impls.bench.record import Process, Run, parse_run
from kan_impls.bench.worker import Channel, ChannelClosedError, Order

# Before each turn: OpenMP's threads of the side that just ended still wait actively, for some
# milliseconds, and would take a core from the other one.
SETTLE_SECONDS = 0.05

# After each change of sides a round is lost to sleeping threads and foreign caches. A fifth of a
# second is still the same state of the machine.
ROUNDS_OF_A_TURN = 8


@dataclass(frozen=True)
class Plan:
    """How long a duel takes.

    Args:
        max_seconds: how long the rounds of a benchmark may take on one side.
        min_rounds, max_rounds: how many rounds there are at least, and at most.
    """

    max_seconds: float = 1.5
    min_rounds: int = 2
    max_rounds: int = 100

    def rounds(self, seconds: float) -> int:
        """How many there are of a work that takes `seconds`."""
        return max(self.min_rounds, min(self.max_rounds, int(self.max_seconds / seconds)))


@dataclass(frozen=True)
class Pair:
    """What a pair of processes measured.

    Args:
        base, head: their runs.
        compared: for each benchmark that both measured, the head over the base: ratios of
            the ratios to each one's own references, and of the times.
        gone, new: benchmarks that only the base, or only the head, could measure.
    """

    base: Run
    head: Run
    compared: dict[str, Process]
    gone: Sequence[str]
    new: Sequence[str]


@dataclass
class Side:
    """A worker of one revision."""

    name: str
    process: Any
    channel: Channel
    output: Path
    tail: list[str]
    reader: threading.Thread

    def collected(self) -> list[str]:
        """The benchmarks that it could measure."""
        return [str(name) for name in self._receive("collected")["collected"]]

    def wait_for(self, name: str) -> bool:
        """Until it is ready for a benchmark; False if it does not measure it."""
        message = self._receive("ready", "finished")
        if message.get("ready", message.get("finished")) != name:
            raise WorkerError(f"the process of the {self.name} is at {message}; expected {name}")
        return "ready" in message

    def warm_up(self) -> float:
        """Seconds of its last run of the warm-up."""
        self._send(go=1)
        return float(self._receive("warm")["warm"])

    def stop(self, name: str) -> None:
        """End the benchmark's rounds."""
        self._send(stop=True)
        self._receive("finished")

    def turn(self, rounds: int) -> list[Round]:
        """So many rounds now."""
        self._send(go=rounds)
        measured = [self._receive("round")["round"] for _ in range(rounds)]
        return [Round(found["seconds"], found["disturbance"]) for found in measured]

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
            f"the process of the {self.name} ended early; expected {expected}: its output ended "
            f"with\n{''.join(self.tail)}"
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
    """Measure benchmarks with a pair of fresh processes.

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
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        sides = [
            stack.enter_context(_side(label, command, folder, with_memory))
            for label, command in (("base", base), ("head", head))
        ]
        collected = [set(side.collected()) for side in sides]
        every = collected[0] | collected[1] if names is None else set(names)
        common = sorted(every & collected[0] & collected[1])
        matches = _Matches()
        _take_all(sides, common, plan, announce, base_first, matches)
        runs = [side.run() for side in sides]
    return Pair(
        runs[0],
        runs[1],
        matches.compared,
        gone=sorted(every & collected[0] - collected[1]) + matches.only[0],
        new=sorted(every & collected[1] - collected[0]) + matches.only[1],
    )


@dataclass
class _Matches:
    """What both sides measured, and what only one of them did."""

    compared: dict[str, Process] = field(default_factory=dict)
    only: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))


@contextlib.contextmanager
def _side(label: str, command: Command, folder: Path, with_memory: bool) -> Iterator[Side]:
    output, order_path = folder / f"{label}.json", folder / f"{label}-order.json"
    from_worker, worker_writes = os.pipe()
    worker_reads, to_worker = os.pipe()
    Order(str(output), only_times=not with_memory, channel=(worker_reads, worker_writes)).write(
        order_path
    )
    process = command.start(order_path, (worker_reads, worker_writes))
    os.close(worker_reads)
    os.close(worker_writes)
    tail: list[str] = []
    reader = threading.Thread(
        target=lambda: tail.extend(follow(process, lambda text: None, command.timeout))
    )
    reader.start()
    channel = Channel(from_worker, to_worker)
    try:
        yield Side(label, process, channel, output, tail, reader)
    finally:
        channel.close()
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
        ready = [side.wait_for(name) for side in sides]
        if all(ready):
            announce(name)
            # One after the other: two at once would slow each other, and tell of fewer rounds.
            rounds = plan.rounds(max(side.warm_up() for side in sides))
            first = (number % 2 == 0) == base_first
            matches.compared[name] = compare_rounds(_take_turns(sides, rounds, first))
        for side, only, is_ready in zip(sides, matches.only, ready, strict=True):
            if is_ready:
                side.stop(name)
                if not all(ready):
                    only.append(name)


def _take_turns(sides: Sequence[Side], rounds: int, base_first: bool) -> list[tuple[Round, Round]]:
    pairs: list[tuple[Round, Round]] = []
    while len(pairs) < rounds:
        count = min(ROUNDS_OF_A_TURN, rounds - len(pairs))
        measured = {}
        for index in (0, 1) if base_first else (1, 0):
            time.sleep(SETTLE_SECONDS)
            measured[index] = sides[index].turn(count)
        pairs += zip(measured[0], measured[1], strict=True)
        base_first = not base_first
    return pairs


def compare_rounds(pairs: Sequence[tuple[Round, Round]]) -> Process:
    """The head over the base: medians over the rounds that were disturbed on neither side."""
    clean = [(b, h) for b, h in pairs if b.disturbance is None and h.disturbance is None]
    used = clean or pairs

    def over(companion: str | None) -> float:
        return statistics.median(_time(h, companion) / _time(b, companion) for b, h in used)

    companions = [name for name in used[0][0].seconds if name != OWN]
    return Process(
        median_ns=over(None),
        **{name: over(name) for name in companions},
        rounds=len(clean),
        disturbed=len(pairs) - len(clean),
    )


def _time(measured: Round, companion: str | None) -> float:
    """Over a companion, or by itself."""
    own = measured.seconds[OWN]
    return own if companion is None else own / measured.seconds[companion]
