"""The figures that the device-free gate holds implementations to, in one readable file.

An entry for each case and implementation: bytes, operator calls, FLOPs and traffic of its passes.
The file says of which torch they are, because the operators that an operation is made of change
from one version to the next. A file that holds bytes only, as older ones do, is read: they are
judged, and what it lacks is named.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from perfgate.files import write_atomically
from perfgate.store.baseline import BaselineError

ACCEPT = "pytest benchmarks/test_memory.py --accept-memory"

# Reading and writing the file takes milliseconds: who holds the lock for longer hangs.
LOCK_SECONDS = 60


class Key(NamedTuple):
    """What an entry is of: names of a case and of an implementation."""

    case: str
    implementation: str


@dataclass(frozen=True)
class Entry:
    """The figures of an implementation at a case.

    Args:
        shape: sizes and options in words; other ones are another measurement.
        passes: pass to kind (`forward_peak_bytes`, `backward_flops`, ...) to figure.
    """

    shape: str
    passes: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Stored:
    """The contents of the file.

    Args:
        torch: major and minor version, such as `2.13`.
        entries: what is stored.
    """

    torch: str
    entries: Mapping[Key, Entry] = field(default_factory=dict)


def minor_version(version: str) -> str:
    """`2.13` of `2.13.0+cpu`."""
    return ".".join(version.split(".")[:2])


def incomparable(stored: Stored, torch_version: str) -> str | None:
    """Why the stored figures are none to compare with under this `torch.__version__`, if so."""
    version = minor_version(torch_version)
    if stored.torch == version:
        return None
    return (
        f"the stored figures are those of torch {stored.torch}, and torch {version} may make its "
        f"operations of other operators; expected the same version: install it, or store "
        f"those of this one with {ACCEPT}"
    )


def read(path: Path) -> Stored:
    """What is stored.

    Raises:
        BaselineError: the file is not there, cannot be read, or is damaged.
    """
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BaselineError(
            f"{path} does not exist; expected figures to compare with: store them with {ACCEPT}"
        ) from error
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be read ({error.strerror}); expected a readable file: check the path "
            "and its permissions"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BaselineError(
            f"{path} is damaged ({type(error).__name__}: {error}); expected JSON with 'torch' and "
            "'cases': restore the file from version control, or remove it and store a new one "
            f"with {ACCEPT}"
        ) from error


def _parse(data: Any) -> Stored:
    entries = {}
    for case, implementations in data["cases"].items():
        for implementation, found in implementations.items():
            passes = {
                name: {kind: _count(figure) for kind, figure in figures.items()}
                for name, figures in found["passes"].items()
            }
            entries[Key(case, implementation)] = Entry(str(found["shape"]), passes)
    return Stored(str(data["torch"]), entries)


def _count(figure: Any) -> int:
    if type(figure) is not int:
        raise TypeError(f"{figure!r} is no whole number")
    return figure


def accept(
    path: Path, torch_version: str, measured: Mapping[Key, Entry], known: Collection[Key]
) -> None:
    """Store what was measured, beside what is stored of the others.

    Of another version of torch nothing is kept: an entry that is not measured anew is then
    missing, and not wrong.

    Args:
        path: the file; made if it is not there.
        torch_version: `torch.__version__`.
        measured: the new entries.
        known: all that may be in the file; others are dropped.

    Raises:
        BaselineError: the present file is damaged, another process keeps it locked, or the new one
            cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of two at once, the later reads what the earlier wrote.
        with FileLock(path.parent / ".lock", timeout=LOCK_SECONDS):
            _write(path, _joined(path, minor_version(torch_version), measured, known))
    except Timeout as error:
        raise BaselineError(
            f"{path} has been locked by another process for {LOCK_SECONDS} s; expected it to be "
            "free within milliseconds: end the process that stores figures, and try again"
        ) from error
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be written ({error.strerror}); expected a writable folder: change its "
            "permissions"
        ) from error


def _joined(
    path: Path, version: str, measured: Mapping[Key, Entry], known: Collection[Key]
) -> Stored:
    """What is stored in future."""
    present = read(path) if path.exists() else Stored(version)
    kept = present.entries if present.torch == version else {}
    joined = {**kept, **measured}
    return Stored(version, {key: entry for key, entry in joined.items() if key in known})


def _write(path: Path, stored: Stored) -> None:
    cases: dict[str, Any] = {}
    for key, entry in stored.entries.items():
        passes = {name: dict(figures) for name, figures in entry.passes.items()}
        of_case = cases.setdefault(key.case, {})
        of_case[key.implementation] = {"shape": entry.shape, "passes": passes}
    text = json.dumps({"torch": stored.torch, "cases": cases}, indent=1, sort_keys=True) + "\n"
    write_atomically(path, text)


def differences(stored: Stored, key: Key, now: Entry) -> list[str]:
    """What is not as stored, a sentence each; empty if all is.

    Args:
        stored: of the same version of torch.
        key: what was measured.
        now: its bytes.
    """
    subject = f"{key.implementation} at {key.case}"
    before = stored.entries.get(key)
    if before is None:
        return [f"{subject} is not stored; expected an entry to compare with: add it with {ACCEPT}"]
    if before.shape != now.shape:
        return [
            f"{subject} is measured at {now.shape}, but stored at {before.shape}; expected the "
            f"same sizes: undo the change, or accept it with {ACCEPT}"
        ]
    if before.passes.keys() != now.passes.keys():
        return [
            f"{subject} is stored with other passes than the measured {', '.join(now.passes)}; "
            f"expected the same ones: store them with {ACCEPT}"
        ]
    return [
        sentence
        for name, figures in now.passes.items()
        for sentence in _changed(f"{subject}, {name}", before.passes[name], figures)
    ]


def _changed(subject: str, before: Mapping[str, int], now: Mapping[str, int]) -> Iterator[str]:
    for kind, new in now.items():
        old, unit = before.get(kind, new), " B" if "bytes" in kind else ""
        if new == old:
            continue
        change = f"{subject}: {kind} was {old:,}{unit} and is {new:,}{unit} ({new - old:+,}{unit})"
        if new > old:
            yield f"{change}; expected no growth: take it back, or accept it with {ACCEPT}"
        else:
            yield f"{change}, improved: refresh, so that the baseline stays honest, with {ACCEPT}"
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


def unknown(stored: Stored, known: Collection[Key]) -> list[str]:
    """Of the entries that nothing is measured for any more, a sentence each."""
    return [
        f"{key.implementation} at {key.case} is stored, but no longer measured; expected only "
        f"implementations and cases that exist: drop it with {ACCEPT}"
        for key in stored.entries
        if key not in known
    ]
