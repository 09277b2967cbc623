"""The plugin, end to end: empty and mistaken values, and what is the user's own."""

import json

import pytest

from perfgate.cli import main
from perfgate.judge.exit_codes import GateExit
from perfgate.run.processes import WorkerStoppedError
from tests.perfgate.inner_project import edit, newest_baseline, report_of

PLAIN = "def test_plain(benchmark): benchmark(sum, [1, 2])\n"


@pytest.fixture
def plain(project):
    """A folder with a benchmark that knows only pytest-benchmark."""
    project.makepyfile(test_small=PLAIN)
    return project


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--benchmark-compare="], "came with an empty value"),
        (["--benchmark-compare= "], "came with an empty value"),
        (["--benchmark-compare", "test_small.py"], "put what is to be run before it"),
        (["--benchmark-compare", "test_small.py::test_plain"], "put what is to be run before it"),
        (["--benchmark-compare", "."], "put what is to be run before it"),
        (["--benchmark-compare", "--baselines="], "its value is empty"),
        (["--benchmark-compare", "--baselines=typo"], "does not exist"),
        (["--benchmark-compare", "--baselines=test_small.py"], "is a file; expected a folder"),
        (["--benchmark-only", "--report="], "its value is empty"),
        (["--benchmark-only", "--report=test_small.py"], "is a file; expected a folder"),
        (["--benchmark-only", "--device="], "the device is ''"),
        (["--benchmark-only", "--device=cpu", "--timer=events"], "expected a CUDA device"),
        (["--benchmark-only", "--timer="], "invalid choice"),
        (["--benchmark-only", "--processes="], "it is ''; expected 1 or more"),
        (["--benchmark-compare", "--pairs=-1"], "expected 4 or more"),
        (["--benchmark-compare", "--false-alarm=nan"], "expected a probability"),
        (["--benchmark-only", "--worker-timeout=0"], "expected seconds"),
        (["--benchmark-only", "--worker-timeout=nan"], "expected seconds"),
    ],
)
def test_an_empty_or_mistaken_value_is_an_error_before_anything_runs(plain, options, words):
    result = plain.runpytest(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}*"])
    assert not (plain.path / ".benchmarks").exists()


def test_a_file_of_plain_pytest_benchmark_is_judged_where_it_is_named(plain):
    plain.runpytest("--benchmark-only", "--benchmark-json=base.json")

    def make_plain(data):
        data["machine_info"].pop("perfgate")
        for entry in data["benchmarks"]:
            entry["extra_info"] = {}

    edit(plain.path / "base.json", make_plain)
    result = plain.runpytest("--benchmark-compare=base.json")
    # Its noise is unknown, and this folder has no earlier code to take turns with.
    assert result.ret == 0
    (verdict,) = report_of(plain)["verdicts"]
    assert verdict["status"] == "inconclusive"
    assert main(["accept", "--run", "base.json"]) == 1
    assert not (plain.path / "benchmarks").exists()


USERS = """
import pytest

def test_workers(benchmark):
    benchmark.extra_info["processes"] = 4
    benchmark.extra_info["memory"] = "much"
    benchmark.extra_info["calibration"] = None
    benchmark(sum, range(100))

@pytest.mark.benchmark(timer=lambda: 5.0)
def test_coarse(benchmark):
    benchmark.pedantic(lambda: None, rounds=3, iterations=1)

BACKWARDS = iter(range(10**6, 0, -1))

@pytest.mark.benchmark(timer=lambda: next(BACKWARDS))
def test_backwards(benchmark):
    benchmark.pedantic(lambda: None, rounds=3, iterations=1)
"""


def test_figures_and_timers_of_the_users_own(plain):
    plain.makepyfile(test_small=USERS)
    result = plain.runpytest("--benchmark-only", "-k", "not backwards")
    assert result.ret == 0
    assert main(["accept"]) == 0
    data = json.loads(newest_baseline(plain).read_text())
    workers, coarse = (entry["extra_info"] for entry in data["benchmarks"])
    assert {key: workers[key] for key in ("processes", "memory", "calibration")} == {
        "processes": 4,
        "memory": "much",
        "calibration": None,
    }
    assert coarse == {}
    result = plain.runpytest("--benchmark-compare", "--processes=1")
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(["*test_backwards is left out, since its time is none*"])


def test_a_users_file_beside_the_json_stays(plain):
    notes = plain.path / "BENCHMARKS.md"
    notes.write_text("three years of notes\n")
    result = plain.runpytest("--benchmark-only", "--benchmark-json=BENCHMARKS.json")
    assert notes.read_text() == "three years of notes\n"
    result.stdout.fnmatch_lines(["*BENCHMARKS.md is left alone*"])
    for _ in range(2):  # and a table of ours is replaced
        plain.runpytest("--benchmark-only", "--benchmark-json=other.json")
        assert (plain.path / "other.md").read_text().startswith("Measured ")


@pytest.mark.parametrize("option", ["--ignore=test_b.py", "--ignore-glob=*_b.py", "--ignore=sub"])
def test_what_is_ignored_is_left_out_on_purpose(plain, option):
    plain.mkdir("sub")
    (plain.path / "sub" / "test_c.py").write_text(PLAIN)
    plain.makepyfile(test_b=PLAIN)
    assert plain.runpytest("--benchmark-only").ret == 0
    assert main(["accept"]) == 0
    result = plain.runpytest("--benchmark-compare", option)
    statuses = {v["name"]: v["status"] for v in report_of(plain)["verdicts"]}
    assert len(statuses) == 2
    assert "missing" not in statuses.values()
    assert result.ret != GateExit.MISSING
    (plain.path / "test_b.py").unlink()
    result = plain.runpytest("--benchmark-compare", "--ignore=other")
    assert result.ret == GateExit.MISSING


def test_a_run_that_fails_leaves_no_older_one_to_accept(plain):
    assert plain.runpytest("--benchmark-only").ret == 0
    plain.makepyfile(test_small="def test_plain(benchmark): raise RuntimeError")
    assert plain.runpytest("--benchmark-only").ret == 1
    assert main(["accept"]) == 1
    assert not (plain.path / "benchmarks").exists()


def test_a_process_that_stopped_has_a_status_of_its_own(plain, monkeypatch):
    def stop(*arguments):
        raise WorkerStoppedError("it hung in test_plain")

    monkeypatch.setattr("perfgate.session.measure_again", stop)
    result = plain.runpytest("--benchmark-only", "--processes=2")
    assert result.ret == GateExit.STOPPED == 18
    result.stdout.fnmatch_lines(["it hung in test_plain", "exit status 18: stopped"])


def test_a_benchmark_that_waits_for_ever_ends_the_run(plain):
    plain.makepyfile(test_small="import time\ndef test_plain(benchmark): time.sleep(100)")
    result = plain.runpytest_subprocess("--benchmark-only", "--worker-timeout=1", timeout=60)
    assert result.ret == GateExit.STOPPED
    result.stdout.fnmatch_lines(["test_small.py::test_plain made no progress for 1 seconds*"])
