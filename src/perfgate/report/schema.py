"""The published schema of the report document, and a check by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from perfgate.report.templates import file_text

LONGEST = 200


@cache
def schema() -> dict[str, Any]:
    """The published schema."""
    content: dict[str, Any] = json.loads(file_text("schema.json"))
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
