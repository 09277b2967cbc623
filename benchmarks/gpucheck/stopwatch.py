"""How long a piece of work takes: by CUDA events on a GPU, by the wall clock on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Work = Callable[[], Any]
Measures = dict[str, Callable[[], float]]

WINDOW_S = 2e-3  # back-to-back runs fill such a window
MAX_RUNS = 200
WARMUP_RUNS = 3

# Clock cycles for which the GPU is kept busy while the host launches; doubled while too short.
FIRST_SLEEP, LONGEST_SLEEP = 1_000_000, 32_000_000


def measures_of(work: Work, device: torch.device, clear: Work | None = None) -> Measures:
    """The ways to time `work` on `device`, after a warm-up.

    "cold": on the GPU alone, with the second-level cache flushed before.
    "warm": back to back, the host's launches included.
    "graph": a replay of its CUDA graph, back to back; capture happens at the first call.

    Args:
        clear: frees what `work` left; run where it counts for nothing.
    """
    clear = clear or (lambda: None)
    for _ in range(WARMUP_RUNS if device.type == "cuda" else 1):
        clear()
        work()
    if device.type != "cuda":
        return {"warm": lambda: _wall_clock(work, clear)}
    torch.cuda.synchronize(device)
    return {
        "cold": _Cold(work, clear, device),
        "warm": _BackToBack(lambda: (clear(), work())),
        "graph": _Graph(work, clear, device),
    }


def _wall_clock(work: Work, clear: Work) -> float:
    clear()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class _Cold:
    """One run with cold caches, all of it launched before the GPU comes to its start."""

    def __init__(self, work: Work, clear: Work, device: torch.device) -> None:
        self._work, self._clear = work, clear
        self._flush = _flush_buffer(device)
        self._cycles = FIRST_SLEEP

    def __call__(self) -> float:
        while True:
            seconds, was_ahead = self._run()
            if was_ahead or self._cycles >= LONGEST_SLEEP:
                return seconds
            self._cycles *= 2

    def _run(self) -> tuple[float, bool]:
        start, end = _events()
        self._clear()
        torch.cuda._sleep(self._cycles)
        self._flush.zero_()
        start.record()
        self._work()
        end.record()
        was_ahead = not start.query()  # the GPU had not begun when all was launched
        end.synchronize()
        return start.elapsed_time(end) * 1e-3, was_ahead


_buffers: dict[torch.device, torch.Tensor] = {}


def _flush_buffer(device: torch.device) -> torch.Tensor:
    """Twice the second-level cache, shared by all."""
    if device not in _buffers:
        size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        _buffers[device] = torch.empty(2 * (size or 64 * 2**20), dtype=torch.uint8, device=device)
    return _buffers[device]


class _BackToBack:
    """The mean of as many runs as fill the window."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._runs = 0

    def __call__(self) -> float:
        if not self._runs:
            self._runs = min(MAX_RUNS, max(1, round(WINDOW_S / max(self._mean(3), 1e-6))))
        return self._mean(self._runs)

    def _mean(self, runs: int) -> float:
        start, end = _events()
        start.record()
        for _ in range(runs):
            self._work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3 / runs


class _Graph:
    """Replays of the captured work."""

    def __init__(self, work: Work, clear: Work, device: torch.device) -> None:
        self._work, self._clear, self._device = work, clear, device
        self._replays: _BackToBack | None = None

    def __call__(self) -> float:
        if self._replays is None:
            self._replays = _BackToBack(self._capture().replay)
        return self._replays()

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):  # libraries take a workspace for each stream
            for _ in range(WARMUP_RUNS):
                self._clear()
                self._work()
            self._clear()
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._work()
        self._clear()  # later eager runs must not write into the graph's memory
        graph.replay()
        torch.cuda.synchronize(self._device)
        return graph


def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
