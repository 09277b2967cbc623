"""What a report itself says, whatever the process that wrote it ended with.

A conftest can set pytest's exit status to 0, or end the process in the middle; the verdicts and
their completeness stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from perfgate.judge.exit_codes import FAILING, GateExit, gate_exit
from perfgate.judge.verdict import Status
from perfgate.report.document import Document, ReportError, exit_entry, read_document
from perfgate.report.write import EXIT_CODE


def read_whole(folder: Path) -> Document:
    """The report of a folder, if its run wrote all of it.

    Raises:
        ReportError: there is none, it is damaged, or the run broke off before its last file.
    """
    content = read_document(folder / "report.json")
    try:
        written = (folder / EXIT_CODE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        written = f"not there ({error})"
    if written != str(content["exit"]["code"]):
        raise ReportError(
            f"{folder / EXIT_CODE} is {written[:60]}, and report.json says "
            f"{content['exit']['code']}; expected one run that wrote both: measure again"
        )
    return content


def ruling(
    content: Document,
    failing: Iterable[Status] = FAILING,
    needs_time: bool = False,
) -> tuple[int, str]:
    """The exit status that the verdicts of a report mean, and its cause in words.

    Args:
        content: the report.
        failing: the verdicts that are not to pass.
        needs_time: an unclear time that was compared with no earlier code is not to pass.

    Returns:
        the worst of what the verdicts say, what the report says of its run, and `MISSING` where a
        benchmark was measured and not judged; the cause is empty where all passed.
    """
    said = content["exit"]
    if said["code"]:
        return int(said["code"]), f"its report says {said['name'].lower()}"
    judged = {verdict["name"]: verdict["status"] for verdict in content["verdicts"]}
    found = gate_exit(judged.values(), failing)
    if found is not GateExit.PASSED:
        stops = [name for name, status in judged.items() if status == found.name.lower()]
        return found, f"{found.name.lower()}: {', '.join(stops) or 'no benchmark has a verdict'}"
    uncompared = [entry["name"] for entry in content["verdicts"] if _is_uncompared(entry)]
    if needs_time and uncompared:
        return GateExit.UNJUDGED, (
            f"of {', '.join(uncompared)} the time is unclear, and no earlier code was measured "
            "beside it"
        )
    measured = {measurement["name"] for measurement in content["measurements"]}
    if silent := sorted(measured - judged.keys()):
        return GateExit.MISSING, f"{', '.join(silent)} has no verdict"
    return GateExit.PASSED, ""


def overruled(content: Document, code: int, cause: str) -> Document:
    """The report with another exit status than that of the run, and a note that says why."""
    note = f"the gate's exit status is {code}, where the run had {content['exit']['code']}: {cause}"
    return {**content, "exit": exit_entry(code), "notes": [*content["notes"], note]}


def _is_uncompared(verdict: Mapping[str, Any]) -> bool:
    """Whether its time is unclear, and no earlier code was measured beside it: that of the oldest
    baseline tells nothing of what was gained since."""
    return verdict["status"] == "inconclusive" and not any(
        change["in_turns_with"] and change["against"] in ("base", "baseline")
        for change in verdict["times"]
    )
