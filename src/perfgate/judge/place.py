"""Our place in pytest-benchmark's JSON, which has room for others: one key in each of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfgate.fields import mapping

OURS = "perfgate"
# What the key was called while the gate was a part of kan_impls; files keep it.
EARLIER = "kan_impls"


def key_in(whole: Mapping[str, Any]) -> str:
    """By which of its names our place is found in a part."""
    return EARLIER if EARLIER in whole and OURS not in whole else OURS


def ours(whole: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What is ours in a part; nothing if it has no place for us.

    Raises:
        FieldError: something else stands there.
    """
    key = key_in(whole)
    return mapping(whole.get(key, {}), f"{where}.{key}")
