"""The plugin, end to end in small folders: what is measured, judged, and the exit status.

Time is a clock that only the benchmark itself moves, so that no verdict here depends on
the machine; memory is real.
"""

import json

import pytest
import torch

from kan_impls import get_variant
from kan_impls.bench import runner
from kan_impls.bench.case import Case
from kan_impls.bench.cli import main
from kan_impls.bench.measure import floor
from kan_impls.bench.workload import Workload

CONFTEST = """
pytest_plugins = ["kan_impls.bench.plugin"]

def pytest_benchmark_generate_machine_info():
    return {}  # asking the processor takes a second
"""

BENCHMARK = """
import pytest
from kan_impls import get_variant
from kan_impls.bench.case import Case

@pytest.mark.parametrize("name", ["mlp", "fused_fourier_kan"])
def test_small(measure, name):
    case = Case("small", get_variant(name), 8, (6, 5, 1))
    measure(case, "forward", beside=Case("small", get_variant("mlp"), 8, (6, 5, 1)))
"""


class Clock:
    """All clocks are one, and move by 10 ms at each reading: so long lasts what lies between."""

    now = 0.0

    def __init__(self, device=None):
        pass

    def __call__(self):
        Clock.now += 0.01
        return Clock.now


@pytest.fixture(scope="module", autouse=True)
def _import_all_once():
    # pytester forgets the modules that a run has imported: slow, and torch bears no second time.
    case = Case("small", get_variant("fused_fourier_kan"), 8, (6, 5, 1))
    runner.check_memory(case, torch.device("cpu"))
    Workload(case, "backward", torch.device("cpu")).measure_memory()


@pytest.fixture
def project(pytester, monkeypatch):
    """A folder with two benchmarks, and a clock that makes every round last equally long."""
    for module in (runner, floor):
        monkeypatch.setattr(module, "SynchronizedTimer", Clock)
    monkeypatch.setattr("kan_impls.bench.plugin.SynchronizedTimer", Clock)
    floor.measure_floor.cache_clear()
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_small=BENCHMARK)
    options = "--benchmark-max-time=0.1 --benchmark-min-rounds=3"
    # Hypothesis would be imported anew in every run.
    pytester.makeini(f"[pytest]\naddopts = {options} -p no:hypothesispytest")
    yield pytester
    floor.measure_floor.cache_clear()


def slow_down(monkeypatch, factor):
    """Every pass of the fused layer takes `factor` times as long."""
    original = Workload.run

    def run(self):
        original(self)
        if "Fused" in type(next(iter(self.model.children()))).__name__ or "Fused" in str(
            self.model
        ):
            Clock.now += 0.01 * (factor - 1)

    monkeypatch.setattr(Workload, "run", run)


def waste_memory(monkeypatch):
    original = Workload.forward

    def forward(self):
        wasted = torch.empty(1024)
        result = original(self)
        del wasted
        return result

    monkeypatch.setattr(Workload, "forward", forward)


def measure_and_accept(project):
    assert project.runpytest("--benchmark-only").ret == 0
    assert main(["accept"]) == 0


def test_plain_pytest_runs_each_benchmark_once_untimed(project):
    result = project.runpytest()
    result.assert_outcomes(passed=2)
    assert not (project.path / ".benchmarks" / "last_run.json").exists()


def test_benchmark_only_measures_and_keeps_the_run(project):
    project.makepyfile(test_other="def test_other(): pass")
    result = project.runpytest("--benchmark-only")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*[[]1/2] test_small*", "*| implementation *", "*| mlp *"])
    data = json.loads((project.path / ".benchmarks" / "last_run.json").read_text())
    assert "| mlp " in (project.path / ".benchmarks" / "last_run.md").read_text()
    info = {b["name"]: b["extra_info"] for b in data["benchmarks"]}["test_small[fused_fourier_kan]"]
    assert info["measured"] == {
        "case": "small", "implementation": "fused_fourier_kan", "batch": 8,
        "widths": [6, 5, 1], "config": {}, "pass": "forward", "reference": "product",
    }  # fmt: skip
    assert info["ratio"] == info["ratio_to_mlp"] == pytest.approx(1)
    assert info["parameters"] == info["trainable_parameters"] == 6 * 5 * 10 + 5 + 5 * 10 + 1
    assert info["flops"] == 2 * 8 * (60 * 5 + 50 * 1)
    assert info["memory"].keys() == {"forward_peak_bytes", "backward_peak_bytes", "saved_bytes"}
    assert info["memory"]["saved_bytes"] == 8 * 5 * 4
    assert info["floor_fraction"] == pytest.approx(1)
    assert len(data["benchmarks"][0]["stats"]["data"]) == 10
    assert data["machine_info"]["kan_impls"]["device_key"].startswith("cpu_")


def test_a_benchmark_without_a_baseline(project):
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no_baseline *store one with: kan-bench accept", "2 no_baseline"])
    assert project.runpytest("--benchmark-compare", "--require-baseline").ret == 1


def test_unchanged_code_is_unchanged(project):
    measure_and_accept(project)
    result = project.runpytest("--benchmark-compare", "--require-baseline")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 unchanged"])


def test_a_slower_layer_is_regressed(project, monkeypatch):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.2)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["unchanged *mlp*", "regressed *fused_fourier_kan*+20.0% *(limit 10%)"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_faster_layer_is_improved(project, monkeypatch):
    measure_and_accept(project)
    slow_down(monkeypatch, 0.7)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["improved *fused_fourier_kan*-30.0%*", "improved: keep it*"])


def test_4_kib_more_are_regressed(project, monkeypatch):
    measure_and_accept(project)
    waste_memory(monkeypatch)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["regressed *forward_peak_bytes +4,096 B*"])


def test_a_benchmark_that_is_gone_is_missing(project):
    measure_and_accept(project)
    project.makepyfile(test_small=BENCHMARK.replace(', "fused_fourier_kan"]', "]"))
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["missing *fused_fourier_kan*"])


def test_a_skipped_benchmark_is_missing_with_the_reason(project, monkeypatch):
    measure_and_accept(project)
    monkeypatch.setattr("kan_impls.bench.measure.memory.free_bytes", lambda device: 5000)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["missing *it was skipped (* needs an estimated * GB*"])


def test_what_the_user_left_out_is_not_missing(project):
    measure_and_accept(project)
    assert project.runpytest("--benchmark-compare", "-k", "mlp").ret == 0
    # The path after another option, because --benchmark-compare takes a value.
    assert project.runpytest("--benchmark-compare", "-q", "test_small.py::test_small[mlp]").ret == 0


def test_a_path_that_leaves_out_nothing_hides_nothing(project):
    measure_and_accept(project)
    project.makepyfile(test_small=BENCHMARK.replace(', "fused_fourier_kan"]', "]"))
    folder = f"{project.path}/../{project.path.name}"
    result = project.runpytest("--benchmark-compare", "-q", folder)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["missing *fused_fourier_kan*"])


def test_another_case_is_incomparable(project):
    measure_and_accept(project)
    project.makepyfile(test_small=BENCHMARK.replace(", 8, ", ", 9, "))
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["incomparable *batch was 8 and is 9*"])


def test_another_device_is_incomparable(project):
    measure_and_accept(project)
    path = next((project.path / "benchmarks" / "baselines").glob("*/*.json"))
    data = json.loads(path.read_text())
    data["machine_info"]["kan_impls"]["device_key"] = "cuda_other"
    other = project.path / "other.json"
    other.write_text(json.dumps(data))
    result = project.runpytest(f"--benchmark-compare={other}")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["incomparable *cuda_other*"])


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip", "-k=nothing"])
def test_a_run_that_measures_nothing_fails(project, option):
    measure_and_accept(project)
    result = project.runpytest("--benchmark-compare", option)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["nothing was measured; expected one benchmark or more*"])


def test_a_damaged_baseline_stops_the_run_before_it_measures(project):
    measure_and_accept(project)
    path = next((project.path / "benchmarks" / "baselines").glob("*/*.json"))
    path.write_text(path.read_text()[:200])
    result = project.runpytest("--benchmark-compare")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *0001_*.json is not a complete run*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_unknown_baseline(project):
    measure_and_accept(project)
    result = project.runpytest("--benchmark-compare=0042")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: the baseline '0042' does not exist*"])


def test_a_folder_that_cannot_be_written_loses_only_the_copy(project):
    (project.path / ".benchmarks").write_text("in the way")
    result = project.runpytest("--benchmark-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*| mlp *", "*cannot be written*the run is not kept*"])


def test_benchmark_json_gets_its_table_beside_it(project):
    project.runpytest("--benchmark-json=out.json")
    assert "| mlp " in (project.path / "out.md").read_text()
    assert len(json.loads((project.path / "out.json").read_text())["benchmarks"]) == 2


def test_cuda_without_cuda(project, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = project.runpytest("--device=cuda")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: the device is 'cuda', but torch * finds 0 CUDA devices*"])


def test_options_that_do_not_go_together(project):
    result = project.runpytest("--require-baseline")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --require-baseline came alone*"])
    result = project.runpytest("--benchmark-compare", "--benchmark-compare-fail=min:5%")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_plain_benchmark_of_somebody_else_is_judged_too(project):
    project.makepyfile(test_small="def test_plain(benchmark): benchmark(sum, [1, 2])")
    measure_and_accept(project)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_plain*without a reference*"])
