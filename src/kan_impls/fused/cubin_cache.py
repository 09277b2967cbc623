"""Compiled kernels on disk: one file per kernel, shared by processes, trusted only if whole.

An entry is data, read as JSON and bytes. One that is truncated, altered or of another key
reads as absent and is written anew. A cache that cannot be written costs time, not results:
it warns once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

VARIABLE = "KAN_IMPLS_CACHE"

_MAGIC = b"kan-impls kernel 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 4
_SUFFIX = ".kernel"

_has_warned = False

# Why entries of this process could not be stored, one for each.
failures: list[str] = []


def folder() -> Path:
    """Where entries are kept: `KAN_IMPLS_CACHE`, or the platform's folder for caches.

    Raises:
        OSError: neither that variable nor a home folder is set.
    """
    chosen = os.environ.get(VARIABLE)
    try:
        if chosen:
            return Path(chosen).expanduser()
        # These few lines instead of a dependency that every user of the package would install.
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            base = Path(local) if local else Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            if not base.is_absolute():  # the specification: relative paths are ignored
                base = Path.home() / ".cache"
    except RuntimeError as error:  # what pathlib raises where there is no home folder
        raise OSError(f"there is no home folder ({error})") from error
    return base / "kan-impls"


def key(**ingredients: Any) -> str:
    """A name for what these ingredients, as JSON, make; another one if any of them changes."""
    text = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read(entry: str) -> tuple[dict[str, Any], bytes] | None:
    """Description and image stored under the key `entry`; None if absent or not intact."""
    try:
        content = (folder() / (entry + _SUFFIX)).read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST_BYTES
    digest, body = content[len(_MAGIC) : start], content[start:]
    if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    length = int.from_bytes(body[:_LENGTH_BYTES], "little")
    header, image = body[_LENGTH_BYTES : _LENGTH_BYTES + length], body[_LENGTH_BYTES + length :]
    try:
        description = json.loads(header)
    except (ValueError, RecursionError):  # of whoever can compute a digest
        return None
    # Another key is that of a file that was renamed.
    if not isinstance(description, dict) or description.pop("key", None) != entry:
        return None
    return description, image


def write(entry: str, description: dict[str, Any], image: bytes) -> None:
    """Store `description` (JSON) and `image` under the key `entry`, or warn once."""
    header = json.dumps({**description, "key": entry}).encode()
    body = len(header).to_bytes(_LENGTH_BYTES, "little") + header + image
    try:
        replace(folder() / (entry + _SUFFIX), _MAGIC + hashlib.sha256(body).digest() + body)
    except OSError as error:
        # Windows refuses to replace a file that another process reads: it has stored the same.
        if read(entry) is None:
            failures.append(str(error))
            warn_once(error)


def replace(path: Path, content: bytes) -> None:
    """Write a file, and its folders, that other processes see whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def warn_once(error: OSError) -> None:
    """Say, once in a process, that the folder cannot be written."""
    global _has_warned
    if _has_warned:
        return
    _has_warned = True
    warnings.warn(
        f"compiled kernels cannot be stored ({error}), so every process compiles and tests "
        f"them again; free space there, or set {VARIABLE} to a folder that can be written",
        RuntimeWarning,
        stacklevel=2,
    )


def describe() -> tuple[Path, int, int, str | None]:
    """Folder, number of entries, their bytes, and why it cannot be written (None if it can).

    Raises:
        OSError: there is no folder, see `folder`.
    """
    target = folder()
    sizes = []
    for path in target.glob("*" + _SUFFIX) if target.is_dir() else ():
        with contextlib.suppress(OSError):  # another process may have replaced it just now
            sizes.append(path.stat().st_size)
    try:
        replace(target / ".probe", b"")
        (target / ".probe").unlink(missing_ok=True)
    except OSError as error:
        return target, len(sizes), sum(sizes), str(error)
    return target, len(sizes), sum(sizes), None
