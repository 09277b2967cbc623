"""What each arithmetic instruction computes, from the PTX ISA."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx.parse import Fault, Instruction
from tests.ptx.registers import dtype_of

Function = Callable[..., Any]

COMPARISONS: dict[str, Function] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "lo": operator.lt,
    "ls": operator.le,
    "hi": operator.gt,
    "hs": operator.ge,
    "ne": lambda a, b: (a < b) | (a > b),  # ordered: false for NaN
    "neu": operator.ne,
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}

# Of operands of the instruction's own type, by name without it.
SAME_TYPE: dict[str, Function] = {
    "mov": lambda a: a,
    "cvta.to.global": lambda a: a,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mul.lo": np.multiply,
    "add.rn": np.add,
    "sub.rn": np.subtract,
    "mul.rn": np.multiply,
    "mad.lo": lambda a, b, c: a * b + c,
    "abs": np.abs,
    "copysign": lambda a, b: np.copysign(b, a),  # the sign of the first operand
    "neg": np.negative,
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "fma.rn": lambda a, b, c: _fused(a, b, c).astype(np.float32),
    "fma.rm": lambda a, b, c: _rounded_down(_fused(a, b, c)),
    "rcp.approx.ftz": lambda a: np.float32(1) / a,
    "rcp.rn": lambda a: np.float32(1) / a,
    "div.approx": np.divide,
    "div.full": np.divide,
    "div.rn": np.divide,
    "ex2.approx.ftz": np.exp2,
    "ex2.approx": np.exp2,
}

ROUNDINGS: dict[str, Function] = {
    "rni": np.rint,
    "rmi": np.floor,
    "rpi": np.ceil,
    "rzi": np.trunc,
}


def computed(instruction: Instruction) -> tuple[Function, str, list[str]]:
    """The function of an instruction, and the types of its result and of its operands.

    Raises:
        Fault: it is not modelled.
    """
    *name, kind = instruction.parts
    head, rest, count = name[0], name[1:], len(instruction.arguments) - 1
    full = ".".join(name)
    if head == "setp" and len(rest) == 1 and rest[0] in COMPARISONS:
        compare = COMPARISONS[rest[0]]
        if rest[0] == "ne" and kind[0] != "f":
            compare = operator.ne
        return compare, "pred", [kind, kind]
    if head == "selp":
        return lambda a, b, chosen: np.where(chosen, a, b), kind, [kind, kind, "pred"]
    if head in ("shl", "shr"):
        return _left if head == "shl" else _right, kind, [kind, "u32"]
    if head == "cvt":
        *flags, to = rest
        return _conversion(flags, to, kind), to, [kind]
    if full == "mul.wide":
        to = f"{kind[0]}{2 * int(kind[1:])}"
        wide = dtype_of(to).type
        return lambda a, b: wide_product(a, b, wide), to, [kind, kind]
    if full == "mul.hi" and kind in ("s32", "u32"):
        wide = dtype_of(f"{kind[0]}64").type
        return lambda a, b: wide_product(a, b, wide) >> wide(32), kind, [kind, kind]
    if head in ("min", "max") and not rest:
        names = {"min": (np.minimum, np.fmin), "max": (np.maximum, np.fmax)}
        return names[head][kind[0] == "f"], kind, [kind, kind]
    if full in ("div", "rem"):
        return _quotient if full == "div" else _remainder, kind, [kind, kind]
    if full == "bfi":
        return _bits_inserted, kind, [kind, kind, "u32", "u32"]
    if full in SAME_TYPE:
        return SAME_TYPE[full], kind, [kind] * count
    raise Fault(f"not modelled: `{instruction.text}`")


def wide_product(a: Any, b: Any, wide: Any) -> Any:
    return np.asarray(a).astype(wide) * np.asarray(b).astype(wide)


def _fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float64, where the product is exact."""
    return np.multiply(a, b, dtype=np.float64) + np.asarray(c, np.float64)


def _rounded_down(value: Any) -> Any:
    near = value.astype(np.float32)
    return np.where(near > value, np.nextafter(near, np.float32(-np.inf)), near)


def rounded_to_zero(value: np.ndarray) -> np.ndarray:
    near = value.astype(np.float32)
    is_away = np.abs(near.astype(np.float64)) > np.abs(value)
    return np.where(is_away, np.nextafter(near, np.float32(0)), near)


def _left(value: Any, by: Any) -> Any:
    bits = 8 * value.itemsize
    shifted = value << np.minimum(by, bits - 1).astype(value.dtype)
    return np.where(by < bits, shifted, value.dtype.type(0))


def _right(value: Any, by: Any) -> Any:
    bits = 8 * value.itemsize
    shifted = value >> np.minimum(by, bits - 1).astype(value.dtype)
    return shifted if value.dtype.kind == "i" else np.where(by < bits, shifted, value.dtype.type(0))


def _quotient(a: Any, b: Any) -> Any:
    """Toward zero, as in C."""
    a, b = np.broadcast_arrays(a, b)
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = np.abs(a) // np.abs(safe)
    return np.where((a < 0) != (safe < 0), -quotient, quotient) if a.dtype.kind == "i" else quotient


def _remainder(a: Any, b: Any) -> Any:
    return a - _quotient(a, b) * b


def _bits_inserted(a: Any, into: Any, position: Any, length: Any) -> Any:
    mask = ((np.uint32(1) << length) - np.uint32(1)) << position
    return (a << position) & mask | into & ~mask


def _conversion(flags: list[str], to: str, source: str) -> Function:
    """To the type `to`, of at most one flag.

    Raises:
        Fault: it is not modelled.
    """
    dtype = dtype_of(to)
    flag = flags[0] if len(flags) == 1 else ""
    if source[0] != "f" and (flag == "rn" if to[0] == "f" else not flags):
        return lambda a: np.asarray(a).astype(dtype)
    if flag in ROUNDINGS and to == source == "f32":
        return ROUNDINGS[flag]
    if flag in ROUNDINGS and to == "s32":
        return lambda a: _saturated(ROUNDINGS[flag](a))
    if flag == "sat" and to == source == "f32":
        return lambda a: np.nan_to_num(np.clip(a, np.float32(0), np.float32(1)), nan=0.0)
    raise Fault(f"not modelled: cvt from {source} to {to} with {flags}")


def _saturated(value: Any) -> Any:
    """To 32 bits with a sign; NaN gives 0."""
    low, high = -(2.0**31), 2.0**31 - 1
    return np.clip(np.nan_to_num(value.astype(np.float64), nan=0.0), low, high).astype(np.int32)
