"""The files of a git revision, in a folder of their own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class RevisionError(Exception):
    """A revision cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Tree:
    """The files of a revision.

    Args:
        folder: where they are.
        commit: full id of the commit; of the one that uncommitted files go on from.
        revision: what the user called it.
    """

    folder: Path
    commit: str
    revision: str

    @property
    def source(self) -> Path:
        """The folder that goes onto Python's path."""
        src = self.folder / "src"
        return src if src.is_dir() else self.folder


@contextlib.contextmanager
def tree_of(root: Path, revision: str | None) -> Iterator[Tree]:
    """The files of a revision of the repository at `root`; as they are now if it is None.

    Raises:
        RevisionError: this is no git repository, or it has no such revision.
    """
    if revision is None:
        yield Tree(root, _git(root, "rev-parse", "HEAD"), "the files as they are")
        return
    commit = commit_of(root, revision)
    # The folder of the project in its repository, of which it may be a part.
    inside = _git(root, "rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory(prefix="kan-bench-tree-") as parent:
        folder = Path(parent).resolve() / commit[:10]
        try:
            _git(root, "worktree", "add", "--quiet", "--detach", str(folder), commit)
            yield Tree(folder / inside, commit, revision)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _git(root, "worktree", "prune")  # of what an interrupted comparison left, too


def commit_of(root: Path, revision: str) -> str:
    """Full id of the commit that a revision names.

    Raises:
        RevisionError: this is no git repository, or it has no such revision.
    """
    try:
        return _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except RevisionError as error:
        raise RevisionError(
            f"the revision {revision!r} does not exist in {root}; expected a branch, tag or "
            "commit: correct it, or fetch it (git fetch)"
        ) from error


def is_shallow(root: Path) -> bool:
    """Whether the repository at `root` lacks a part of its history."""
    with contextlib.suppress(RevisionError):
        return _git(root, "rev-parse", "--is-shallow-repository") == "true"
    return False


def merge_base(root: Path, revision: str) -> str:
    """Full id of the commit at which the present one branched off from `revision`.

    Raises:
        RevisionError: there is no such revision, or the two share no history.
    """
    commit = commit_of(root, revision)
    try:
        return _git(root, "merge-base", commit, "HEAD")
    except RevisionError as error:
        remedy = "git fetch --unshallow" if is_shallow(root) else "another base"
        raise RevisionError(
            f"{revision} and HEAD share no commit in {root}; expected one that both go on from: "
            f"try {remedy}"
        ) from error


def _git(root: Path, *arguments: str) -> str:
    try:
        finished = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise RevisionError(
            f"git cannot be started ({error.strerror}); expected it on the path: install it"
        ) from error
    if finished.returncode:
        raise RevisionError(
            f"git {' '.join(arguments)} failed in {root}; expected a git repository with that "
            f"revision: {finished.stderr.strip()}"
        )
    return finished.stdout.strip()
