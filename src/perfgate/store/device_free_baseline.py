"""The figures that the device-free gate holds implementations to, in one readable file.

An entry for each case and implementation: bytes, operator calls, FLOPs and traffic of its passes,
by kind (`forward_peak_bytes`, `backward_flops`, ...). The environment is a minor version of torch,
such as `2.13`, because the operators that an operation is made of change from one to the next. A
file that holds bytes only, as older ones do, is read: they are judged, and what it lacks is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from perfgate.store.baseline import BaselineError
from perfgate.store.exact import Entry, Store, Stored, entries_of, minor_version

ACCEPT = "pytest benchmarks/test_memory.py --accept-memory"


class Key(NamedTuple):
    """What an entry is of: names of a case and of an implementation."""

    case: str
    implementation: str

    def __str__(self) -> str:
        return f"{self.implementation} at {self.case}"


def _parse(data: Any) -> list[Stored]:
    entries = {
        Key(case, implementation): entry
        for case, implementations in data["cases"].items()
        for implementation, entry in entries_of(implementations, _figures).items()
    }
    return [Stored(str(data["torch"]), entries)]


def _figures(of_pass: Any) -> dict[str, int]:
    for figure in of_pass.values():
        if type(figure) is not int:
            raise TypeError(f"{figure!r} is no whole number")
    return dict(of_pass)


def _data(stored: Sequence[Stored]) -> dict[str, Any]:
    [of_version] = stored
    cases: dict[str, Any] = {}
    for key, entry in of_version.entries.items():
        cases.setdefault(key.case, {})[key.implementation] = asdict(entry)
    return {"torch": of_version.environment, "cases": cases}


STORE = Store(ACCEPT, "'torch' and 'cases'", "measured", _parse, _data, str)

unknown = STORE.unknown


def incomparable(stored: Stored, torch_version: str) -> str | None:
    """Why the stored figures are none to compare with under this `torch.__version__`, if so."""
    version = minor_version(torch_version)
    if stored.environment == version:
        return None
    return (
        f"the stored figures are those of torch {stored.environment}, and torch {version} may make "
        "its operations of other operators; expected the same version: install it, or store "
        f"those of this one with {ACCEPT}"
    )


def read(path: Path) -> Stored:
    """What is stored.

    Raises:
        BaselineError: the file is not there, cannot be read, or is damaged.
    """
    for stored in STORE.read(path):
        return stored
    raise BaselineError(
        f"{path} does not exist; expected figures to compare with: store them with {ACCEPT}"
    )


def accept(
    path: Path, torch_version: str, measured: Mapping[Key, Entry], known: Collection[Key]
) -> None:
    """Store what was measured under a `torch.__version__`; see `Store.accept`."""
    STORE.accept(path, minor_version(torch_version), measured, known)


def differences(stored: Stored, key: Key, now: Entry) -> list[str]:
    """What is not as stored, a sentence each; empty if all is.

    Args:
        stored: of the same version of torch.
        key: what was measured.
        now: its figures.
    """
    size = f"measured at {now.shape}, but "
    return STORE.differences(stored, key, now, str(key), partial(_changed, key), size)


def _changed(
    key: Key, pass_name: str, before: Mapping[str, int], now: Mapping[str, int]
) -> Iterator[str]:
    subject = f"{key}, {pass_name}"
    for kind, new in now.items():
        old, unit = before.get(kind, new), " B" if "bytes" in kind else ""
        change = f"{subject}: {kind} was {old:,}{unit} and is {new:,}{unit} ({new - old:+,}{unit})"
        if new > old:
            yield STORE.worse(change, "growth")
        elif new < old:
            yield STORE.better(change)
    if missing := [kind for kind in now if kind not in before]:
        yield (
            f"{subject}: {', '.join(missing)} not stored; expected every figure that is measured: "
            f"add what is missing with {ACCEPT}"
        )
    if gone := [kind for kind in before if kind not in now]:
        yield (
            f"{subject}: {', '.join(gone)} stored, but no longer measured; expected only figures "
            f"that exist: drop the others with {ACCEPT}"
        )
