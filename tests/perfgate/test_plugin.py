"""The plugin, end to end: what is measured and kept, in which files, and by which options."""

import json
import platform
import xml.etree.ElementTree as ElementTree

import pytest

from perfgate import session
from perfgate.judge.parse import parse_run
from perfgate.judge.place import OURS
from tests.perfgate.inner_project import MEASURE_AGAIN, Clock, last_run, report_of, slow_down


def test_plain_pytest_runs_each_benchmark_once_untimed(project):
    result = project.runpytest()
    result.assert_outcomes(passed=2)
    assert not (project.path / ".benchmarks" / "last_run.json").exists()


def test_benchmark_only_measures_and_keeps_the_run(project):
    project.makepyfile(test_other="def test_other(): pass")
    result = project.runpytest("--benchmark-only")
    result.assert_outcomes(passed=2, deselected=1)
    result.stdout.fnmatch_lines(["*[[]1/2] test_small*", "*| implementation *", "*| mlp *"])
    # One line for each benchmark, and none of the file's name alone.
    progress = [line for line in result.outlines if line.startswith("[")]
    assert [line.split()[2] for line in progress] == [".", "."]
    assert not [line for line in result.outlines if line.startswith("test_small.py")]
    data = json.loads((project.path / ".benchmarks" / "last_run.json").read_text())
    assert "| mlp " in (project.path / ".benchmarks" / "last_run.md").read_text()
    by_name = {b["name"]: b["extra_info"][OURS] for b in data["benchmarks"]}
    info = by_name["test_small[fused_fourier_kan]"]
    assert info["measured"] == {
        "case": "small",
        "implementation": "fused_fourier_kan",
        "batch": 8,
        "widths": [6, 5, 1],
        "config": {},
        "pass": "forward",
        "reference": "product",
        "reference_flops": info["flops"],
        "cache": "warm",
        "keeps_freed_memory": info["measured"]["keeps_freed_memory"],
    }
    (process,) = info["processes"]
    assert process == {
        "median_ns": pytest.approx(Clock.step * 1e9),
        "ratio": pytest.approx(1),
        "ratio_to_mlp": pytest.approx(1),
        "rounds": 12,
        "disturbed": 0,
    }
    assert info["parameters"] == info["trainable_parameters"] == 6 * 5 * 10 + 5 + 5 * 10 + 1
    assert info["flops"] == 2 * 8 * (60 * 5 + 50 * 1)
    assert info["memory"].keys() == {"forward_peak_bytes", "backward_peak_bytes", "saved_bytes"}
    assert info["memory"]["saved_bytes"] == 8 * 5 * 4
    assert info["floor_fraction"] == pytest.approx(1)
    # What pytest-benchmark itself analyses and stores are the same rounds.
    assert data["benchmarks"][0]["stats"]["data"] == [Clock.step] * 12
    assert data["machine_info"]["perfgate"]["device_key"].startswith("cpu_")


def test_processes_share_the_time_of_a_benchmark(project, others):
    assert project.runpytest("--benchmark-only", "--processes=5").ret == 0
    data = json.loads((project.path / ".benchmarks" / "last_run.json").read_text())
    for entry in data["benchmarks"]:
        assert [p["rounds"] for p in entry["extra_info"][OURS]["processes"]] == [2] * 5
    assert len(others.asked) == 4


def test_stored_statistics_are_those_of_the_process_in_the_middle(project, monkeypatch):
    project.runpytest("--benchmark-only")
    text = (project.path / ".benchmarks" / "last_run.json").read_text()
    factors = iter([3, 2])

    def measure(*arguments):
        data, factor = json.loads(text), next(factors)
        for entry in data["benchmarks"]:
            entry["stats"]["data"] = [factor * Clock.step] * 7
            entry["extra_info"][OURS]["processes"][0]["median_ns"] = factor * Clock.step * 1e9
        return data

    monkeypatch.setattr(session, "measure_again", MEASURE_AGAIN)
    monkeypatch.setattr(session, "measure_in_process", measure)
    assert project.runpytest("--benchmark-only", "--processes=3").ret == 0
    for entry in last_run(project):
        assert entry["stats"]["median"] == entry["stats"]["max"] == 2 * Clock.step
        assert entry["stats"]["data"] == [2 * Clock.step] * 7
        assert entry["stats"]["rounds"] == 7
        medians = [p["median_ns"] for p in entry["extra_info"][OURS]["processes"]]
        assert medians == pytest.approx([Clock.step * 1e9 * factor for factor in (1, 3, 2)])


def test_a_run_says_which_machine_it_was_and_not_its_name(project):
    project.runpytest("--benchmark-only")
    text = (project.path / ".benchmarks" / "last_run.json").read_text()
    info = json.loads(text)["machine_info"]
    assert info["perfgate"]["machine"].keys() == {"id", "hypervisor", "boot"}
    assert platform.node() not in info["node"]
    run = parse_run(json.loads(text))
    assert run.machine.boot == info["perfgate"]["machine"]["boot"]
    assert "machine" not in run.environment


def test_a_folder_that_cannot_be_written_loses_only_the_copy(project):
    (project.path / ".benchmarks").write_text("in the way")
    result = project.runpytest("--benchmark-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*| mlp *", "*cannot be written*the run is not kept*"])


def test_benchmark_json_gets_its_table_beside_it(project):
    project.runpytest("--benchmark-json=out.json")
    assert "| mlp " in (project.path / "out.md").read_text()
    assert len(json.loads((project.path / "out.json").read_text())["benchmarks"]) == 2


def test_reports_say_what_the_terminal_says(accepted, monkeypatch, turns):
    slow_down(monkeypatch, 1.2)
    turns.factor = 1.2
    accepted.runpytest("--benchmark-compare")
    report = report_of(accepted)
    statuses = {entry["name"]: entry["status"] for entry in report["verdicts"]}
    assert statuses["test_small.py::test_small[fused_fourier_kan]"] == "regressed"
    assert report["exit"]["code"] == 10
    names = {path.name for path in (accepted.path / ".benchmarks" / "report").iterdir()}
    assert {"summary.md", "junit.xml", "bencher.json", "exit_code"} <= names


def test_another_folder_for_the_reports(project):
    project.runpytest("--benchmark-only", "--report=gate")
    assert (project.path / "gate" / "report.json").exists()


def test_junit_holds_figures_and_verdicts(accepted, monkeypatch, turns):
    slow_down(monkeypatch, 1.2)
    turns.factor = 1.2
    accepted.runpytest("--benchmark-compare", "--junitxml=junit.xml")
    root = ElementTree.parse(accepted.path / "junit.xml").getroot()
    cases = {case.get("name"): case for case in root.iter("testcase")}
    figures = {p.get("name") for p in cases["test_small[mlp]"].iter("property")}
    assert any("median" in name for name in figures)
    suite = {p.get("name"): p.get("value") for p in root.find("testsuite/properties")}
    assert any("regressed" in value for value in suite.values())


def test_cuda_without_cuda(project, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = project.runpytest("--device=cuda")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: the device is 'cuda', but torch * finds 0 CUDA devices*"])


@pytest.mark.parametrize(
    "options",
    [
        ["--require-baseline"],
        ["--fail-on-improved"],
        ["--fail-on-inconclusive"],
        ["--allow-unjudged"],
        ["--against=main"],
        ["--benchmark-compare", "--pairs=1"],
        ["--benchmark-compare", "--benchmark-compare-fail=min:5%"],
        ["--benchmark-compare", "--false-alarm=0"],
        ["--benchmark-only", "--processes=0"],
    ],
)
def test_options_that_do_not_go_together(project, options):
    assert project.runpytest(*options).ret == pytest.ExitCode.USAGE_ERROR


def test_a_worker_measures_what_it_is_told_and_nothing_else(project, tmp_path):
    order = tmp_path / "order.json"
    order.write_text(
        json.dumps(
            {
                "output": str(tmp_path / "out.json"),
                "names": ["test_small.py::test_small[mlp]"],
                "only_times": True,
                "processes": 2,
                "keep_rounds": True,
                "channel": None,
            }
        )
    )
    result = project.runpytest("--benchmark-compare", f"--kan-worker={order}", "--junitxml=x.xml")
    assert result.ret == 0
    (entry,) = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert entry["fullname"] == "test_small.py::test_small[mlp]"
    assert "memory" not in entry["extra_info"][OURS]
    assert len(entry["extra_info"][OURS]["rounds"]) == 6  # half of the twelve
    assert not (project.path / ".benchmarks" / "last_run.json").exists()
    assert not (project.path / "x.xml").exists()
