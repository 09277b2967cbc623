"""All reports of a run, as files."""

import json
import sys
from xml.etree import ElementTree

import pytest

from perfgate.judge.parse import parse_run
from perfgate.report import ReportError, read_document, write_all
from perfgate.report.document import document, to_json
from perfgate.report.exports import bencher, github_action_benchmark
from perfgate.report.junit import junit_xml
from perfgate.report.page import page
from perfgate.report.schema import violations
from perfgate.report.summary import summary_markdown
from perfgate.report.write import EXIT_CODE, PAGE
from tests.perfgate.runs import histories, judged_document, run_data
from tests.perfgate.test_report_document import mutations

FILES = [
    "report.json",
    "summary.md",
    "junit.xml",
    "github-action-benchmark.json",
    "bencher.json",
    "report.html",
    "exit_code",
]


def test_everything_is_written_and_the_exit_code_last(tmp_path):
    folder = tmp_path / "a" / "report"
    paths = write_all(folder, judged_document(), histories())
    assert paths == [folder / name for name in FILES]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert (folder / "exit_code").read_text() == "10\n"
    assert (folder / "summary.md").read_text(encoding="utf-8").startswith("## Benchmarks: Failed")
    assert len(json.loads((folder / "bencher.json").read_text())) == 7
    assert len(json.loads((folder / "github-action-benchmark.json").read_text())) == 34


def test_all_reports_can_be_made_again_from_the_document(tmp_path):
    write_all(tmp_path / "first", judged_document(), histories())
    again = read_document(tmp_path / "first" / "report.json")
    write_all(tmp_path / "second", again, histories())
    for name in FILES:
        first, second = ((tmp_path / run / name).read_bytes() for run in ("first", "second"))
        assert first == second, name


def test_without_plotly_the_page_is_missing_and_the_rest_is_there(tmp_path, monkeypatch):
    write_all(tmp_path, judged_document())
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    notes = []
    paths = write_all(tmp_path, judged_document(), say=notes.append)
    assert [path.name for path in paths] == [name for name in FILES if name != PAGE]
    assert len(notes) == 1
    assert "plotly is not installed" in notes[0]
    assert "pip install 'kan-impls[report]'" in notes[0]
    # That of the run before would pass for this one's.
    assert not (tmp_path / PAGE).exists()


def test_an_empty_run_has_reports(tmp_path):
    empty = document(parse_run(run_data()), [], exit_code=12, kind="compare")
    write_all(tmp_path, empty)
    assert (tmp_path / EXIT_CODE).read_text() == "12\n"
    assert "Nothing was measured." in (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "nothing was measured" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_a_name_that_no_file_can_hold_is_written_as_far_as_it_can(tmp_path):
    data = run_data("half \udcff of a character")
    report = judged_document(now=data, before=data, notes=["half \udcff"])
    write_all(tmp_path, report, [parse_run(data)])
    assert read_document(tmp_path / "report.json") == report


def test_whatever_the_schema_lets_through_can_be_written(monkeypatch):
    monkeypatch.setattr("perfgate.report.page._plotly_js", lambda: "")
    count = 0
    for report in mutations():
        if not list(violations(report)):
            count += 1
            ElementTree.fromstring(junit_xml(report))
            texts = [summary_markdown(report), page(report, histories()), to_json(report)]
            assert all(texts)
            json.dumps([github_action_benchmark(report), bencher(report)], allow_nan=False)
    assert count > 100


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match=r"cannot be written \(.*\); expected a writable folder"):
        write_all(tmp_path / "file", judged_document())


def test_a_run_that_broke_off_leaves_no_exit_code(tmp_path, monkeypatch):
    write_all(tmp_path, judged_document())

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perfgate.report.write.write_atomically", full)
    with pytest.raises(ReportError, match="No space left on device"):
        write_all(tmp_path, judged_document())
    assert not (tmp_path / EXIT_CODE).exists()
