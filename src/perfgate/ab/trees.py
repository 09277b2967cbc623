"""The files of a git revision, in a folder of their own."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perfgate.files import FOLDERS, WRITABLE_TMPDIR, is_of_the_dead, temporary_folder
from perfgate.plain_text import one_line

# What the folders of worktrees are called, and after it the id of the process that made them.
_OURS = "tree-"
_FOLDER = re.compile(rf"{FOLDERS}-{_OURS}(\d+)-\w+")


class RevisionError(Exception):
    """A revision cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Tree:
    """The files of a revision.

    Args:
        folder: where they are.
        commit: full id of the commit; of the one that uncommitted files go on from.
        revision: what the user called it.
        top: the folder of all files of the repository, of which `folder` may be a part.
        checkout: the same of the user's own files.
    """

    folder: Path
    commit: str
    revision: str
    top: Path
    checkout: Path

    @property
    def source(self) -> Path:
        """The folder that goes onto Python's path; others are found as the user's own are."""
        src = self.folder / "src"
        return src if src.is_dir() else self.folder


@contextlib.contextmanager
def tree_of(root: Path, revision: str | None) -> Iterator[Tree]:
    """The files of a revision of the repository at `root`; as they are now if it is None.

    Raises:
        RevisionError: this is no git repository, or it has no such revision.
    """
    if revision is None:
        head = _git(root, "rev-parse", "HEAD")
        checkout = _top(root)
        yield Tree(root, head, "the files as they are", checkout, checkout)
        return
    commit = commit_of(root, revision)
    # The folder of the project in its repository, of which it may be a part.
    inside = _git(root, "rev-parse", "--show-prefix")
    checkout = _top(root)
    remove_leftovers(root)
    with _temporary_folder() as parent:
        folder = parent / commit[:10]
        try:
            _git(root, "worktree", "add", "--quiet", "--detach", str(folder), commit)
            yield Tree(folder / inside, commit, revision, folder, checkout)
        finally:
            _remove(root, folder)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(_OURS))
        except OSError as error:
            raise RevisionError(
                f"no folder can be made for its files ({error}); {WRITABLE_TMPDIR}"
            ) from error
        yield folder


def commit_of(root: Path, revision: str) -> str:
    """The full id of the commit that a revision of the repository at `root` is.

    Raises:
        RevisionError: this is no git repository, or it has no such revision.
    """
    _git(root, "rev-parse", "--git-dir")  # what git says of a repository that it does not take
    try:
        return _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except RevisionError as error:
        raise RevisionError(
            f"the revision {revision!r} does not exist in {root}; expected a branch, tag or "
            f"commit: correct it, or fetch it (git fetch). git said: {error.__cause__}"
        ) from error


def remove_leftovers(root: Path) -> None:
    """Remove the worktrees of comparisons that were killed, and their folders."""
    try:
        listed = _git(root, "worktree", "list", "--porcelain", "-z")
    except RevisionError:  # a git without -z: only what it can prune goes
        listed = ""
    for line in listed.split("\0"):
        folder = Path(line.removeprefix("worktree "))
        match = _FOLDER.fullmatch(folder.parent.name)
        if line.startswith("worktree ") and match and is_of_the_dead(match):
            _remove(root, folder)
            shutil.rmtree(folder.parent, ignore_errors=True)


def _remove(root: Path, folder: Path) -> None:
    """Remove a worktree: twice forced, since one that was begun is locked."""
    with contextlib.suppress(RevisionError):
        _git(root, "worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(RevisionError):
        _git(root, "worktree", "prune")


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


def has_changes(root: Path, beside: Path) -> bool:
    """Whether files that git knows differ from the commit, beside those of a folder.

    Raises:
        RevisionError: this is no git repository.
    """
    top, beside = _top(root).resolve(), beside.resolve()
    others = [":/"]
    if top in beside.parents:
        others.append(f":(exclude,top,literal){beside.relative_to(top)}")
    return bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", *others))


def _top(root: Path) -> Path:
    """The folder of all files of the repository."""
    return Path(_git(root, "rev-parse", "--show-toplevel"))


class _GitError(Exception):
    """git's own words."""


def _git(root: Path, *arguments: str) -> str:
    try:
        finished = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=False,
            errors="surrogateescape",
        )
    except (OSError, ValueError) as error:
        raise RevisionError(
            f"git cannot be started ({error}); expected it on the path: install it"
        ) from error
    if finished.returncode:
        said = one_line(finished.stderr).strip() or f"exit status {finished.returncode}"
        raise RevisionError(
            f"git {' '.join(arguments)} failed in {root}; expected a git repository that git "
            f"takes: {said}"
        ) from _GitError(said)
    return finished.stdout.strip()
