"""Registers of all threads that run together, an array each, and the operands of instructions."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np

from tests.ptx.parse import Fault, Kernel

SHARED_BASE = 1024  # where dynamic shared memory begins: not at 0

_LETTERS = {"s": "int", "u": "uint", "b": "uint", "f": "float"}


@cache
def dtype_of(type_: str) -> np.dtype[Any]:
    """Of a type such as `s32`; `b32` holds bits, as unsigned numbers.

    Raises:
        Fault: no such type.
    """
    if type_ == "pred":
        return np.dtype(bool)
    if not re.fullmatch(r"[sub](16|32|64)|f32", type_):
        raise Fault(f"not modelled: the type {type_}")
    return np.dtype(f"{_LETTERS[type_[0]]}{type_[1:]}")


class Registers:
    """Those of a kernel, zero at first.

    Args:
        special: arrays or numbers by name, such as `tid.x`.
        symbols: addresses by name.
    """

    def __init__(
        self, kernel: Kernel, threads: int, special: dict[str, Any], symbols: dict[str, int]
    ) -> None:
        self._special, self._symbols = special, symbols
        self._arrays = {
            f"%{prefix}{n}": np.zeros(threads, dtype_of(kind))
            for prefix, (kind, count) in kernel.registers.items()
            for n in range(count)
        }

    def source(self, text: str, type_: str) -> Any:
        """An operand to read as a type: the array that holds it at any time, or a number."""
        dtype = dtype_of(type_)
        if text in self._arrays:
            array = self._arrays[text]
            # Of a wider register, the low part.
            return array.view(dtype)[:: array.itemsize // dtype.itemsize]
        if text[1:] in self._special:
            return self._special[text[1:]]
        if text.startswith("0f"):
            return np.uint32(int(text[2:], 16)).view(dtype)
        number = self._symbols[text] if text in self._symbols else int(text, 0)
        if dtype.kind == "b":
            return bool(number)
        bits = np.dtype(f"uint{8 * dtype.itemsize}").type(number % 256**dtype.itemsize)
        return bits.view(dtype)

    def target(self, text: str, type_: str) -> np.ndarray:
        """Where to write a value of a type: a wider register extends it by its sign, or by 0."""
        array = self._arrays[text]
        if array.dtype.kind == "b" or type_[0] == "f":
            return array.view(dtype_of(type_))
        return array.view(f"{_LETTERS[type_[0]]}{8 * array.itemsize}")

    def address(self, text: str) -> tuple[Any, int]:
        """The register or number, and the distance, of an operand such as `[%rd1+16]`."""
        base, _, distance = text[1:-1].partition("+")
        width = self._arrays[base].itemsize * 8 if base in self._arrays else 64
        return self.source(base, f"s{width}"), int(distance or 0)


def write(target: np.ndarray, value: Any, mask: np.ndarray | None) -> None:
    """Into the threads of the mask, or all."""
    np.copyto(target, value, where=True if mask is None else mask, casting="unsafe")
