"""What stays of a session: the run for `kan-bench accept`, and its reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from perfgate.files import write_atomically
from perfgate.judge.exit_codes import failing_by
from perfgate.judge.record import Run
from perfgate.paths import LAST_RUN, REPORTS
from perfgate.report import ReportError, Source, junit, write_all
from perfgate.report.document import Document, document
from perfgate.report.tables import is_results_table, results_markdown
from perfgate.session import Session, baselines_of, run_data
from perfgate.store import baseline, last_run


def keep_run(state: Session) -> None:
    """The run, with its table beside it and beside --benchmark-json."""
    assert state.run is not None
    config = state.config
    table = results_markdown(state.run, state.failures)
    path = config.rootpath / LAST_RUN
    try:
        last_run.keep(path, json.dumps(run_data(state), indent=1, default=str) + "\n", table)
    except OSError as error:
        state.notes.append(
            f"{path} cannot be written ({error.strerror}); expected a writable folder: the run "
            "is not kept, and kan-bench accept will refuse the older one"
        )
    else:
        state.notes.append(f"kept {path} and, as Markdown, {path.with_suffix('.md').name}")
    if config.option.benchmark_json:
        _write_table_beside(Path(config.option.benchmark_json), table, state.notes.append)


def _write_table_beside(asked: Path, table: str, say: Callable[[str], None]) -> None:
    """The table beside --benchmark-json, unless that is a file of the user's."""
    path = asked.with_suffix(".md")
    try:
        if path.exists() and not is_results_table(path.read_text(encoding="utf-8")):
            say(f"{path} is left alone: it is no table of results")
        else:
            write_atomically(path, table)
    except (OSError, ValueError) as error:
        say(f"{path} is not written ({error}); the table is in {LAST_RUN.with_suffix('.md')}")


def write_reports(state: Session, code: int) -> None:
    """All reports, and the verdicts into --junitxml."""
    assert state.run is not None
    content = _document(state, state.run, code)
    if state.suite_property is not None:
        for name, value in junit.suite_properties(content):
            state.suite_property(name, value)
        for verdict in state.verdicts:
            name, said = f"kan_bench.{verdict.name}", f"{verdict.status}: {verdict.cause}"
            state.suite_property(junit.xml_text(name), junit.xml_text(said))
    folder = state.config.option.report or state.config.rootpath / REPORTS
    history = baseline.history(baselines_of(state.config), state.run.device_key)
    try:
        write_all(folder, content, history, state.notes.append)
    except ReportError as error:
        state.notes.append(str(error))
    else:
        state.notes.append(f"reports: {folder}")


def _document(state: Session, run: Run, code: int) -> Document:
    stored = state.stored
    return document(
        run,
        state.verdicts,
        exit_code=code,
        kind="compare" if state.comparing else "measure",
        baseline=Source(stored.run, stored.path) if stored and stored.run else None,
        anchor=Source(stored.anchor, stored.anchor_path) if stored and stored.anchor else None,
        pairs=state.pairs,
        false_alarm=stored.false_alarm if stored else None,
        failing=failing_by(state.config.option),
        notes=state.notes,
    )
