"""All reports of a run, as files of one folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from perfgate.files import locked, write_atomically
from perfgate.judge.record import Run
from perfgate.paths import REPORTS
from perfgate.report.document import SCHEMA, Document, ReportError, to_json
from perfgate.report.exports import bencher, github_action_benchmark
from perfgate.report.junit import junit_xml
from perfgate.report.page import PageError, page
from perfgate.report.summary import summary_markdown

PAGE = "report.html"
# Written last: where it is, the other files are those of the same run.
EXIT_CODE = "exit_code"
FILES = (
    "report.json",
    "summary.md",
    "junit.xml",
    "github-action-benchmark.json",
    "bencher.json",
    PAGE,
    EXIT_CODE,
)
# What schemas of reports of all versions begin with.
SCHEMA_NAME = SCHEMA.partition("/")[0]


def write_all(
    folder: Path,
    document: Document,
    history: Sequence[Run] = (),
    say: Callable[[str], None] = lambda note: None,
) -> list[Path]:
    """Write report.json and everything that is made from it.

    Args:
        folder: where; it is made if it is not there.
        document: the report.
        history: the stored baselines of the device, newest last.
        say: hears of what could not be made.

    Returns:
        the files, in the order in which they were written.

    Raises:
        ReportError: the folder cannot be written.
    """
    texts = {
        "report.json": to_json(document),
        "summary.md": summary_markdown(document),
        "junit.xml": junit_xml(document),
        "github-action-benchmark.json": to_json(github_action_benchmark(document)),
        "bencher.json": to_json(bencher(document)),
    }
    try:
        texts[PAGE] = page(document, history)
    except PageError as error:
        say(str(error))
    texts[EXIT_CODE] = f"{document['exit']['code']}\n"
    with _changing(folder):
        # What an earlier run left must not be taken for this one's.
        for name in (EXIT_CODE, PAGE):
            (folder / name).unlink(missing_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text)
    return [folder / name for name in texts]


def clear(folder: Path) -> None:
    """Remove the reports of an earlier run, which must not be taken for those of one to come.

    Raises:
        ReportError: the folder holds files of somebody else's by these names, or they cannot be
            removed.
    """
    if folder.exists():
        with _changing(folder):
            for name in FILES:
                (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """The folder, for one run at a time: its files are all of the same."""
    try:
        with locked(folder, beside=False):
            _check_ours(folder)
            yield
    except OSError as error:
        raise ReportError(
            f"the report folder {folder} cannot be written ({error.strerror}); expected a "
            "writable folder: change its permissions, or name another"
        ) from error


def _check_ours(folder: Path) -> None:
    """Whether what is there under the names of reports is a report, and no file of the user's."""
    taken = [name for name in FILES if (folder / name).exists()]
    # Where reports go by default nothing else does.
    if not taken or folder.parts[-len(REPORTS.parts) :] == REPORTS.parts:
        return
    try:
        # An old or damaged one is a report, too.
        is_ours = SCHEMA_NAME in (folder / "report.json").read_text(encoding="utf-8")[:200]
    except (OSError, ValueError):
        is_ours = False
    if not is_ours:
        raise ReportError(
            f"the folder {folder} holds {', '.join(taken)}, which is no report of kan-bench; "
            "expected a folder without files of these names: name another one"
        )
