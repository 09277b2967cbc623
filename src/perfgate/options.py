"""Options that pytest and `kan-bench` share, and values: an empty or mistyped one is an error.

A shell makes an empty value of a variable that is not set, and what then happens must not look
like what was meant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perfgate.judge.sequential import LEAST_PAIRS, MOST_PAIRS
from perfgate.judge.verdict import FALSE_ALARM


def path(text: str) -> Path:
    """A path that is not empty: the empty one would be the current folder."""
    return Path(words(text))


def folder(text: str) -> Path:
    """A path that is a folder, or nothing yet."""
    found = path(text)
    try:
        is_other = found.exists() and not found.is_dir()
    except (OSError, ValueError) as error:  # too long, or with a character that none may have
        raise argparse.ArgumentTypeError(f"{text!r} is no path ({error})") from error
    if is_other:
        raise argparse.ArgumentTypeError(
            f"{text!r} is a file; expected a folder: name another one, or move the file"
        )
    return found


def words(text: str) -> str:
    """A text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "its value is empty; expected one: give it, or leave the option out"
        )
    return text


def at_least(least: int, why: str = ", a whole number") -> Callable[[str], int]:
    """Whole numbers from `least` on; an error says `why`."""

    def count(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(
                f"it is {text!r}; expected {least} or more{why}: correct it"
            )
        return number

    return count


def seconds(text: str) -> float:
    """A time of more than 0 seconds."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; expected seconds, more than 0: correct it"
        )
    return number


def probability(text: str) -> float:
    """A number between 0 and 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(
            f"it is {text!r}; expected a probability between 0 and 1, such as 0.01: correct it"
        )
    return number


def wanted_baseline(value: object) -> str | None:
    """What --benchmark-compare names: None where it has no value.

    Raises:
        ValueError: the value is empty, or it is a path of tests, which the option took for its own.
    """
    if not isinstance(value, str):
        return None
    if not value.strip():
        raise ValueError(
            "--benchmark-compare= came with an empty value; expected the number or the file of a "
            "baseline, or no equals sign for the newest: correct it"
        )
    if "::" in value or value.endswith(".py") or _is_folder(value):
        raise ValueError(
            f"--benchmark-compare took {value!r} for the baseline; expected a number or a JSON "
            f"file: put what is to be run before it (pytest {value} --benchmark-compare)"
        )
    return value


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # no name that a folder can have
        return False


# Settings of each option that both have, as argparse takes them.
SHARED: Mapping[str, Mapping[str, Any]] = {
    "--processes": {
        "type": at_least(1),
        "metavar": "N",
        "help": "processes that measure each benchmark, one after another",
    },
    "--baselines": {"type": folder, "metavar": "DIR", "help": "where accepted runs are stored"},
    "--report": {"type": folder, "metavar": "DIR", "help": "where the reports go"},
    "--worker-timeout": {
        "type": seconds,
        "metavar": "SECONDS",
        "help": "a benchmark or a measuring process without progress for so long ends the run",
    },
    "--pairs": {
        "type": at_least(
            LEAST_PAIRS, ", since a change must show in pairs that had no part in finding it"
        ),
        "default": MOST_PAIRS,
        "metavar": "N",
        "help": "how many pairs of processes of both codes take turns, at most, for what stored "
        "times leave open",
    },
    "--false-alarm": {
        "type": probability,
        "default": FALSE_ALARM,
        "metavar": "P",
        "help": "probability that a run of unchanged code has any false alarm",
    },
    "--fail-on-inconclusive": {"action": "store_true", "help": "an unclear verdict is a failure"},
}


def declare(add: Callable[..., Any], flag: str, shown: str | None = None, **own: Any) -> None:
    """Add an option of `SHARED`.

    Args:
        add: `addoption` of pytest, or `add_argument` of argparse.
        flag: which.
        shown: the default in the words of the help; that of the settings if None.
        own: settings that are not shared.
    """
    settings = {**SHARED[flag], **own}
    if shown or "default" in settings:
        settings["help"] += f"; default: {shown or '%(default)s'}"
    add(flag, **settings)
