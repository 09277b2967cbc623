"""Exact figures of implementations in one readable file: read, joined, and written as a whole.

A file holds entries of one or more environments. What an environment is, which figures an entry
has and how they lie in the file, each `Store` says for itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfgate.fields import loads
from perfgate.files import LOCK, write_atomically
from perfgate.store.baseline import BaselineError

# Reading and writing the file takes milliseconds: who holds the lock for longer hangs.
LOCK_SECONDS = 60


@dataclass(frozen=True)
class Entry:
    """The figures of an implementation.

    Args:
        shape: sizes and options in words; other ones are another measurement.
        passes: pass to its figures.
    """

    shape: str
    passes: Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """What is stored of an environment: entries by a key, whose text names it."""

    environment: Any
    entries: Mapping[Any, Entry] = field(default_factory=dict)


# Sentences of what changed in a pass, from its name, its stored figures and those of now.
Changed = Callable[[str, Any, Any], Iterable[str]]


def minor_version(version: str) -> str:
    """`2.13` of `2.13.0+cpu`."""
    return ".".join(version.split(".")[:2])


def entries_of(data: Any, figures: Callable[[Any], Any]) -> dict[str, Entry]:
    """Entries as they lie in a file, by name; `figures` checks those of a pass."""
    return {
        name: Entry(
            str(found["shape"]), {of: figures(value) for of, value in found["passes"].items()}
        )
        for name, found in data.items()
    }


@dataclass(frozen=True)
class Store:
    """A kind of files, and what its messages say.

    Args:
        accept_command: what stores figures.
        expected: what the JSON of a file has, in words.
        measured: what is done to get figures, as a participle.
        parse: contents of a file to what is stored; may raise what a wrong type or key raises.
        data: the way back.
        torch: the minor version of torch of an environment.
    """

    accept_command: str
    expected: str
    measured: str
    parse: Callable[[Any], list[Stored]]
    data: Callable[[Sequence[Stored]], Any]
    torch: Callable[[Any], str]

    def read(self, path: Path) -> list[Stored]:
        """What is stored, of all environments; nothing where there is no file.

        Raises:
            BaselineError: the file cannot be read, or is damaged.
        """
        try:
            return self.parse(loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BaselineError(
                f"{path} cannot be read ({error.strerror}); expected a readable file: check the "
                "path and its permissions"
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BaselineError(
                f"{path} is damaged ({type(error).__name__}: {error}); expected JSON with "
                f"{self.expected}: restore the file from version control, or remove it and store a "
                f"new one with {self.accept_command}"
            ) from error

    def accept(
        self, path: Path, environment: Any, measured: Mapping[Any, Entry], known: Collection[Any]
    ) -> None:
        """Store what was measured, beside what is stored of others and of other environments.

        Of another version of torch nothing is kept, as nothing is compared with it: an entry that
        is not measured anew is then missing, and not wrong.

        Args:
            path: the file; made if it is not there.
            environment: where it was measured.
            measured: the new entries.
            known: all that may be stored of this environment; others are dropped.

        Raises:
            BaselineError: the present file is damaged, another process keeps it locked, or the new
                one cannot be written.
        """
        from filelock import FileLock, Timeout

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Of two at once, the later reads what the earlier wrote.
            with FileLock(path.parent / LOCK, timeout=LOCK_SECONDS):
                stored = self._joined(self.read(path), Stored(environment, measured), known)
                text = json.dumps(self.data(stored), indent=1, sort_keys=True)
                write_atomically(path, text + "\n")
        except Timeout as error:
            raise BaselineError(
                f"{path} has been locked by another process for {LOCK_SECONDS} s; expected it to "
                "be free within milliseconds: end the process that stores figures, and try again"
            ) from error
        except OSError as error:
            raise BaselineError(
                f"{path} cannot be written ({error.strerror}); expected a writable folder: change "
                "its permissions"
            ) from error

    def _joined(
        self, present: Sequence[Stored], now: Stored, known: Collection[Any]
    ) -> list[Stored]:
        """What is stored in future."""
        torch, here = self.torch(now.environment), now.environment
        kept = next((stored.entries for stored in present if stored.environment == here), {})
        entries = {key: entry for key, entry in {**kept, **now.entries}.items() if key in known}
        others = [
            s for s in present if s.environment != here and self.torch(s.environment) == torch
        ]
        return [*others, Stored(here, entries)]

    def differences(
        self, stored: Stored, key: Any, now: Entry, subject: str, changed: Changed, size: str = ""
    ) -> list[str]:
        """What is not as stored, a sentence each; empty if all is.

        Args:
            stored: of the same environment.
            key, now: what was measured.
            subject: what messages call it.
            changed: what is to say of each pass.
            size: what comes before "stored at", where the subject does not say the sizes.
        """
        before = stored.entries.get(key)
        if before is None:
            wrong = "not stored; expected an entry to compare with: add it"
        elif before.shape != now.shape:
            wrong = (
                f"{size}stored at {before.shape}; expected the same sizes: undo the change, or "
                "accept it"
            )
        elif before.passes.keys() != now.passes.keys():
            wrong = (
                f"stored with other passes than the measured {', '.join(now.passes)}; expected the "
                "same ones: store them"
            )
        else:
            old, new = before.passes, now.passes
            return [text for name in new for text in changed(name, old[name], new[name])]
        return [f"{subject} is {wrong} with {self.accept_command}"]

    def worse(self, change: str, expected: str) -> str:
        """The sentence of a figure that grew."""
        remedy = f"take it back, or accept it with {self.accept_command}"
        return f"{change}; expected no {expected}: {remedy}"

    def better(self, change: str) -> str:
        """The sentence of a figure that shrank."""
        remedy = f"refresh, so that the baseline stays honest, with {self.accept_command}"
        return f"{change}, improved: {remedy}"

    def unknown(self, stored: Stored, known: Collection[Any]) -> list[str]:
        """Of the entries that nothing is measured for any more, a sentence each."""
        return [
            f"{key} is stored, but no longer {self.measured}; expected only what exists: drop it "
            f"with {self.accept_command}"
            for key in stored.entries
            if key not in known
        ]
