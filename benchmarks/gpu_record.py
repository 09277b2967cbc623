"""What became of every test, kept in a file: `pytest -p gpu_record --record=FILE`.

A run that is ended leaves what it had found, and the name of the test that it was in.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Record:
    """A plugin of pytest.

    Args:
        path: the file.

    Attributes:
        found: what is written; tests may add to it.
        render: makes the Markdown that is written beside it at the end; None for none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {"format": 2, "running": None, "tests": {}}
        self.render: Callable[[dict[str, Any]], str] | None = None
        self._start = time.time()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.found["running"] = nodeid
        self.write()

    def pytest_runtest_logreport(self, report: Any) -> None:
        known = self.found["tests"].setdefault(report.nodeid, {"status": "passed", "seconds": 0.0})
        known["seconds"] += report.duration
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            known["status"] = "failed"
            known["reason"] = str(crash.message if crash else report.longrepr).strip()[:500]
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            known |= {"status": "skipped", "reason": str(reason).removeprefix("Skipped: ")[:500]}
        if report.user_properties:
            known["properties"] = {str(k): str(v) for k, v in report.user_properties}

    def pytest_sessionfinish(self, session: Any) -> None:
        seconds = time.time() - self._start
        self.found |= {"running": None, "exit_status": int(session.exitstatus), "seconds": seconds}
        self.write()
        if self.render is not None:
            self.path.with_suffix(".md").write_text(self.render(self.found), encoding="utf-8")

    def write(self) -> None:
        """As a whole, so that a run ended in between leaves its last state."""
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.found, indent=1, default=str), encoding="utf-8")
        os.replace(unfinished, self.path)


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--record", type=Path, metavar="FILE", help="the file of what became of every test"
    )


def pytest_configure(config: Any) -> None:
    if config.option.record is not None:
        path = config.option.record.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".md").unlink(missing_ok=True)  # an ended run would leave an older one
        config.pluginmanager.register(Record(path), NAME)


NAME = "gpu-record"
