"""Values of options, of pytest and of `kan-bench`: an empty or mistyped one is an error.

A shell makes an empty value of a variable that is not set, and what then happens must not look
like what was meant.
"""

from __future__ import annotations

import argparse
from pathlib import Path


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


def count_or_none(text: str) -> int:
    """A whole number, 0 or more."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"it is {text!r}; expected a count, 0 or more: correct it")
    return number


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
    if "::" in value or value.endswith(".py") or Path(value).is_dir():
        raise ValueError(
            f"--benchmark-compare took {value!r} for the baseline; expected a number or a JSON "
            f"file: put what is to be run before it (pytest {value} --benchmark-compare)"
        )
    return value
