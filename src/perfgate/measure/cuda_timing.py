"""Time of a GPU alone: by events, and of replays of a CUDA graph.

The wall time of small kernels is that of their launches, which other programs, drivers and hosts
move. These timers leave the host out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch

from perfgate.measure.timing import SynchronizedTimer, Timed, Timer

WARMUP_RUNS = 3

# Clock cycles for which the GPU is kept busy while the host launches; doubled while too few.
FIRST_SLEEP, LONGEST_SLEEP = 1_000_000, 32_000_000


class EventTimer(SynchronizedTimer):
    """Times by two CUDA events, with all of the work launched before the GPU comes to the first.

    Work that waits for the GPU itself, or that takes longer to launch than `LONGEST_SLEEP`, counts
    the host as well. Events see the current stream only.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._cycles: WeakKeyDictionary[Timed, int] = WeakKeyDictionary()

    def time(self, work: Timed, before: Callable[[], None] = lambda: None) -> float:
        """Seconds of one run. It is run once more where the host was too slow to be left out."""
        while True:
            cycles = self._cycles.setdefault(work, FIRST_SLEEP)
            seconds, was_ahead = self._window(work, before, cycles)
            if was_ahead or cycles >= LONGEST_SLEEP:
                return seconds
            self._cycles[work] = 2 * cycles

    def _window(self, work: Timed, before: Callable[[], None], cycles: int) -> tuple[float, bool]:
        """Seconds, and whether all was launched before the GPU began."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        work.prepare()
        torch.cuda._sleep(cycles)
        before()
        start.record()
        result = work.run()
        end.record()
        was_ahead = not start.query()
        end.synchronize()
        del result
        work.release()
        return start.elapsed_time(end) * 1e-3, was_ahead


class GraphTimer(EventTimer):
    """Times replays of the work's CUDA graph: what a training loop that captures its step pays."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._captured: WeakKeyDictionary[Timed, Timed] = WeakKeyDictionary()

    def time(self, work: Timed, before: Callable[[], None] = lambda: None) -> float:
        """Seconds of one replay; the work is captured at its first time."""
        if work not in self._captured:
            self._captured[work] = captured(work, self.device)
        return super().time(self._captured[work], before)


TIMERS: dict[str, Callable[[torch.device], Timer]] = {
    "wall": SynchronizedTimer,
    "events": EventTimer,
    "graph": GraphTimer,
}


def check_timer(name: str, device: torch.device) -> None:
    """Refuse a timer that the device does not have.

    Raises:
        ValueError: the timer needs CUDA, and the device is another.
    """
    if name != "wall" and device.type != "cuda":
        raise ValueError(
            f"the timer is {name!r} and the device {device}; expected a CUDA device, which alone "
            "has events and graphs: take --timer wall, or --device cuda"
        )


def captured(work: Timed, device: torch.device) -> Timed:
    """The work as replays of two CUDA graphs, one of `prepare` and one of `run`.

    A backward pass reads what its forward pass left, so both graphs share one pool of memory, and
    are replayed in turns. Both stay where they are until the result is forgotten.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # libraries take a workspace for each stream
        for _ in range(WARMUP_RUNS):
            work.prepare()
            work.run()
            work.release()
    torch.cuda.synchronize(device)
    pool = torch.cuda.graph_pool_handle()
    before, timed = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with warnings.catch_warnings():
        # Most works have nothing to prepare.
        warnings.filterwarnings("ignore", message="The CUDA Graph is empty")
        with torch.cuda.graph(before, pool=pool, stream=stream):
            work.prepare()
    with torch.cuda.graph(timed, pool=pool, stream=stream):
        result = work.run()
    del result
    work.release()  # what runs without the graph must not write into its memory
    return Timed(timed.replay, before.replay)
