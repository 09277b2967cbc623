"""All reports of a run, as files of one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from kan_impls.bench.baseline import write_atomically
from kan_impls.bench.record import Run
from kan_impls.bench.report.document import Document, ReportError, to_json
from kan_impls.bench.report.exports import bencher, github_action_benchmark
from kan_impls.bench.report.junit import junit_xml
from kan_impls.bench.report.page import PageError, page
from kan_impls.bench.report.summary import summary_markdown

PAGE = "report.html"
# Written last: where it is, the other files are those of the same run.
EXIT_CODE = "exit_code"


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
        "github-action-benchmark.json": _json(github_action_benchmark(document)),
        "bencher.json": _json(bencher(document)),
    }
    try:
        texts[PAGE] = page(document, history)
    except PageError as error:
        say(str(error))
    texts[EXIT_CODE] = f"{document['exit']['code']}\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What an earlier run left must not be taken for this one's.
        for name in (EXIT_CODE, PAGE):
            (folder / name).unlink(missing_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise ReportError(
            f"the report folder {folder} cannot be written ({error.strerror}); expected a "
            "writable folder: change its permissions, or name another"
        ) from error
    return [folder / name for name in texts]


def _json(data: object) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"
