"""Counts and failures out of pytest's --junitxml."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

COUNTS = ("tests", "failures", "errors", "skipped")


def read(path: Path) -> dict[str, Any]:
    """Counts, the first line of every failure, reasons of skips, and recorded properties."""
    root = ET.parse(path).getroot()
    suites = [root] if root.tag == "testsuite" else list(root.iter("testsuite"))
    result: dict[str, Any] = {
        key: sum(int(suite.get(key, 0)) for suite in suites) for key in COUNTS
    }
    result["passed"] = result["tests"] - sum(result[key] for key in COUNTS[1:])
    result |= {"failed_tests": {}, "skip_reasons": {}, "properties": {}}
    for case in root.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        for problem in (*case.findall("failure"), *case.findall("error")):
            result["failed_tests"][name] = (problem.get("message") or "")[:500]
        for skip in case.findall("skipped"):
            reason = skip.get("message") or ""
            result["skip_reasons"][reason] = result["skip_reasons"].get(reason, 0) + 1
        for entry in case.iter("property"):
            result["properties"][f"{name} {entry.get('name')}"] = entry.get("value")
    return result
