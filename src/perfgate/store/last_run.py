"""The last run of a folder, which `kan-bench accept` stores.

A run that ends early, or that nothing can be written of, leaves an older one in its place. So that
the older one is not taken for it, each run leaves word where it can always write, the system's
folder for temporary files, and takes it back once it is kept: its own word, not that of a run which
began after it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from pathlib import Path
from typing import Any

from perfgate.files import file_about, write_atomically
from perfgate.plain_text import one_line
from perfgate.store import baseline

_SUFFIX = ".unkept"


def begin(path: Path) -> None:
    """A run begins that is to be kept at `path`."""
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with contextlib.suppress(OSError):  # then the note at its end must do
        write_atomically(file_about(path, _SUFFIX), now + _own())


def keep(path: Path, text: str, table: str) -> None:
    """Keep a run and, as Markdown, its table beside it.

    Raises:
        OSError: they cannot be written; `begin` has told that no run is kept.
    """
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text)
    write_atomically(path.with_suffix(".md"), table)
    word = file_about(path, _SUFFIX)
    with contextlib.suppress(OSError):
        if word.read_text(encoding="utf-8", errors="replace").endswith(_own()):
            word.unlink()


def _own() -> str:
    return f" (process {os.getpid()})"


def read(path: Path, is_named: bool = False) -> dict[str, Any]:
    """The last run, in pytest-benchmark's JSON.

    Args:
        path: where it is kept.
        is_named: whether the user named the file, whatever run it holds.

    Raises:
        BaselineError: there is none, the last one was not kept, or it cannot be read.
    """
    word = file_about(path, _SUFFIX)
    if not is_named and word.exists():
        began = "a time that cannot be read"
        with contextlib.suppress(OSError):
            began = one_line(word.read_text(encoding="utf-8", errors="replace")[:60])
        raise baseline.BaselineError(
            f"the run that began at {began} was not kept, and {path} is of an older one, if it is "
            f"there; expected the last run: measure again, or store the older one with --run {path}"
        )
    try:
        return baseline.read_json(path)
    except baseline.BaselineError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise baseline.BaselineError(
            f"{path} does not exist; expected the last run: make one with "
            "pytest --benchmark-only, in the folder of the benchmarks"
        ) from error
