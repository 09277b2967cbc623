"""What was found out about a GPU, on disk: one small JSON file for each decision.

A decision holds in one environment (GPU, driver, compiler, sources) for one subject. Its file lies
in a folder of the environment, states both, and is replaced as a whole: processes need no lock. A
file that is truncated, foreign or of another subject reads as absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kan_impls.fused import cubin_cache

# Of the files' form, and part of their path: files of another form are never read.
SCHEMA = 1

_SUFFIX = ".json"

Environment = Mapping[str, str]
Decision = dict[str, Any]


def folder_of(kind: str, environment: Environment) -> Path:
    """Where the decisions of one kind lie that hold in one environment.

    Raises:
        OSError: there is no folder, see `cubin_cache.folder`.
    """
    return cubin_cache.folder() / kind / f"v{SCHEMA}" / _digest(dict(environment))[:16]


def path_of(kind: str, environment: Environment, subject: str) -> Path:
    """The file of a decision; raises as `folder_of`."""
    return folder_of(kind, environment) / (_digest(subject)[:32] + _SUFFIX)


def read(kind: str, environment: Environment, subject: str) -> Decision | None:
    """The decision on a subject, or None where no valid file states one."""
    try:
        found = _read(path_of(kind, environment, subject), environment)
    except OSError:
        return None
    return found[1] if found is not None and found[0] == subject else None


def write(kind: str, environment: Environment, subject: str, decision: Decision) -> None:
    """Store a decision (JSON), or warn once that this folder cannot be written."""
    content = {"environment": dict(environment), "subject": subject, "decision": decision}
    try:
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        cubin_cache.replace(path_of(kind, environment, subject), text.encode())
    except OSError as error:
        if read(kind, environment, subject) is None:  # nobody else has stored it either
            cubin_cache.warn_once(error)


def stored(kind: str, environment: Environment) -> Iterator[tuple[str, Decision]]:
    """The subjects that are decided in an environment, and their decisions, in a fixed order."""
    try:
        paths = sorted(folder_of(kind, environment).glob("*" + _SUFFIX))
    except OSError:
        return
    found = []
    for path in paths:
        content = _read(path, environment)
        if content is not None and path.stem == _digest(content[0])[:32]:
            found.append(content)
    yield from sorted(found, key=lambda content: content[0])


def _read(path: Path, environment: Environment) -> tuple[str, Decision] | None:
    """Subject and decision of a file; None if it is absent, damaged or of another environment."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("environment") != dict(environment):
        return None
    subject, decision = content.get("subject"), content.get("decision")
    if not isinstance(subject, str) or not isinstance(decision, dict):
        return None
    return subject, decision


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
