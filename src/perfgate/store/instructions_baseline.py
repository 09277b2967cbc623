"""The instructions that implementations are held to, in one readable file.

Counts belong to the environment that they were taken in: another build of torch, of the
interpreter or of the C library executes other instructions for the same code.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfgate.files import write_atomically
from perfgate.store.baseline import BaselineError
from perfgate.store.device_free_baseline import minor_version

ACCEPT = "pytest -m instructions --accept-instructions"

# A limit is known from so many processes.
FEWEST = 2

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """The instructions of an implementation.

    Args:
        shape: sizes and options in words; other ones are another measurement.
        passes: pass to instructions of a call, one figure per process.
    """

    shape: str
    passes: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Stored:
    """What is stored of an environment: implementation to entry."""

    environment: Environment
    entries: Mapping[str, Entry] = field(default_factory=dict)


def read(path: Path) -> list[Stored]:
    """What is stored, of all environments.

    Raises:
        BaselineError: the file cannot be read, or is damaged.
    """
    try:
        return [_parse(found) for found in json.loads(path.read_text("utf-8"))["stored"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be read ({error.strerror}); expected a readable file: check the path "
            "and its permissions"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BaselineError(
            f"{path} is damaged ({type(error).__name__}: {error}); expected JSON with 'stored': "
            "restore the file from version control, or remove it and store a new one with "
            f"{ACCEPT}"
        ) from error


def _parse(data: Any) -> Stored:
    environment = {str(name): str(value) for name, value in data["environment"].items()}
    entries = {
        implementation: Entry(
            str(found["shape"]),
            {name: _counts(counts) for name, counts in found["passes"].items()},
        )
        for implementation, found in data["implementations"].items()
    }
    return Stored(environment, entries)


def _counts(counts: Any) -> list[int]:
    if type(counts) is not list or len(counts) < FEWEST:
        raise TypeError(f"{counts!r} is no list of {FEWEST} or more counts")
    for count in counts:
        if type(count) is not int or not 0 < count < 2**63:
            raise TypeError(f"{count!r} is no number of instructions")
    return counts


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


def accept(
    path: Path, environment: Environment, measured: Mapping[str, Entry], known: Collection[str]
) -> None:
    """Store what was measured, beside what is stored of others and of other environments.

    Environments of another version of torch are dropped, as nothing is compared with them.

    Args:
        path: the file; made if it is not there.
        environment: where it was measured.
        measured: the new entries, by implementation.
        known: implementations that exist; others are dropped from this environment.

    Raises:
        BaselineError: the present file is damaged, or the new one cannot be written.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever writes meanwhile would lose what the other one stored.
        with FileLock(path.parent / ".lock"):
            write_atomically(path, _text(_replaced(read(path), environment, measured, known)))
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be written ({error.strerror}); expected a writable folder: change its "
            "permissions"
        ) from error


def _replaced(
    present: Sequence[Stored],
    environment: Environment,
    measured: Mapping[str, Entry],
    known: Collection[str],
) -> list[Stored]:
    version = minor_version(environment["torch"])
    others = [
        stored
        for stored in present
        if stored.environment != environment
        and minor_version(stored.environment.get("torch", "")) == version
    ]
    kept = next((s.entries for s in present if s.environment == environment), {})
    entries = {name: entry for name, entry in {**kept, **measured}.items() if name in known}
    return [*others, Stored(environment, entries)]


def _text(stored: Sequence[Stored]) -> str:
    data = [
        {
            "environment": dict(found.environment),
            "implementations": {
                name: {
                    "shape": entry.shape,
                    "passes": {name: list(counts) for name, counts in entry.passes.items()},
                }
                for name, entry in found.entries.items()
            },
        }
        for found in stored
    ]
    return json.dumps({"stored": data}, indent=1, sort_keys=True) + "\n"
