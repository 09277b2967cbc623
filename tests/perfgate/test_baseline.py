"""Baselines on disk: nothing stored is lost, and nothing broken is believed."""

import csv
import itertools
import os
import subprocess
import sys
from pathlib import Path
from statistics import median_high, median_low

import pytest

from perfgate import compare
from perfgate.judge.parse import parse_run
from perfgate.store import baseline
from tests.forked import forked
from tests.perfgate.runs import run_data, store, write_run


def test_the_newest_of_a_device_is_found(tmp_path):
    for name in ("first", "second"):
        store(tmp_path, "cpu_test", run_data("a"), name)
    store(tmp_path, "other", run_data("a"), "third")
    assert baseline.find(tmp_path, "cpu_test").name == "0002_second.json"
    assert baseline.find(tmp_path, "cpu_test", "0001").name == "0001_first.json"
    assert baseline.find(tmp_path, "cpu_test", "1").name == "0001_first.json"
    assert baseline.find(tmp_path, "unknown") is None


def test_numbers_sort_as_numbers(tmp_path):
    write_run(tmp_path / "k" / "9999_a.json", "a")
    assert store(tmp_path, "k", run_data("a"), "b").name == "10000_b.json"
    assert baseline.find(tmp_path, "k").name == "10000_b.json"


def test_a_file_can_be_named(tmp_path):
    path = write_run(tmp_path / "elsewhere.json", "a")
    assert baseline.find(tmp_path, "cpu_test", str(path)) == path


def test_a_baseline_that_is_not_there(tmp_path):
    store(tmp_path, "cpu_test", run_data("a"), "first")
    with pytest.raises(baseline.BaselineError, match=r"'0007' does not exist.*0001_first\.json"):
        baseline.find(tmp_path, "cpu_test", "0007")


def test_what_is_stored_is_read_back(tmp_path):
    path = store(tmp_path, "cpu_test", run_data("a", "b", ratio=1.25), "first")
    run = baseline.read_run(path)
    assert run.device_key == "cpu_test"
    assert list(run.measurements) == ["a", "b"]
    measurement = run.measurements["a"]
    assert measurement.median("ratio") == 1.25
    assert measurement.median_ns == pytest.approx(2e6)
    assert measurement.memory["forward_peak_bytes"] == 4096


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: '{"benchmarks": 3}',
        lambda text: text.replace('"median"', '"mode"'),
        lambda text: text.replace('"fullname"', '"name"'),
        lambda text: text.replace("0.002", '"fast"'),
        lambda text: "\x00\x01",
    ],
    ids=["truncated", "empty", "list", "object", "number", "stats", "name", "text", "binary"],
)
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    path = write_run(tmp_path / "k" / "0001_a.json", "a")
    path.write_text(damage(path.read_text()))
    with pytest.raises(baseline.BaselineError, match=r"is not a complete run.*restore") as caught:
        baseline.read_run(path)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_one_sentence(tmp_path):
    with pytest.raises(baseline.BaselineError, match=r"cannot be read .*: check the path"):
        baseline.read_run(tmp_path)


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    # A file where the folder should be: permissions would not stop root.
    (tmp_path / "baselines").write_text("in the way")
    with pytest.raises(baseline.BaselineError, match=r"cannot be written .*name another"):
        store(tmp_path / "baselines", "cpu_test", run_data("a"), "first")
    assert (tmp_path / "baselines").read_text() == "in the way"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_text("old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        baseline.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def store_ten(folder):
    for _ in range(10):
        store(folder, "k", run_data("a"), "x")


def test_two_at_once_lose_nothing(tmp_path):
    assert forked(store_ten, (tmp_path,), (tmp_path,)) == [0, 0]
    numbers = [int(path.name[:4]) for path in baseline.stored(tmp_path, "k")]
    assert numbers == list(range(1, 21))


def test_pytest_benchmark_reads_the_folder(tmp_path):
    store(tmp_path, "cpu_test", run_data("a"), "first")
    listed = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", f"--storage={tmp_path}", "list"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "0001_first.json" in listed.stdout


def stored_runs(tmp_path, *anchors):
    """As many baselines, each with its reason to start a new history, if any."""
    paths = []
    for anchor in anchors:
        data = run_data("a")
        data["perfgate"] = {"anchor": anchor}
        paths.append(store(tmp_path, "cpu_test", data, "x"))
    return paths


@pytest.mark.parametrize(
    ("anchors", "newest", "older"),
    [
        ([None, None, None], 2, [0, 1]),
        ([None, None, None], 1, [0]),
        ([None], 0, []),
        # A new history starts from itself.
        ([None, "a new mode", None], 2, [1]),
        ([None, "a new mode", None], 1, []),
        ([None, "a new mode"], 0, []),
    ],
)
def test_the_baselines_that_one_goes_on_from(tmp_path, monkeypatch, anchors, newest, older):
    paths = stored_runs(tmp_path, *anchors)
    found = baseline.forerunners(tmp_path, "cpu_test", paths[newest])
    assert found == [paths[number] for number in older]
    monkeypatch.chdir(tmp_path)
    assert baseline.forerunners(Path(), "cpu_test", paths[newest].relative_to(tmp_path)) == found


def test_a_baseline_from_elsewhere_goes_on_from_none(tmp_path):
    (path,) = stored_runs(tmp_path, None)
    other = tmp_path / "other.json"
    other.write_text(path.read_text())
    assert baseline.forerunners(tmp_path, "cpu_test", other) == []


def test_the_history_leaves_out_what_cannot_be_read(tmp_path):
    paths = stored_runs(tmp_path, None, None, "a reason")
    paths[1].write_text("{")
    assert [run.anchor for run in baseline.history(tmp_path, "cpu_test")] == [None, "a reason"]


def test_pytest_benchmark_compares_our_baselines(tmp_path):
    for name in ("first", "second"):
        store(tmp_path, "cpu_test", whole(run_data("a")), name)
    compared = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", f"--storage={tmp_path}", "compare"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert compared.returncode == 0, compared.stderr
    assert "benchmark: 2 tests" in compared.stdout


def whole(data):
    """All statistics that pytest-benchmark itself writes."""
    for entry in data["benchmarks"]:
        seconds = entry["stats"]["median"]
        names = ("min", "max", "mean", "q1", "q3", "ld15iqr", "hd15iqr")
        entry["stats"] |= dict.fromkeys(names, seconds)
        entry["stats"] |= {
            "stddev": 0.0,
            "iqr": 0.0,
            "total": seconds,
            "ops": 1 / seconds,
            "iterations": 1,
            "outliers": "0;0",
            "iqr_outliers": 0,
            "stddev_outliers": 0,
        }
        entry |= {"params": None, "param": None, "options": {}}
    return data


ZEN3 = {
    "device_type": "cpu",
    "torch": "2.13.0",
    "threads": 2,
    "matmul_precision": "highest",
    "microarchitecture": "zen3",
    "processor": "25.1.1",
    "cpu_capability": "AVX2",
    "cores": 2,
}
KEY = "cpu_zen3-25.1.1_avx2_cores2_torch2.13_threads2_highest"


def data_of(**facts):
    data = run_data("a")
    data["machine_info"]["perfgate"] = ZEN3 | facts
    return data


def test_a_baseline_is_found_by_its_facts_in_any_folder(tmp_path):
    path = store(tmp_path, "a-folder-of-before", data_of(), "x")
    store(tmp_path, "a-folder-of-before", data_of(microarchitecture="zen4"), "y")
    assert baseline.find(tmp_path, KEY) == path
    assert baseline.find(tmp_path, "a-folder-of-before") is None
    # The next one goes on counting, in the folder of its key.
    newer = store(tmp_path, KEY, data_of(), "z")
    assert newer == tmp_path / KEY / "0002_z.json"
    assert baseline.stored(tmp_path, KEY) == [path, newer]
    assert baseline.forerunners(tmp_path, KEY, newer) == [path]


def test_a_number_is_not_given_twice_in_a_folder(tmp_path):
    store(tmp_path, KEY, data_of(cpu_capability="AVX512"), "x")
    assert store(tmp_path, KEY, data_of(), "y").name == "0002_y.json"


def test_another_instruction_set_in_the_folder_is_no_baseline_and_not_nothing(tmp_path):
    path = store(tmp_path, KEY, data_of(cpu_capability="AVX512"), "x")
    assert baseline.find(tmp_path, KEY) is None
    assert baseline.misplaced(tmp_path, KEY) == path
    stored = compare.load(tmp_path, KEY, None, tmp_path / "pyproject.toml")
    (verdict,) = stored.judge(parse_run(data_of()), {}, [])
    assert verdict.status == "incomparable"
    assert "avx512" in verdict.cause


def test_a_damaged_file_is_missed_in_its_folder(tmp_path):
    path = store(tmp_path, KEY, data_of(), "x")
    path.write_text("{")
    assert baseline.find(tmp_path, KEY) == path


def test_the_committed_baselines_lie_in_the_folder_of_their_facts():
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "baselines"
    for path in folder.glob("*/*.json"):
        assert baseline.read_run(path).device_key == path.parent.name


def test_pytest_benchmark_reads_true_figures_in_the_committed_baselines(tmp_path):
    """Its own table ranks the benchmarks as our processes do."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "baselines"
    for number, path in enumerate(folder.glob("*/*.json")):
        table = tmp_path / f"{number}.csv"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest_benchmark",
                f"--storage={folder}",
                "compare",
                f"--csv={table}",
                "--columns=median",
                "--sort=fullname",
                str(path),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        rows = {row["name"]: float(row["median"]) for row in csv.DictReader(table.open())}
        found = baseline.read_run(path).measurements
        assert rows.keys() == found.keys()
        for name, seconds in rows.items():
            # Of an even number of processes two are in the middle, and one of them is stored. Its
            # median here is that of all rounds, and not of the undisturbed ones alone.
            each = found[name].values("median_ns")
            middle = {median(each) / 1e9 for median in (median_low, median_high)}
            assert min(abs(seconds / one - 1) for one in middle) <= 0.05
        for one, other in itertools.permutations(rows, 2):
            if found[one].median_ns * 1.2 < found[other].median_ns:
                assert rows[one] < rows[other]
