"""Files that several processes write, and what a killed one leaves."""

import json
import os
import signal
import tempfile
import time

import pytest

from perfgate.cli import main
from perfgate.files import file_about, locked, remove_folders, write_atomically
from perfgate.report import ReportError, read_document, write_all
from perfgate.report import write as report_writing
from perfgate.report.write import clear
from perfgate.store import baseline, last_run
from perfgate.store.accept import accept
from tests.forked import CONTEXT, forked
from tests.perfgate.runs import judged_document, run_data, store, write_run

DEAD = 2**22 + 1  # no process has an id beyond the kernel's greatest


def merge_five(number, folder):
    for part in range(5):
        accept(run_data(f"{number}-{part}"), "the run", folder, merge=True)


def test_merges_at_once_lose_nothing(tmp_path):
    assert forked(merge_five, *((number, tmp_path) for number in range(3))) == [0] * 3
    newest = baseline.find(tmp_path, "cpu_test")
    expected = {f"{number}-{part}" for number in range(3) for part in range(5)}
    assert baseline.read_run(newest).measurements.keys() == expected


def report_slowly(number, folder):
    def slowly(path, text):
        # The first begins first and ends last, if nothing holds the others up.
        time.sleep(0.15 if number == 0 else 0.01)
        original(path, text)

    original, report_writing.write_atomically = report_writing.write_atomically, slowly
    time.sleep(0.3 * number)
    write_all(folder, judged_document(exit_code=10 + number, notes=[str(number)]))


def test_all_reports_of_a_folder_are_of_one_run(tmp_path):
    each = ((number, tmp_path / "report") for number in range(3))
    assert forked(report_slowly, *each) == [0] * 3
    report = read_document(tmp_path / "report" / "report.json")
    code = report["exit"]["code"]
    assert (tmp_path / "report" / "exit_code").read_text() == f"{code}\n"
    assert report["notes"] == [str(code - 10)]
    assert f"Exit status {code} " in (tmp_path / "report" / "summary.md").read_text()


def hold_a_second(folder, held):
    with locked(folder):
        held.set()
        time.sleep(1)


def test_who_waits_for_another_says_so(tmp_path):
    folder, held = tmp_path / "cpu_test", CONTEXT.Event()
    other = CONTEXT.Process(target=hold_a_second, args=(folder, held))
    other.start()
    assert held.wait(timeout=60)
    heard = []
    accept(run_data("a"), "the run", tmp_path, say=heard.append)
    other.join()
    assert heard == [f"another process stores in {folder}: waiting for it"]
    with locked(folder, heard.append):
        pass
    assert len(heard) == 1


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = [f".0001_a.json.{DEAD}-abc_123x.tmp"]
    alive = [f".0001_a.json.{os.getpid()}-abc_123x.tmp", ".tmp", ".notes.tmp", "0001_a.json"]
    for name in [*dead, *alive]:
        (tmp_path / name).write_text("x")
    write_atomically(tmp_path / "new", "x")
    assert {path.name for path in tmp_path.iterdir()} == {*alive, "new"}
    folders = [f"kan-bench-{DEAD}-ab12", f"kan-bench-tree-{DEAD}-ab12"]
    others = [f"kan-bench-{os.getpid()}-ab12", "kan-bench-mine", "case-1-2"]
    for name in [*folders, *others]:
        (tmp_path / name / "inner").mkdir(parents=True)
    remove_folders()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set(others)


def store_and_die(folder):
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
    store(folder, "cpu_test", run_data("a"), "x")


def test_a_kill_in_the_middle_of_storing_is_cleared_by_the_next(tmp_path):
    assert forked(store_and_die, (tmp_path,)) == [-signal.SIGKILL]
    folder = tmp_path / "cpu_test"
    (left,) = [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    assert baseline.stored(tmp_path, "cpu_test") == []
    accept(run_data("a"), "the run", tmp_path)
    assert not left.exists()
    assert [path.name for path in baseline.stored(tmp_path, "cpu_test")] == ["0001_0123456789.json"]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), NotADirectoryError(20, "Not a directory")]
)
def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch, error):
    path = store(tmp_path, "cpu_test", run_data("a"), "first")
    text = path.read_text()

    def fail(folder):
        raise error

    monkeypatch.setattr("perfgate.store.baseline.os.listdir", fail)
    with pytest.raises(baseline.BaselineError, match=r"cannot be listed \("):
        baseline.find(tmp_path, "cpu_test")
    with pytest.raises(baseline.BaselineError, match=r"cannot be listed \("):
        accept(run_data("b"), "the run", tmp_path, name="first")
    monkeypatch.undo()
    assert [p.read_text() for p in baseline.stored(tmp_path, "cpu_test")] == [text]


def test_a_file_where_the_folder_of_baselines_should_be_is_no_empty_folder(tmp_path):
    (tmp_path / "cpu_test").write_text("in the way")
    with pytest.raises(baseline.BaselineError, match="cannot be listed"):
        baseline.find(tmp_path, "cpu_test")


@pytest.mark.parametrize(
    "key", ["../../outside", "", ".", "..", "a/b", "nul\0l", ".hidden", "a" * 300, "a\nb", "/etc"]
)
def test_a_device_key_of_a_stranger_names_no_other_folder(tmp_path, key):
    inside = tmp_path / "a" / "b"
    with pytest.raises(baseline.BaselineError, match="the device key is") as caught:
        accept(run_data("x", device_key=key), "the run", inside)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert baseline.history(inside, key) == []


def test_an_older_baseline_that_cannot_be_read_is_left_out_with_a_word(tmp_path):
    paths = [store(tmp_path, "cpu_test", run_data("a"), "x") for _ in range(3)]
    paths[1].write_text("{")
    heard = []
    found = baseline.forerunners(tmp_path, "cpu_test", paths[2], heard.append)
    assert found == [paths[0]]
    (note,) = heard
    assert note.startswith(f"an older baseline is left out: {paths[1]} is not a complete run")


# The last run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_run(tmp_path / ".benchmarks" / "last_run.json", "a")
    return tmp_path


def test_a_run_that_was_not_kept_is_not_mistaken_for_an_older_one(folder, capsys):
    kept = folder / ".benchmarks" / "last_run.json"
    last_run.begin(kept)
    assert main(["accept"]) == 1
    assert "was not kept" in capsys.readouterr().err
    assert main(["accept", "--run", ".benchmarks/last_run.json"]) == 0  # by its name
    last_run.keep(kept, json.dumps(run_data("a")), "| a |")
    assert main(["accept"]) == 0
    assert not list(folder.glob("kan-bench-of-*"))


def test_a_run_that_is_kept_leaves_the_word_of_one_that_began_after_it(folder, monkeypatch, capsys):
    kept = folder / ".benchmarks" / "last_run.json"
    last_run.begin(kept)
    with monkeypatch.context() as other:
        other.setattr("os.getpid", lambda: 1)
        last_run.begin(kept)
    last_run.keep(kept, json.dumps(run_data("a")), "| a |")
    assert main(["accept"]) == 1  # the other one may have failed
    assert "(process 1) was not kept" in capsys.readouterr().err


def test_a_run_that_cannot_be_written_stays_unkept(folder, monkeypatch):
    kept = folder / ".benchmarks" / "last_run.json"
    before = kept.read_text()
    last_run.begin(kept)
    (folder / ".benchmarks" / "last_run.md").mkdir()
    with pytest.raises(OSError, match="directory"):
        last_run.keep(kept, json.dumps(run_data("b")), "| b |")
    assert file_about(kept, ".unkept").exists()
    assert kept.read_text() != before


# Reports


@pytest.mark.parametrize("name", ["summary.md", "report.json", "exit_code", "junit.xml"])
def test_a_users_file_in_the_folder_of_reports_stays(tmp_path, name):
    (tmp_path / name).write_text("mine")
    for write in (lambda: write_all(tmp_path, judged_document()), lambda: clear(tmp_path)):
        with pytest.raises(ReportError, match=rf"holds {name}, which is no report"):
            write()
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_reports_of_an_earlier_run_are_replaced_and_cleared(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    for _ in range(2):
        write_all(tmp_path, judged_document())
    (tmp_path / "exit_code").unlink()
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]
    clear(tmp_path / "nothing there")


@pytest.mark.parametrize("name", ["report.json", "exit_code", "summary.md"])
def test_a_folder_in_the_place_of_a_report_is_one_line(tmp_path, name):
    write_all(tmp_path, judged_document())
    (tmp_path / name).unlink()
    (tmp_path / name / "x").mkdir(parents=True)
    with pytest.raises(ReportError, match=r"cannot be written|is no report"):
        write_all(tmp_path, judged_document())
