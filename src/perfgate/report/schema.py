"""The published schema of the report document, and a check by it that needs no other package.

`schema.json` uses a few of the keywords of JSON Schema 2020-12; these are what is checked here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

# Of what is not checked, what says nothing of the data.
SILENT = {"$schema", "$id", "title", "description", "$defs"}

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


@cache
def schema() -> dict[str, Any]:
    """The published schema."""
    text = files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def violations(data: Any) -> Iterator[str]:
    """What of a document is not as the schema says: where, what came and what was expected."""
    return _check(data, schema(), "the report")


def _check(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    if unknown := rule.keys() - SILENT - _KEYWORDS.keys():
        raise NotImplementedError(f"the schema uses {', '.join(sorted(unknown))}")
    if "type" in rule and not _is_of(data, rule["type"]):
        yield f"{where} is {_shown(data)}; expected {_listed(rule['type'])}"
        return
    for keyword in rule.keys() & _KEYWORDS.keys():
        yield from _KEYWORDS[keyword](data, rule, where)


def _is_of(data: Any, types: str | list[str]) -> bool:
    names = [types] if isinstance(types, str) else types
    if isinstance(data, bool):  # which is an int to Python
        return "boolean" in names
    if isinstance(data, float) and data.is_integer():
        return "number" in names or "integer" in names
    return any(isinstance(data, _TYPES[name]) for name in names)


def _ref(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    name = rule["$ref"].removeprefix("#/$defs/")
    return _check(data, schema()["$defs"][name], where)


def _const(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    if data != rule["const"]:
        yield f"{where} is {_shown(data)}; expected {rule['const']!r}"


def _enum(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(data, str) or data not in rule["enum"]:
        yield f"{where} is {_shown(data)}; expected one of {', '.join(rule['enum'])}"


def _minimum(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    if isinstance(data, (int, float)) and data < rule["minimum"]:
        yield f"{where} is {data!r}; expected at least {rule['minimum']}"


def _maximum(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    if isinstance(data, (int, float)) and data > rule["maximum"]:
        yield f"{where} is {data!r}; expected at most {rule['maximum']}"


def _required(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    for key in rule["required"]:
        if isinstance(data, dict) and key not in data:
            yield f"{where} has no {key!r}; expected one"


def _properties(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, part in rule["properties"].items():
        if isinstance(data, dict) and key in data:
            yield from _check(data[key], part, f"{where}.{key}")


def _others(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    others = data.keys() - rule.get("properties", {}).keys() if isinstance(data, dict) else ()
    for key in sorted(others):
        if rule["additionalProperties"] is False:
            yield f"{where} has {key!r}; expected nothing of that name"
        else:
            yield from _check(data[key], rule["additionalProperties"], f"{where}.{key}")


def _items(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    for index, item in enumerate(data if isinstance(data, list) else ()):
        yield from _check(item, rule["items"], f"{where}[{index}]")


def _no_more(data: Any, rule: Mapping[str, Any], where: str) -> Iterator[str]:
    return iter(())  # `type` comes first, above


_KEYWORDS: Mapping[str, Any] = {
    "type": _no_more,
    "$ref": _ref,
    "const": _const,
    "enum": _enum,
    "minimum": _minimum,
    "maximum": _maximum,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _others,
    "items": _items,
}


def _shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(types: str | list[str]) -> str:
    return types if isinstance(types, str) else " or ".join(types)
