"""How far a figure may move, from `[[tool.perfgate.limits]]` of pyproject.toml.

[[tool.perfgate.limits]]
implementation = "fourier_kan"      # and/or group = "reference *", benchmark = "*test_mnist*"
                                    # device = "cpu_*", the key of its baselines
visible = 0.2
reason = "two gigabytes of fresh pages for each run: the noisiest of all"
expires = 2027-06-30                # optional: from that day on it is an error
"""

from __future__ import annotations

import datetime
import fnmatch
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from perfgate.fields import GREATEST_COUNT
from perfgate.judge.record import Measurement
from perfgate.plain_text import one_line

SELECTORS = ("benchmark", "group", "implementation", "device")


class LimitsError(ValueError):
    """An entry of pyproject.toml cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Limits:
    """How far a figure may move. Times are relative changes, 0.1 being 10%.

    Args:
        ratio: no smaller change is called one, of the stored time over the reference or of the
            time in turns, however precisely it was measured: another layout of the same code
            moves it by as much.
        visible: a change as large as that must be excluded, with an error of 2% at most, else
            the verdict is `inconclusive`.
        absolute: the same as `ratio` for the time itself, which also shows a slowdown that
            hits the reference too. A busy neighbour alone has made it 2.3 times.
        drift: the same for the change since the oldest kept baseline.
        memory_bytes: growth of a peak or of the saved bytes. On a CPU the figures repeat to
            the byte, so none is allowed.
    """

    ratio: float = 0.02
    visible: float = 0.10
    absolute: float = 1.5
    drift: float = 0.05
    memory_bytes: int = 0

    @property
    def visible_drift(self) -> float:
        """As `visible`, of the change since the oldest kept baseline."""
        return max(self.visible, 2 * self.drift)


CPU_LIMITS = Limits()
# The vendor's libraries choose workspaces of up to some hundred KiB by heuristics.
CUDA_LIMITS = Limits(memory_bytes=2**20)


def limits_of(device_key: str) -> Limits:
    """Those of a device, by the key of its baselines."""
    return CUDA_LIMITS if device_key.startswith("cuda") else CPU_LIMITS


@dataclass(frozen=True)
class Rule:
    """Limits for the benchmarks that fit all of its patterns; the last rule that fits counts."""

    patterns: Mapping[str, str]
    values: Mapping[str, Any]
    reason: str

    def fits(self, measurement: Measurement, device_key: str) -> bool:
        found = {
            "benchmark": measurement.name,
            "group": measurement.group or "",
            "implementation": str(measurement.measured.get("implementation")),
            "device": device_key,
        }
        return all(
            fnmatch.fnmatchcase(found[selector], pattern)
            for selector, pattern in self.patterns.items()
        )


@dataclass(frozen=True)
class LimitTable:
    """The limits of each benchmark: those of the device, but for the rules."""

    default: Limits
    rules: Sequence[Rule] = ()
    device_key: str = ""

    def __call__(self, measurement: Measurement) -> Limits:
        limits = self.default
        for rule in self.rules:
            if rule.fits(measurement, self.device_key):
                limits = replace(limits, **rule.values)
        return limits

    def idle(self, measurements: Iterable[Measurement]) -> list[Rule]:
        """The rules for this device that fit none of these benchmarks."""
        known = list(measurements)
        here = [
            rule
            for rule in self.rules
            if fnmatch.fnmatchcase(self.device_key, rule.patterns.get("device", "*"))
        ]
        return [rule for rule in here if not any(rule.fits(m, self.device_key) for m in known)]


def read_rules(pyproject: Path, today: datetime.date | None = None) -> list[Rule]:
    """The rules of a pyproject.toml; none if there is no such file.

    Raises:
        LimitsError: an entry without a reason, expired, or with a key or value that is none.
    """
    if not pyproject.is_file():
        return []
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LimitsError(
            f"{pyproject} cannot be read ({one_line(str(error))}); expected TOML: mend the file"
        ) from error
    tools = _table(content, "tool", pyproject)
    # `kan_impls` is what the table was called while the gate was a part of it.
    name = "perfgate" if "limits" in _table(tools, "perfgate", pyproject) else "kan_impls"
    entries = _table(tools, name, pyproject).get("limits", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LimitsError(
            f"tool.{name}.limits of {pyproject} is no array of tables; expected "
            f"[[tool.{name}.limits]]: write it with two brackets"
        )
    return [
        _rule(entry, f"{pyproject}, limits {number}", today or datetime.date.today())
        for number, entry in enumerate(entries, start=1)
    ]


def _table(whole: dict[str, Any], key: str, pyproject: Path) -> dict[str, Any]:
    found = whole.get(key, {})
    if not isinstance(found, dict):
        raise LimitsError(f"{key} of {pyproject} is no table; expected one: mend the file")
    return found


def _rule(entry: dict[str, Any], where: str, today: datetime.date) -> Rule:
    known = {field.name for field in fields(Limits)}
    if unknown := entry.keys() - known - {*SELECTORS, "reason", "expires"}:
        raise LimitsError(
            f"{where}: {', '.join(sorted(unknown))} is no key of a limit; expected some of "
            f"{', '.join([*SELECTORS, *sorted(known), 'reason', 'expires'])}: correct its name"
        )
    reason = entry.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise LimitsError(
            f"{where}: reason is {reason!r}; expected a sentence: say why this limit differs"
        )
    expires = entry.get("expires")
    if expires is not None and type(expires) is not datetime.date:
        raise LimitsError(f"{where}: expires is {expires!r}; expected a date such as 2027-01-31")
    if expires is not None and today >= expires:
        raise LimitsError(
            f"{where} expired on {expires} ({reason}); expected a later date or no entry: "
            "remove the entry, or renew it with its reason"
        )
    values = {key: _value(key, entry[key], where) for key in known & entry.keys()}
    patterns = {key: _text(key, entry[key], where) for key in SELECTORS if key in entry}
    if not patterns or not values:
        raise LimitsError(
            f"{where} selects {patterns or 'nothing'} and limits {values or 'nothing'}; expected "
            f"one of {', '.join(SELECTORS)} and one of {', '.join(sorted(known))}: add it"
        )
    return Rule(patterns, values, reason)


def _value(key: str, value: Any, where: str) -> float | int:
    whole = key == "memory_bytes"
    good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not good or not 0 <= value <= GREATEST_COUNT:
        kind = "a whole number of bytes" if whole else "a fraction such as 0.1"
        raise LimitsError(f"{where}: {key} is {value!r}; expected {kind}, not negative: correct it")
    return value


def _text(key: str, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise LimitsError(f"{where}: {key} is {value!r}; expected a pattern in quotes: correct it")
    return value
