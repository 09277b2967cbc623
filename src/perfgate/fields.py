"""Fields of JSON that somebody else may have written: each is of the kind that is expected.

Every function takes a value and where it stands, which its error names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# No file of ours is deeper than ten levels; what reads one may recurse.
DEEPEST = 100

# Sums, products and squares of such numbers are finite and not zero.
GREATEST = 1e150
LEAST = 1e-150

# The greatest whole number that every reader of JSON takes exactly.
GREATEST_COUNT = 2**53


class FieldError(ValueError):
    """A field is of the wrong kind; the message says where, what came and what was expected."""


def loads(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or nested deeper than `DEEPEST`.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise FieldError(f"it is nested deeper than {DEEPEST} levels") from error
    level = [value]
    for _ in range(DEEPEST):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return value
    raise FieldError(f"it is nested deeper than {DEEPEST} levels")


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(value, where, "an object")
    return value


def sequence(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, where, "an array")
    return value


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(value, where, "a text")
    return value


def positive(value: Any, where: str) -> float:
    if not _is_number(value) or not LEAST < value < GREATEST:
        raise _wrong(value, where, "a positive number")
    return float(value)


def count(value: Any, where: str) -> int:
    if not _is_number(value) or not 0 <= value <= GREATEST_COUNT or value != int(value):
        raise _wrong(value, where, "a count, 0 or more")
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong(value: Any, where: str, expected: str) -> FieldError:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # more digits than Python converts
        shown = f"a {type(value).__name__}"
    if len(shown) > 60:
        shown = f"{shown[:57]}..."
    return FieldError(f"{where}: {shown} where {expected} belongs")


def member(whole: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in whole:
        raise FieldError(f"{where}.{key}: it is missing")
    return whole[key]
