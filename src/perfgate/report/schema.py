"""The published schema of the report document, and a check by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

LONGEST = 200


@cache
def schema() -> dict[str, Any]:
    """The published schema."""
    text = files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def violations(data: Any) -> Iterator[str]:
    """What of a document is not as the schema says: where, what came and what was expected."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema()).iter_errors(data):
        said = error.message
        said = said if len(said) <= LONGEST else f"{said[: LONGEST - 3]}..."
        yield f"{_place(error.absolute_path)}: {said}"


def _place(path: Iterable[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"the report{''.join(parts)}"
