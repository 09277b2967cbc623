"""Executes a kernel for some blocks of a grid at once: every register is an array over threads.

Of all threads that do not wait at a barrier, those at the first basic block of the text run next.
Threads that took different ways so meet again where the ways do.
"""

from __future__ import annotations

import numpy as np

from tests.ptx.memory import Global, Parameter
from tests.ptx.parse import Fault, Kernel
from tests.ptx.registers import SHARED_BASE, Registers, write
from tests.ptx.shared import Shared
from tests.ptx.steps import Mask, Steps
from tests.ptx.warp import Shuffles

# Where a thread is, instead of in a block.
_MEETS, _WAITS, _DONE = 2**28, 2**29, 2**30


class Machine:
    """Some blocks of a launch.

    Args:
        arguments: the struct.
        grid, blocks: of the launch, and (count, 3) coordinates of those that run here.
        threads, shared_bytes: of a block.

    Raises:
        Fault: the arguments or threads are not what the kernel takes, or it is not modelled.
    """

    def __init__(
        self,
        kernel: Kernel,
        arguments: bytes,
        grid: tuple[int, int, int],
        blocks: np.ndarray,
        threads: int,
        shared_bytes: int,
        memory: Global,
    ) -> None:
        if len(arguments) != kernel.parameter_bytes:
            raise Fault(f"{len(arguments)} bytes of arguments for {kernel.parameter_bytes}")
        if threads % 32 or threads > kernel.max_threads:
            raise Fault(f"{threads} threads of at most {kernel.max_threads}")
        self._shape = (len(blocks), threads)
        self.count = len(blocks) * threads
        block_of = np.repeat(np.arange(len(blocks)), threads)
        numbers = (blocks[:, 2] * grid[1] + blocks[:, 1]) * grid[0] + blocks[:, 0]
        thread_of = np.tile(np.arange(threads, dtype=np.uint32), len(blocks))
        self.threads = np.arange(self.count)
        # A thread's number in the grid: global memory outlives these blocks.
        self.identity = numbers.repeat(threads) * threads + thread_of
        special = {"tid.x": thread_of, "ntid.x": np.uint32(threads), "laneid": thread_of % 32}
        for axis, letter in enumerate("xyz"):
            special[f"ctaid.{letter}"] = blocks[block_of, axis].astype(np.uint32)
            special[f"nctaid.{letter}"] = np.uint32(grid[axis])
        symbols = {kernel.parameter: 0, "shared": SHARED_BASE}
        registers = Registers(kernel, self.count, special, symbols)
        self.shared = Shared(block_of, max(shared_bytes, 16))
        self.spaces = {"param": Parameter(arguments), "global": memory, "shared": self.shared}
        self.shuffles = Shuffles(self.count)
        self.labels = kernel.labels
        self._at = np.zeros(self.count, np.int32)  # a block, by thread
        self._resume = np.zeros(self.count, np.int32)
        self._kernel = kernel
        steps = Steps(self, registers)
        self._steps = [
            [steps.step(instruction, n) for instruction in block]
            for n, block in enumerate(kernel.blocks)
        ]

    def run(self) -> None:
        """To the end of all threads.

        Raises:
            Fault: naming the instruction.
        """
        with np.errstate(all="ignore"):
            while (now := int(self._at.min())) < _WAITS:
                if now == _MEETS:
                    raise Fault("lanes wait for others of their warp that never come")
                here = self._at == now
                mask = None if here.all() else here
                self.go(mask, now + 1)
                for n, step in enumerate(self._steps[now]):
                    try:
                        step(mask)
                    except Fault as fault:
                        raise Fault(f"`{self._kernel.blocks[now][n].text}`: {fault}") from fault

    # Control

    def go(self, mask: Mask, block: int) -> None:
        write(self._at, np.int32(block), mask)

    def leave(self, mask: Mask) -> None:
        self.go(mask, _DONE)
        self._release()

    def wait(self, mask: Mask, block: int) -> None:
        """At a barrier; afterwards at a block."""
        write(self._resume, np.int32(block), mask)
        self.go(mask, _WAITS)
        self._release()

    def meet(self, mask: Mask) -> None:
        """At a shuffle, with the rest of the warp."""
        self.go(mask, _MEETS)
        complete, blocks = self.shuffles.finish()
        self._at[complete] = blocks + 1

    def _release(self) -> None:
        """The blocks all of whose threads, but those that are done, wait."""
        at, resume = self._at.reshape(self._shape), self._resume.reshape(self._shape)
        waits = at == _WAITS
        ready = (waits | (at == _DONE)).all(1) & waits.any(1)
        if not ready.any():
            return
        first = np.where(waits, resume, _DONE).min(1, keepdims=True)
        if (waits & (resume != first))[ready].any():
            raise Fault("threads of a block wait at different barriers")
        if (at == _DONE)[ready].any():
            raise Fault("threads of a block have left, and others wait at a barrier")
        at[ready] = resume[ready]
        self.shared.barrier(np.flatnonzero(ready))
