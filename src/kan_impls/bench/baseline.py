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
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from kan_impls.bench import device_key as keys
from kan_impls.bench.record import InvalidRunError, Run, parse_run

FILE_NAME = re.compile(r"(\d{4,})_.*\.json")


class BaselineError(Exception):
    """A stored run cannot be read or written; the message says what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """The contents of a stored run, checked.

    Raises:
        BaselineError: the file cannot be read, or is no run.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        parse_run(data)
    except OSError as error:
        raise BaselineError(
            f"{path} cannot be read ({error.strerror}); expected a run in pytest-benchmark's "
            "JSON: check the path and its permissions"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, InvalidRunError) as error:
        raise BaselineError(
            f"{path} is not a complete run ({error}); expected pytest-benchmark's JSON: restore "
            "the file from version control, or remove it and store a new one with kan-bench accept"
        ) from error
    return data


def read_run(path: Path) -> Run:
    """A stored run.

    Raises:
        BaselineError: the file cannot be read, or is no run.
    """
    return parse_run(read_json(path))


def stored(directory: Path, device_key: str) -> list[Path]:
    """The baselines for a device, oldest first, in whatever folder they lie."""
    return [path for path in _numbered(directory, "*") if _key_of(path) == device_key]


def misplaced(directory: Path, device_key: str) -> Path | None:
    """The newest of another device in this one's folder, which must not pass for none at all."""
    others = (p for p in _numbered(directory, device_key) if _key_of(p) != device_key)
    return max(others, key=_number, default=None)


def _numbered(directory: Path, folder: str) -> list[Path]:
    paths = directory.glob(f"{folder}/*.json")
    return sorted((path for path in paths if FILE_NAME.fullmatch(path.name)), key=_number)


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
    for path in stored(directory, device_key):
        with contextlib.suppress(BaselineError):
            runs.append(read_run(path))
    return runs


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


def forerunners(directory: Path, device_key: str, newest: Path) -> list[Path]:
    """The baselines that `newest` goes on from, oldest first.

    A run that was accepted as a new history is as far back as its followers are compared.

    Raises:
        BaselineError: one of them cannot be read.
    """
    found: list[Path] = []
    paths = [path.resolve() for path in stored(directory, device_key)]
    if newest.resolve() not in paths:
        return []
    for path in reversed(paths[: paths.index(newest.resolve()) + 1]):
        found.append(path)
        if read_run(path).anchor is not None:
            break
    return found[:0:-1]


def store(directory: Path, device_key: str, data: dict[str, Any], name: str) -> Path:
    """Write a run as the newest baseline for a device; earlier ones stay.

    Raises:
        BaselineError: the folder cannot be written.
    """
    from filelock import FileLock

    folder = directory / device_key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two at once must not choose the same number.
        with FileLock(folder / ".lock"):
            taken = [*stored(directory, device_key), *_numbered(directory, device_key)]
            number = 1 + max(map(_number, taken), default=0)
            path = folder / f"{number:04}_{name}.json"
            write_atomically(path, json.dumps(data, indent=1) + "\n")
    except OSError as error:
        raise BaselineError(
            f"the baseline folder {folder} cannot be written ({error.strerror}); expected a "
            "writable folder: change its permissions, or name another with --baselines"
        ) from error
    return path


def write_atomically(path: Path, text: str) -> None:
    """Write a file in full or not at all: readers see the old one until the new is complete."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
