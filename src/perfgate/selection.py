"""What is measured of all that pytest has collected, and what a user left out on purpose."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any


def is_benchmark(item: Any) -> bool:
    """Whether a test of pytest's is a benchmark."""
    return "benchmark" in getattr(item, "fixturenames", ())


def keep_benchmarks(items: list[Any]) -> list[Any]:
    """Leave the benchmarks among the items, and return the others, of which pytest-benchmark would
    list each as skipped."""
    others = [item for item in items if not is_benchmark(item)]
    items[:] = [item for item in items if is_benchmark(item)]
    return others


def is_left_out(config: Any, name: str, collected: Container[str]) -> bool:
    """Whether the user did not ask for a benchmark that the baseline has.

    Args:
        config: pytest's.
        name: the node id.
        collected: benchmarks that were asked for, and did not measure.
    """
    if name in collected:
        return False
    path = os.path.realpath(config.rootpath / name.split("::", 1)[0])
    # --last-failed does not even collect the files of what passed.
    failed_only = bool(config.getoption("lf", False))
    return failed_only or _is_ignored(config, path) or _is_outside(config, name)


def _is_ignored(config: Any, path: str) -> bool:
    """Whether --ignore or --ignore-glob is about the file or a folder it is in."""
    here = config.invocation_params.dir
    places = [path, *map(str, Path(path).parents)]
    ignored = {os.path.realpath(here / part) for part in config.getoption("ignore", None) or ()}
    patterns = [
        os.path.abspath(here / part) for part in config.getoption("ignore_glob", None) or ()
    ]
    return any(
        place in ignored or any(fnmatch.fnmatch(place, pattern) for pattern in patterns)
        for place in places
    )


def _is_outside(config: Any, name: str) -> bool:
    """Whether files or tests were named to be run, and this one is none of them."""
    return config.args_source.name == "ARGS" and not is_among(config, config.args, name)


def is_among(config: Any, arguments: Iterable[str], name: str) -> bool:
    """Whether a test, by its node id, is among the folders, files and tests that arguments of
    pytest name."""
    file, *test = name.split("::", 1)
    path = os.path.realpath(config.rootpath / file)
    for argument in arguments:
        chosen_file, *chosen_test = argument.split("::", 1)
        chosen = os.path.realpath(config.invocation_params.dir / chosen_file)
        if chosen_test:
            if path == chosen and f"{''.join(test)}::".startswith(
                (f"{chosen_test[0]}::", f"{chosen_test[0]}[")
            ):
                return True
        elif path == chosen or path.startswith(chosen + os.sep):
            return True
    return False
