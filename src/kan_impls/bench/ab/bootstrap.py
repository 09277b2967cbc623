"""Starts pytest with the implementations of one revision and the harness of another.

    python bootstrap.py SOURCE HARNESS [pytest's arguments]

SOURCE is the folder of the revision's packages. Where `kan_impls` is among them, its subpackage
`bench` is taken from HARNESS all the same, so that both revisions are measured alike.
"""

import importlib.abc
import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

# What belongs to the harness, wherever it lies: benchmarks and tests are the head's.
OF_THE_HARNESS = re.compile(r"conftest|tests?|benchmarks?|test_.*|.*_test")


class Implementations(importlib.abc.MetaPathFinder):
    """Finds a revision's packages before any path does: pytest puts folders of the head first."""

    def __init__(self, source: str) -> None:
        self.source = source

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if path is not None or OF_THE_HARNESS.fullmatch(name):
            return None
        return PathFinder.find_spec(name, [self.source])


def take_harness_from(harness: Path) -> None:
    """Make `kan_impls.bench` the package in that folder."""
    import kan_impls

    name = "kan_impls.bench"
    spec = importlib.util.spec_from_file_location(
        name, harness / "__init__.py", submodule_search_locations=[str(harness)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    kan_impls.bench = package  # type: ignore[attr-defined]


def main() -> int:
    source, harness, *arguments = sys.argv[1:]
    # Python put this file's folder first, whose modules are not for everybody.
    sys.path[0] = source
    sys.meta_path.insert(0, Implementations(source))
    if (Path(source) / "kan_impls").is_dir():
        take_harness_from(Path(harness))
    import pytest

    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main())
