"""`kan-bench accept`."""

import json

import pytest

from kan_impls.bench.baseline import find, read_run
from kan_impls.bench.cli import main
from tests.bench_runs import write_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def present(folder):
    return find(folder / "benchmarks" / "baselines", "cpu_test")


def test_accept_stores_the_last_run(folder, capsys):
    write_run(folder / ".benchmarks" / "last_run.json", "a", "b")
    assert main(["accept"]) == 0
    assert present(folder).name == "0001_0123456789.json"
    assert "0001_0123456789.json" in capsys.readouterr().out
    assert main(["accept", "--name", "after the fix"]) == 0
    assert present(folder).name == "0002_after-the-fix.json"


def test_without_a_run(folder, capsys):
    assert main(["accept"]) == 1
    assert "does not exist; expected the last run" in capsys.readouterr().err


def test_a_damaged_run_is_not_stored(folder, capsys):
    path = write_run(folder / ".benchmarks" / "last_run.json", "a")
    path.write_text(path.read_text()[:100])
    assert main(["accept"]) == 1
    assert "is not a complete run" in capsys.readouterr().err
    assert not (folder / "benchmarks").exists()


def test_an_empty_run_is_not_stored(folder, capsys):
    write_run(folder / ".benchmarks" / "last_run.json")
    assert main(["accept"]) == 1
    assert "holds no measurement" in capsys.readouterr().err


def test_a_run_of_a_part_does_not_drop_the_rest_by_itself(folder, capsys):
    last = folder / ".benchmarks" / "last_run.json"
    write_run(last, "a", "b", memory=1)
    main(["accept"])
    write_run(last, "b", "c", memory=2)
    assert main(["accept"]) == 1
    assert "lacks 1 of the 2 benchmarks" in capsys.readouterr().err
    assert present(folder).name.startswith("0001")

    assert main(["accept", "--merge"]) == 0
    merged = read_run(present(folder)).measurements
    assert {name: m.memory["forward_peak_bytes"] for name, m in merged.items()} == {
        "a": 1,
        "b": 2,
        "c": 2,
    }
    assert main(["accept", "--replace"]) == 0
    assert set(read_run(present(folder)).measurements) == {"b", "c"}


def test_an_unwritable_folder(folder, capsys):
    write_run(folder / ".benchmarks" / "last_run.json", "a")
    (folder / "benchmarks").write_text("in the way")
    assert main(["accept"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_stored_keeps_every_field(folder):
    path = write_run(folder / ".benchmarks" / "last_run.json", "a")
    main(["accept"])
    assert json.loads(present(folder).read_text()) == json.loads(path.read_text())
