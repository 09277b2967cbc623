"""Where a program of the check leaves what it has found so far."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(path: Path, data: dict[str, Any]) -> None:
    """As a whole, so that a program ended in between leaves its last state."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(data, indent=1), encoding="utf-8")
    os.replace(unfinished, path)


def read(path: Path) -> dict[str, Any]:
    """What was written, or nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
