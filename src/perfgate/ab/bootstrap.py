"""Starts pytest with the packages of one revision and the harness of another.

    python bootstrap.py SOURCE HARNESS [pytest's arguments]

SOURCE is the folder of the revision's packages, HARNESS the one that `perfgate` is taken from, so
that both revisions are measured alike.
"""

import importlib.abc
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder

# What belongs to the harness, wherever it lies: benchmarks and tests are the head's.
OF_THE_HARNESS = re.compile(r"conftest|tests?|benchmarks?|test_.*|.*_test")


class Packages(importlib.abc.MetaPathFinder):
    """Finds a revision's packages before any path does: pytest puts folders of the head first."""

    def __init__(self, source: str, harness: str) -> None:
        self.source, self.harness = source, harness

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if path is not None or OF_THE_HARNESS.fullmatch(name):
            return None
        return PathFinder.find_spec(name, [self.harness if name == "perfgate" else self.source])


def take_packages(source: str, harness: str) -> None:
    """Let imports find them there; called before anything is imported from either."""
    sys.path.insert(0, source)
    sys.meta_path.insert(0, Packages(source, harness))


def main() -> int:
    source, harness, *arguments = sys.argv[1:]
    del sys.path[0]  # the folder of this file, whose modules are not for everybody
    take_packages(source, harness)
    import pytest

    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main())
