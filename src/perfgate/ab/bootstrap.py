"""Starts pytest with the packages of one revision and the harness of another.

    python bootstrap.py SOURCE HARNESS OWN HEAD CHECKOUT [pytest's arguments]

SOURCE is the folder of the revision's packages, HARNESS the one that `perfgate` is taken from, so
that both revisions are measured alike. OWN, HEAD and CHECKOUT hold all files of the repository: as
they are in this revision, in the head, and where the user works. What pytest's settings or an
editable install find in the last two is taken from the same place in OWN.
"""

import importlib.abc
import re
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

# What belongs to the harness, wherever it lies: benchmarks and tests are the head's.
OF_THE_HARNESS = re.compile(r"conftest|tests?|benchmarks?|test_.*|.*_test")


class ForeignPackageError(ImportError):
    """A revision lacks a package, and another revision's must not be measured in its place."""


class Packages(importlib.abc.MetaPathFinder):
    """Finds a revision's packages before any path does: pytest puts folders of the head first.

    Args:
        source: where this revision's packages lie.
        harness: where `perfgate` lies.
        own: the folder of all files of this revision.
        others: folders of all files of other revisions.
    """

    def __init__(
        self, source: str, harness: str, own: str = "", others: Sequence[str] = ()
    ) -> None:
        self.source, self.harness = source, harness
        self.own = Path(own or source).resolve()
        self.others = [folder for other in others if (folder := Path(other).resolve()) != self.own]
        self.installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if path is not None or OF_THE_HARNESS.fullmatch(name):
            return None
        if name == "perfgate":
            return PathFinder.find_spec(name, [self.harness])
        own = PathFinder.find_spec(name, [self.source])
        if own is not None and own.loader is not None:
            return own
        # A folder without modules of its own hides no installed package that is called like it.
        found = _found_elsewhere(self, name)
        if found is None or (own is not None and found.loader is None):
            return own
        return self._counterpart(name, found)

    def _counterpart(self, name: str, found: ModuleSpec) -> ModuleSpec:
        """What this revision has in the place where another one has that.

        Raises:
            ForeignPackageError: it has nothing there.
        """
        folders = [path for folder in _folders_of(found) if (path := self._own_place(folder))]
        if not folders:
            return found
        own = PathFinder.find_spec(name, list(map(str, folders)))
        if own is None:
            raise ForeignPackageError(
                f"{name} was found as {found.origin or found.submodule_search_locations}, of "
                f"another revision, and is not in {folders[0]}, of this one; expected each "
                "revision's own: compare with a revision that has it, or install it elsewhere",
                name=name,
            )
        return own

    def _own_place(self, folder: Path) -> Path | None:
        """The place in this revision of a folder of another one's packages; None of others."""
        for other in self.others:
            if not folder.is_relative_to(other) or folder.is_relative_to(self.own):
                continue
            inside = folder.relative_to(other)
            is_installed = any(
                folder.is_relative_to(path) for path in self.installed if path.is_relative_to(other)
            )
            if not is_installed and not _is_of_the_harness(folder, inside):
                return self.own / inside
        return None


def _is_of_the_harness(folder: Path, inside: Path) -> bool:
    """Whether modules of the folder stand among tests, which may be called anything."""
    if any(map(OF_THE_HARNESS.fullmatch, inside.parts)):
        return True
    beside = {*folder.glob("test_*.py"), *folder.glob("*_test.py")}
    return bool(inside.parts and beside)


def _folders_of(spec: ModuleSpec) -> list[Path]:
    """Where a path names a module or package that a spec is of; none of what is built in."""
    if spec.loader is None:  # a namespace, which may have several
        return [Path(place).resolve().parent for place in spec.submodule_search_locations or ()]
    if not spec.has_location or spec.origin is None:
        return []
    origin = Path(spec.origin).resolve()
    return [origin.parent if spec.submodule_search_locations is None else origin.parent.parent]


def _found_elsewhere(asking: Packages, name: str) -> ModuleSpec | None:
    """As it would be found without this finder: by paths, or by an editable install."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if finder is not asking and find and (spec := find(name, None, None)) is not None:
            return spec
    return None


def take_packages(source: str, harness: str, own: str = "", others: Sequence[str] = ()) -> None:
    """Let imports find them there; called before anything is imported from either."""
    sys.path.insert(0, source)
    sys.meta_path.insert(0, Packages(source, harness, own, others))


def main() -> int:
    source, harness, own, head, checkout, *arguments = sys.argv[1:]
    del sys.path[0]  # the folder of this file, whose modules are not for everybody
    take_packages(source, harness, own, (head, checkout))
    import pytest

    return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main())
