"""Instructions of a whole warp: products of fragments, and exchanges. From the PTX ISA."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.arithmetic import rounded_to_zero
from tests.ptx.parse import Fault

MMA = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
SHUFFLE = "shfl.sync.bfly.b32"

# Rows and columns that the registers of a lane hold: section "Matrix Fragments for mma.m16n8k8",
# type .tf32, where group = lane / 4 and member = lane % 4.
_LANE = np.arange(32)
_GROUP, _MEMBER = _LANE // 4, _LANE % 4
_A_ROWS = np.stack([_GROUP, _GROUP + 8, _GROUP, _GROUP + 8])
_A_COLUMNS = np.stack([_MEMBER, _MEMBER, _MEMBER + 4, _MEMBER + 4])
_B_ROWS, _B_COLUMNS = np.stack([_MEMBER, _MEMBER + 4]), np.stack([_GROUP, _GROUP])
_D_ROWS = np.stack([_GROUP, _GROUP, _GROUP + 8, _GROUP + 8])
_D_COLUMNS = np.stack([2 * _MEMBER, 2 * _MEMBER + 1] * 2)

_READ_BITS = np.uint32(0xFFFFE000)  # of an operand in TF32


def whole_warps(mask: np.ndarray | None, threads: int) -> np.ndarray:
    """The warps of the threads in the mask.

    Raises:
        Fault: only a part of a warp is in it.
    """
    if mask is None:
        return np.arange(threads // 32)
    by_warp = mask.reshape(-1, 32)
    if not (by_warp.all(1) == by_warp.any(1)).all():
        raise Fault("only a part of the warp is here")
    return np.flatnonzero(by_warp.all(1))


def _matrix(registers: list[Any], warps: np.ndarray, rows: Any, columns: Any, shape: Any) -> Any:
    """(warps, *shape) in float64, of registers or numbers in float32."""
    result = np.empty((len(warps), *shape))
    for register, row, column in zip(registers, rows, columns, strict=True):
        is_number = np.ndim(register) == 0
        result[:, row, column] = register if is_number else register.reshape(-1, 32)[warps]
    return result


def multiply(d: Any, a: Any, b: Any, c: Any, mask: np.ndarray | None) -> None:
    """d = a b + c, rounded toward zero.

    Raises:
        Fault: only a part of a warp takes part.
    """
    warps = whole_warps(mask, len(d[0]))
    a = [(bits & _READ_BITS).view(np.float32) for bits in a]
    b = [(bits & _READ_BITS).view(np.float32) for bits in b]
    product = _matrix(a, warps, _A_ROWS, _A_COLUMNS, (16, 8)) @ _matrix(
        b, warps, _B_ROWS, _B_COLUMNS, (8, 8)
    )
    total = rounded_to_zero(product + _matrix(c, warps, _D_ROWS, _D_COLUMNS, (16, 8)))
    for register, row, column in zip(d, _D_ROWS, _D_COLUMNS, strict=True):
        register.reshape(-1, 32)[warps] = total[:, row, column]


class Shuffles:
    """Lanes that have come to a shuffle wait until their whole warp has come to one. It need not be
    the same instruction: the compiler copies a shuffle into both ways of a branch."""

    def __init__(self, threads: int) -> None:
        self._value, self._distance = np.zeros(threads, np.uint32), np.zeros(threads, np.int64)
        self._block = np.full(threads, -1)  # that it waits in; -1 elsewhere
        self._targets: dict[int, np.ndarray] = {}

    def offer(self, active: np.ndarray, block: int, target: Any, value: Any, distance: Any) -> None:
        """Of some threads, which then wait: the value that each offers, and by how much, as by xor,
        the number of the lane differs whose value it gets."""
        threads = len(self._value)
        self._value[active] = np.broadcast_to(value, threads)[active]
        self._distance[active] = np.broadcast_to(distance, threads)[active]
        self._block[active] = block
        self._targets[block] = target

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Those threads that need not wait any longer, now with their values, and their blocks."""
        complete = np.flatnonzero((self._block >= 0).reshape(-1, 32).all(1).repeat(32))
        blocks = self._block[complete]
        found = self._value[complete ^ self._distance[complete]]
        for block in np.unique(blocks):
            here = blocks == block
            self._targets[block][complete[here]] = found[here]
        self._block[complete] = -1
        return complete, blocks
