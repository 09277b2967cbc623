"""The instructions that implementations are held to, in one readable file.

Counts belong to the environment that they were taken in: another build of torch, of the
interpreter or of the C library executes other instructions for the same code. An entry is of an
implementation, and a pass has one figure per process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perfgate.store.exact import Store, Stored, entries_of, minor_version

ACCEPT = "pytest -m instructions --accept-instructions"

# A limit is known from so many processes.
FEWEST = 2

Environment = Mapping[str, str]


def _parse(data: Any) -> list[Stored]:
    return [
        Stored(
            {str(name): str(value) for name, value in found["environment"].items()},
            entries_of(found["implementations"], _counts),
        )
        for found in data["stored"]
    ]


def _counts(counts: Any) -> list[int]:
    if type(counts) is not list or len(counts) < FEWEST:
        raise TypeError(f"{counts!r} is no list of {FEWEST} or more counts")
    for count in counts:
        if type(count) is not int or not 0 < count < 2**63:
            raise TypeError(f"{count!r} is no number of instructions")
    return counts


def _data(stored: Sequence[Stored]) -> dict[str, Any]:
    return {
        "stored": [
            {
                "environment": dict(found.environment),
                "implementations": {name: asdict(entry) for name, entry in found.entries.items()},
            }
            for found in stored
        ]
    }


def _torch(environment: Environment) -> str:
    return minor_version(environment.get("torch", ""))


STORE = Store(ACCEPT, "'stored'", "counted", _parse, _data, _torch)

read, accept, unknown = STORE.read, STORE.accept, STORE.unknown


def of_environment(path: Path, environment: Environment) -> Stored:
    """What is stored of this very environment.

    Raises:
        LookupError: nothing is; the message names what differs from the nearest one.
        BaselineError: as `read`.
    """
    found = read(path)
    for stored in found:
        if stored.environment == environment:
            return stored
    nearest = min(
        (_unlike(stored.environment, environment) for stored in found), key=len, default=[]
    )
    raise LookupError(
        f"no instructions are stored of this environment ({'; '.join(nearest) or 'of none'}), and "
        "other builds execute other instructions for the same code; expected stored ones: store "
        f"them with {ACCEPT}, or compare with a revision: --instructions-base main"
    )


def _unlike(stored: Environment, now: Environment) -> list[str]:
    """Each fact of this environment that the stored one does not share."""
    return [
        f"{name} {value!r}, stored {stored.get(name)!r}"
        for name, value in now.items()
        if stored.get(name) != value
    ]
