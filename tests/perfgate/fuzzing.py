"""Contents of files that a stranger, a full disk or an editor may have made."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Values that another kind of value is taken for, and the ends of what numbers can be.
ODD = [
    *(None, True, False, 0, -1, 1, 0.5, "", "x", [], {}, [[]], [{}], {"": None}),
    *(2**53 + 1, 2**63, 10**400, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
    *("\0", "\ud800", "\u202e", "::error::", "../x", "a" * 5000, "1", "NaN"),
]
JSON = st.recursive(
    # Copies: what is changed in one example would be in all that follow, and hold itself at last.
    st.sampled_from(ODD).map(copy.deepcopy) | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the parts of a JSON value are; the whole is at ()."""
    yield path
    parts = value.items() if isinstance(value, dict) else ()
    parts = enumerate(value) if isinstance(value, list) else parts
    for key, part in parts:
        yield from places(part, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, doubled or renamed."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(value))))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                value = draw(JSON)
            continue
        whole, key = value, path[-1]
        for step in path[:-1]:
            whole = whole[step]
        change = draw(st.sampled_from(["replace", "replace", "remove", "double", "rename"]))
        if change == "replace":
            whole[key] = draw(JSON)
        elif change == "remove":
            del whole[key]
        elif change == "double" and isinstance(whole, list):
            whole.append(whole[key])
        elif change == "rename" and isinstance(whole, dict):
            whole[draw(st.text(max_size=8))] = whole.pop(key)
        else:
            whole[key] = [whole[key]]
    return value


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes that were cut, or of which some were overwritten, removed or put in."""
    start = draw(st.integers(0, len(valid)))
    end = draw(st.integers(start, min(len(valid), start + 40)))
    rest = valid[end:] if draw(st.booleans()) else b""
    return valid[:start] + draw(st.binary(max_size=8)) + rest


def contents(valid: bytes, is_json: bool = True) -> st.SearchStrategy[bytes]:
    """What may be found where a file such as `valid` belongs."""
    wrong = st.binary(max_size=200) | damaged(valid)
    if not is_json:
        return wrong
    texts = (mutated(json.loads(valid)) | JSON).map(json.dumps)
    return texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | wrong


# Fewer examples are those of `make test`.
MANY = 100


def fuzz(contents: st.SearchStrategy[Any], examples: int, run: Callable[[Any], None]) -> None:
    """Call `run` with so many contents; what it raises is a fault, with its smallest content."""
    check = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < MANY,  # those of every commit are the same
        suppress_health_check=list(HealthCheck),
    )
    check(given(contents)(run))()


def outcome(load: Callable[[], Any], *documented: type[Exception]) -> tuple[Any, str | None]:
    """What a loader returns, or the sentence of an exception that it documents."""
    try:
        return load(), None
    except documented as error:
        return None, str(error)
