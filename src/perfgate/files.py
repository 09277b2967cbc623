"""Files that several processes read and write: whole or not at all, and one writer at a time.

What a killed process leaves has its process id in the name, so that the next one can tell it from
what a living one still uses.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

LOCK = ".lock"

# How folders for temporary files begin, before the id of the process that made them.
FOLDERS = "kan-bench"
_FOLDER = re.compile(rf"{FOLDERS}-(?:tree-)?(\d+)-\w+")
_TEMPORARY = re.compile(r"\..+\.(\d+)-\w+\.tmp")


def write_atomically(path: Path, text: str) -> None:
    """Write a file in full or not at all: readers see the old one until the new is complete.

    What a killed process left of the same file is removed.

    Raises:
        OSError: it cannot be written; the old file is as it was.
    """
    remove_leftovers(path.parent)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:100]}.{os.getpid()}-", suffix=".tmp"
    )
    try:
        # Half of a character, which a name may hold, is written as its code.
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the folder itself may be gone
            os.unlink(temporary)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if (match := _TEMPORARY.fullmatch(name)) and is_of_the_dead(match):
                with contextlib.suppress(OSError):  # another one removed it
                    os.unlink(folder / name)


def remove_folders() -> None:
    """Remove the temporary folders of killed processes."""
    place = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        for name in os.listdir(place):
            if (match := _FOLDER.fullmatch(name)) and is_of_the_dead(match):
                shutil.rmtree(os.path.join(place, name), ignore_errors=True)


def is_of_the_dead(match: re.Match[str]) -> bool:
    """Whether the process is gone whose id is the match's first group."""
    return not psutil.pid_exists(int(match[1]))


@contextlib.contextmanager
def temporary_folder(of: str = "") -> Iterator[Path]:
    """A folder that goes at the end; `remove_folders` knows it, if this process is killed.

    Args:
        of: what it is for, such as `tree-`; a part of its name.
    """
    prefix = f"{FOLDERS}-{of}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()


@contextlib.contextmanager
def locked(
    folder: Path, say: Callable[[str], None] = lambda text: None, beside: bool = True
) -> Iterator[None]:
    """Be the only one who changes a folder: read, change and write belong under one lock.

    Args:
        folder: which; it is made if it is not there.
        say: hears that another process holds the lock, before this one waits for it.
        beside: whether the lock lies in the folder itself, where it works for all machines that
            share the folder; else it is one for all folders of this user on this machine.

    Raises:
        OSError: the folder cannot be made or written.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK if beside else _file_of_user(LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process stores in {folder}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def file_about(path: Path, suffix: str) -> Path:
    """A file of this user in the system's temporary folder that tells of another path."""
    whole = os.path.realpath(path).encode(errors="surrogateescape")
    return _file_of_user(f"-{hashlib.sha256(whole).hexdigest()[:16]}{suffix}")


def _file_of_user(suffix: str) -> Path:
    user = getpass.getuser() if os.name == "nt" else str(os.getuid())
    return Path(tempfile.gettempdir(), f"{FOLDERS}-of-{user}{suffix}")
