"""Counts and failures out of pytest's --junitxml, or out of the output of a run that was ended."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
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


_LINE = re.compile(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)


def read_log(text: str) -> dict[str, Any]:
    """As `read`, of the output of `pytest -v`, as far as it got."""
    lines = _LINE.findall(text)

    def count(word: str) -> int:
        return sum(outcome == word for _, outcome in lines)

    failed = {name: "" for name, outcome in lines if outcome in ("FAILED", "ERROR")}
    return {
        "tests": len(lines),
        "failures": count("FAILED"),
        "errors": count("ERROR"),
        "skipped": count("SKIPPED"),
        "passed": count("PASSED"),
        "failed_tests": failed,
        "skip_reasons": {},
        "properties": {},
    }


def merge(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs as one."""
    merged: dict[str, Any] = {key: sum(part[key] for part in parts) for key in (*COUNTS, "passed")}
    for key in ("failed_tests", "properties"):
        merged[key] = {name: text for part in parts for name, text in part[key].items()}
    reasons = [item for part in parts for item in part["skip_reasons"].items()]
    merged["skip_reasons"] = {
        reason: sum(count for other, count in reasons if other == reason) for reason, _ in reasons
    }
    return merged
