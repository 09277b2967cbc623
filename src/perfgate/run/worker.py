"""A worker: a pytest process that measures what it is told and writes it to a file.

Its order is a JSON file. It measures by itself, or, with a channel, one round whenever it is
its turn. Messages are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from perfgate.measure.rounds import Round
from perfgate.selection import is_benchmark


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Args:
        output: where it writes its run, in pytest-benchmark's JSON.
        names: the benchmarks that it measures, in this order, whose files are all that it collects;
            None for all that pytest's arguments select. With a channel, the other end chooses
            among what those files hold.
        only_times: leave out memory and floors.
        processes: number of processes that share the time of a benchmark.
        keep_rounds: record the seconds of every round.
        channel: file descriptors to read and write, if it takes turns.
    """

    output: str = ""
    names: Sequence[str] | None = None
    only_times: bool = True
    processes: int = 1
    keep_rounds: bool = False
    channel: tuple[int, int] | None = None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Order:
        fields = json.loads(path.read_text(encoding="utf-8"))
        channel = fields.pop("channel")
        return cls(**fields, channel=None if channel is None else tuple(channel))


class ChannelClosedError(Exception):
    """The other end is gone."""


class Channel:
    """Lines of JSON over two pipes."""

    def __init__(self, read_from: int, write_to: int) -> None:
        self._in: IO[str] = os.fdopen(read_from, encoding="utf-8")
        self._out: IO[str] = os.fdopen(write_to, "w", encoding="utf-8")

    def send(self, **message: Any) -> None:
        try:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
        except (BrokenPipeError, ValueError) as error:
            raise ChannelClosedError("the other end of the channel is closed") from error

    def receive(self) -> dict[str, Any]:
        """The next message; waits for it.

        Raises:
            ChannelClosedError: there will be none.
        """
        line = self._in.readline()
        if not line:
            raise ChannelClosedError("the other end of the channel is closed")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._in.close()
        with contextlib.suppress(BrokenPipeError):  # what was not sent yet is lost
            self._out.close()


class NoTurnError(Exception):
    """A benchmark got no turn: the other side does not measure it."""


class Turns:
    """A schedule that another process gives, one round at a time."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name

    def start(self) -> None:
        """Wait for the first `go`, which is for the warm-up.

        Raises:
            NoTurnError: there is none.
        """
        self._channel.send(ready=self._name)
        if "go" not in self._channel.receive():
            raise NoTurnError(self._name)

    def turns(self, seconds: float, whole: float) -> Iterator[None]:
        """A round for each `go`, until `stop`."""
        self._channel.send(warm=whole)
        while "go" in self._channel.receive():
            yield

    def done(self, measured: Round) -> None:
        self._channel.send(round=asdict(measured))


def keep_ordered(items: list[Any], order: Order, channel: Channel | None) -> None:
    """Leave the benchmarks that a worker is to measure."""
    by_name = {item.nodeid: item for item in items if is_benchmark(item)}
    names = order.names
    if channel is not None:
        channel.send(collected=list(by_name))
        names = channel.receive()["select"]
    items[:] = [by_name[name] for name in (by_name if names is None else names) if name in by_name]
