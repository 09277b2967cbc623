"""Shared memory of the blocks that run together: races between barriers, and copies in flight."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tests.ptx.memory import NOBODY, check_aligned, words
from tests.ptx.parse import Fault
from tests.ptx.registers import SHARED_BASE

SEVERAL = -2  # readers


class _Copy(NamedTuple):
    """One asynchronous copy of each of some threads."""

    threads: np.ndarray
    cells: np.ndarray  # (threads, halfwords)
    values: np.ndarray  # as cells
    groups: np.ndarray  # that it belongs to, of its thread's


class Shared:
    """Accesses of two threads to a halfword, one of them a write, need a barrier in between.

    Args:
        block_of: by thread.
        size: in bytes, of each block.
    """

    def __init__(self, block_of: np.ndarray, size: int) -> None:
        self._block_of, self._size = block_of, size
        self._stride = (size + 15) // 16 * 16
        count = (block_of.max() + 1) * self._stride // 2
        self._data = np.full(count, 0xFFFF, np.uint16)  # NaN
        self._is_known = np.zeros(count, bool)
        self._is_pending = np.zeros(count, bool)
        # A phase is the time between two barriers of a block.
        self._phase = np.zeros(block_of.max() + 1, np.int64)
        self._writer, self._written = np.full(count, NOBODY), np.full(count, -1)
        self._reader, self._read = np.full(count, NOBODY), np.full(count, -1)
        self._committed = np.zeros(len(block_of), np.int64)
        self._copies: list[_Copy] = []

    def barrier(self, blocks: np.ndarray) -> None:
        self._phase[blocks] += 1

    def load(self, threads: np.ndarray, addresses: np.ndarray, width: int, count: int):
        cells, phase = self._cells(threads, addresses, width * count)
        who = threads[:, None]
        if self._is_pending[cells].any():
            raise Fault("a read of a copy in flight")
        if not self._is_known[cells].all():
            raise Fault("a read of shared memory that nobody wrote")
        if ((self._written[cells] == phase) & (self._writer[cells] != who)).any():
            raise Fault("a race: reads what another thread wrote since the last barrier")
        is_shared = (self._read[cells] == phase) & (self._reader[cells] != who)
        self._reader[cells] = np.where(is_shared, SEVERAL, who)
        # Where several threads of this instruction read one cell, one of them is now its reader.
        self._reader[cells[self._reader[cells] != who]] = SEVERAL
        self._read[cells] = phase
        return words(self._data.view(np.uint8), 2 * cells[:, 0], width, count)

    def store(self, threads: np.ndarray, addresses: np.ndarray, values: np.ndarray) -> None:
        """Values: (threads, count) unsigned numbers."""
        cells, phase = self._cells(threads, addresses, values.itemsize * values.shape[1])
        self._claim(threads, cells, phase)
        self._is_known[cells] = True
        self._data[cells] = np.ascontiguousarray(values).view(np.uint16)

    def start_copy(self, threads: np.ndarray, addresses: np.ndarray, values: np.ndarray) -> None:
        """Values: (threads, halfwords); they arrive when their thread has waited for them."""
        cells, phase = self._cells(threads, addresses, 2 * values.shape[1])
        self._claim(threads, cells, phase)
        self._is_pending[cells] = True
        groups = np.broadcast_to(self._committed[threads], len(threads)).copy()
        self._copies.append(_Copy(threads, cells, values, groups))

    def commit(self, threads: np.ndarray) -> None:
        self._committed[threads] += 1

    def wait(self, threads: np.ndarray, pending: int) -> None:
        """Until at most so many of the last groups of each thread are pending."""
        waits = np.zeros(len(self._committed), bool)
        waits[threads] = True
        left = []
        for copy in self._copies:
            lands = waits[copy.threads] & (copy.groups < self._committed[copy.threads] - pending)
            if lands.any():
                self._land(*(part[lands] for part in copy))
            if not lands.all():
                left.append(_Copy(*(part[~lands] for part in copy)))
        self._copies = left

    def _land(self, threads, cells, values, _) -> None:
        self._data[cells] = values
        self._is_pending[cells], self._is_known[cells] = False, True
        # Only to its own thread, until the next barrier.
        self._writer[cells] = threads[:, None]
        self._written[cells] = self._phase[self._block_of[threads]][:, None]

    def _claim(self, threads: np.ndarray, cells: np.ndarray, phase: np.ndarray) -> None:
        """For a write."""
        who = threads[:, None]
        if self._is_pending[cells].any():
            raise Fault("a write over a copy in flight")
        if ((self._read[cells] == phase) & (self._reader[cells] != who)).any():
            raise Fault("a race: writes what another thread read since the last barrier")
        if ((self._written[cells] == phase) & (self._writer[cells] != who)).any():
            raise Fault("a race: writes what another thread wrote since the last barrier")
        self._writer[cells], self._written[cells] = who, phase
        if (self._writer[cells] != who).any():
            raise Fault("a race: two threads write at once")

    def _cells(self, threads: np.ndarray, addresses: np.ndarray, size: int):
        """(threads, halfwords), and the phase of each thread's block, (threads, 1)."""
        check_aligned(addresses, size)
        offsets = addresses - SHARED_BASE
        if offsets.min() < 0 or offsets.max() + size > self._size:
            worst = int(offsets.max() if offsets.min() >= 0 else offsets.min())
            raise Fault(f"shared memory out of bounds: byte {worst} of {self._size}")
        blocks = self._block_of[threads]
        first = (offsets + blocks * self._stride) // 2
        return first[:, None] + np.arange(size // 2), self._phase[blocks][:, None]
