"""Accepted results on disk: `<directory>/<device key>/NNNN_<name>.json`.

The files are pytest-benchmark's own and lie as its storage lays them, so that
`pytest-benchmark --storage <directory> compare` reads them. Which device a file is of, the facts
tell that it recorded; its folder is where new ones of that device are stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from perfgate import files
from perfgate.fields import loads
from perfgate.files import write_atomically
from perfgate.judge import device_key as keys
from perfgate.judge.parse import parse_run
from perfgate.judge.record import Run
from perfgate.plain_text import one_line

FILE_NAME = re.compile(r"(\d{4,})_.*\.json")


class BaselineError(Exception):
    """A stored run cannot be read or written; the message says what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """The contents of a stored run, checked.

    Raises:
        BaselineError: the file cannot be read, or is no run.
    """
    try:
        data: dict[str, Any] = loads(path.read_text(encoding="utf-8"))
        parse_run(data)
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be read ({error.strerror}); expected a run in pytest-benchmark's "
            "JSON: check the path and its permissions"
        ) from error
    except ValueError as error:  # of characters, of JSON, or of what it says
        remedy = "name a file that kan-bench accept or pytest-benchmark wrote"
        if FILE_NAME.fullmatch(path.name):
            remedy = (
                "restore the file from version control, or remove it and store a new one with "
                "kan-bench accept"
            )
        raise BaselineError(
            f"{path} is not a complete run ({one_line(str(error))}); expected pytest-benchmark's "
            f"JSON: {remedy}"
        ) from error
    return data


def read_run(path: Path) -> Run:
    """A stored run.

    Raises:
        BaselineError: the file cannot be read, or is no run.
    """
    return parse_run(read_json(path))


def folder_of(directory: Path, device_key: str) -> Path:
    """Where the baselines for a device lie.

    Raises:
        BaselineError: the key, which may come from a stranger's file, is no name of a folder.
    """
    if not keys.PLAIN.fullmatch(device_key):
        raise BaselineError(
            f"the device key is {one_line(repr(device_key))[:100]}; expected letters, digits and "
            "any of . _ + - in it, as the plugin writes it: measure again on that device"
        )
    return directory / device_key


def stored(directory: Path, device_key: str) -> list[Path]:
    """The baselines for a device, oldest first, in whatever folder they lie.

    Raises:
        BaselineError: a folder is there and cannot be listed, so that nobody knows.
    """
    own = folder_of(directory, device_key)
    others = [folder for folder in _listed(directory) if folder.is_dir() and folder != own]
    paths = [path for folder in (own, *others) for path in _numbered(folder)]
    return sorted((path for path in paths if _key_of(path) == device_key), key=_number)


def misplaced(directory: Path, device_key: str) -> Path | None:
    """The newest of another device in this one's folder, which must not pass for none at all."""
    paths = _numbered(folder_of(directory, device_key))
    return max((path for path in paths if _key_of(path) != device_key), key=_number, default=None)


def _numbered(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if FILE_NAME.fullmatch(path.name)]


def _listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none."""
    try:
        return [folder / name for name in os.listdir(folder)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BaselineError(
            f"the baseline folder {folder} cannot be listed ({error.strerror}); expected a folder "
            "that can be read: change its permissions, or name another with --baselines"
        ) from error


def _number(path: Path) -> int:
    return int(path.name.split("_")[0])


def _key_of(path: Path) -> str:
    """The device that a file is of: without facts, or damaged, that of its folder."""
    with contextlib.suppress(OSError, BaselineError):
        key = _key_by_facts(path, path.stat().st_mtime_ns)
        if key is not None:
            return key
    return path.parent.name


@cache
def _key_by_facts(path: Path, mtime_ns: int) -> str | None:
    run = read_run(path)
    return None if keys.device_key(run.environment) is None else run.device_key


def history(directory: Path, device_key: str) -> list[Run]:
    """All baselines for a device that can be read, oldest first."""
    runs = []
    with contextlib.suppress(BaselineError):
        for path in stored(directory, device_key):
            with contextlib.suppress(BaselineError):
                runs.append(read_run(path))
    return runs


def newest_runs(directory: Path) -> list[Run]:
    """Of each device the newest baseline that can be read.

    Raises:
        BaselineError: the folder cannot be listed.
    """
    folders = [folder for folder in sorted(_listed(directory)) if folder.is_dir()]
    found = (history(directory, _key_of(path)) for f in folders for path in _numbered(f)[:1])
    return [runs[-1] for runs in found if runs]


def find(directory: Path, device_key: str, wanted: str | None = None) -> Path | None:
    """The newest baseline for a device, or the one that is `wanted`.

    Args:
        directory: where baselines are stored.
        device_key: the folder of this device.
        wanted: a path, or the number of a stored baseline such as `0002`.

    Raises:
        BaselineError: there is none such as wanted.
    """
    candidates = stored(directory, device_key)
    if wanted is None:
        return candidates[-1] if candidates else None
    with contextlib.suppress(OSError, ValueError):  # no name that a file can have
        if Path(wanted).is_file():
            return Path(wanted)
    for path in candidates:
        if wanted.isdigit() and _number(path) == int(wanted):
            return path
    names = ", ".join(path.name for path in candidates) or "none"
    raise BaselineError(
        f"the baseline {wanted!r} does not exist; expected a file, or the number of one of "
        f"those stored for {device_key} ({names}): correct it, or leave it out for the newest"
    )


def forerunners(
    directory: Path,
    device_key: str,
    newest: Path,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """The baselines that `newest` goes on from, oldest first.

    A run that was accepted as a new history is as far back as its followers are compared. One
    that cannot be read is left out: it is no reason not to judge by the others.

    Args:
        directory, device_key: where they are.
        newest: the one that goes on from them.
        say: hears of those that cannot be read.
    """
    found: list[Path] = []
    paths = [path.resolve() for path in stored(directory, device_key)]
    if newest.resolve() not in paths:
        return []
    for path in reversed(paths[: paths.index(newest.resolve()) + 1]):
        try:
            run = read_run(path)
        except BaselineError as error:
            say(f"an older baseline is left out: {error}")
            continue
        found.append(path)
        if run.anchor is not None:
            break
    return found[:0:-1]


@contextlib.contextmanager
def changing(
    directory: Path, device_key: str, say: Callable[[str], None] = lambda text: None
) -> Iterator[Path]:
    """The folder of a device, for the only process that changes it now.

    Args:
        directory, device_key: which.
        say: hears that another process has it, before this one waits.

    Raises:
        BaselineError: the folder cannot be written.
    """
    folder = folder_of(directory, device_key)
    try:
        with files.locked(folder, say):
            files.remove_leftovers(folder)
            yield folder
    except OSError as error:
        raise BaselineError(
            f"the baseline folder {folder} cannot be written ({error.strerror}); expected a "
            "writable folder: change its permissions, or name another with --baselines"
        ) from error


def write_next(folder: Path, data: dict[str, Any], name: str) -> Path:
    """Write a run as the newest baseline of a folder that is being changed; earlier ones stay.

    Raises:
        OSError: the file cannot be written.
        BaselineError: the folder cannot be listed.
    """
    taken = [*stored(folder.parent, folder.name), *_numbered(folder)]
    number = 1 + max(map(_number, taken), default=0)
    path = folder / f"{number:04}_{name}.json"
    write_atomically(path, json.dumps(data, indent=1) + "\n")
    return path
