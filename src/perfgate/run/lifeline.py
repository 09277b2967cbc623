"""Measuring processes end with the one that started them, however that one ends.

A pipe, of which the starter holds the end that writes and never writes: when it is gone, killed
or not, the system closes it, and the other end reads its end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

VARIABLE = "KAN_BENCH_LIFELINE"

# What a shell says of a process that a signal ended.
_ENDED = 128 + signal.SIGTERM


def hold() -> None:
    """In a measuring process: end as soon as its starter is gone. Elsewhere this does nothing."""
    text = os.environ.pop(VARIABLE, None)  # what this process starts has another starter
    if text is None:
        return
    descriptor = int(text)
    os.set_inheritable(descriptor, False)
    # A thread that waits in the kernel: it costs the measured ones nothing.
    threading.Thread(target=_wait_for_the_end, args=(descriptor,), daemon=True).start()


def _wait_for_the_end(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(_ENDED)  # the measuring thread is in the middle of something


@contextlib.contextmanager
def limit(seconds: float, name: str, status: int, say: Callable[[str], None]) -> Iterator[None]:
    """End this process if a benchmark takes longer: it may wait for ever, deep in a library.

    Args:
        seconds: how long it may take.
        name: which benchmark.
        status: the exit status then.
        say: hears why, where output is not captured.
    """
    timer = threading.Timer(seconds, _give_up, (seconds, name, status, say))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(seconds: float, name: str, status: int, say: Callable[[str], None]) -> None:
    say(
        f"\n{name} made no progress for {seconds:g} seconds; expected it to end: see what it waits "
        f"for, or give it longer by --worker-timeout\nexit status {status}: stopped"
    )
    os._exit(status)


def end_on_sigterm() -> None:
    """A cancelled job ends like an interrupted one: its processes and temporary folders go."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    sys.exit(128 + number)
