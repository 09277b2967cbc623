"""The plugin, end to end: what is missing, what is incomparable, and settings of a run."""

import json

import pytest
import torch

from perfgate import configure, session
from perfgate.judge.exit_codes import GateExit
from perfgate.judge.place import OURS
from perfgate.measure.cuda_timing import TIMERS
from tests.perfgate.inner_project import (
    BENCHMARK,
    MEASURE_AGAIN,
    Clock,
    edit,
    last_run,
    measure_and_accept,
    newest_baseline,
)

SETTING = "import torch\ntorch.set_num_threads(3)\n" + BENCHMARK
CHANGES = """

def test_after(benchmark):
    torch.set_num_threads({})
    benchmark(sum, range(100))
"""


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_benchmark_that_is_gone_is_missing(accepted):
    accepted.makepyfile(test_small=BENCHMARK.replace(', "fused_fourier_kan"]', "]"))
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*missing*fused_fourier_kan*"])


def test_a_skipped_benchmark_is_missing_with_the_reason(accepted, monkeypatch):
    monkeypatch.setattr("perfgate.measure.memory.free_bytes", lambda device: 5000)
    accepted.makepyfile(test_plain="def test_plain(benchmark): benchmark(sum, [1, 2])")
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*missing*", "*it was skipped (* needs an*"])


def test_what_the_user_left_out_is_not_missing(accepted):
    assert accepted.runpytest("--benchmark-compare", "-k", "mlp").ret == 0
    # The path after another option, because --benchmark-compare takes a value.
    mlp = "test_small.py::test_small[mlp]"
    assert accepted.runpytest("--benchmark-compare", "-q", mlp).ret == 0


def test_a_path_that_leaves_out_nothing_hides_nothing(accepted):
    accepted.makepyfile(test_small=BENCHMARK.replace(', "fused_fourier_kan"]', "]"))
    folder = f"{accepted.path}/../{accepted.path.name}"
    result = accepted.runpytest("--benchmark-compare", "-q", folder)
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*missing*fused_fourier_kan*"])


def test_another_case_is_incomparable(accepted):
    accepted.makepyfile(test_small=BENCHMARK.replace(", 8, ", ", 9, "))
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 13
    result.stdout.fnmatch_lines(["*incomparable*", "*batch was 8 and is 9*"])


def test_another_timer_is_incomparable(project, monkeypatch):
    monkeypatch.setitem(TIMERS, "events", Clock)
    monkeypatch.setattr(configure, "check_timer", lambda name, device: None)
    measure_and_accept(project)
    result = project.runpytest("--benchmark-compare", "--timer=events")
    assert result.ret == GateExit.INCOMPARABLE == 13
    result.stdout.fnmatch_lines(["*incomparable*", "*timer*events*"])
    assert {entry["extra_info"][OURS]["measured"]["timer"] for entry in last_run(project)} == {
        "events"
    }


def test_another_device_is_incomparable(accepted):
    other = accepted.path / "other.json"
    other.write_text(newest_baseline(accepted).read_text())
    edit(other, lambda data: data["machine_info"]["perfgate"].update(device_key="cuda_other"))
    result = accepted.runpytest(f"--benchmark-compare={other}")
    assert result.ret == 13
    result.stdout.fnmatch_lines(["*incomparable*", "*cuda_other*"])


def test_a_module_is_judged_by_what_it_sets(project, threads):
    project.makepyfile(test_small=SETTING)
    measure_and_accept(project)
    assert "_threads3_" in newest_baseline(project).parent.name
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 unchanged"])
    result.stdout.no_fnmatch_line("*measured with*")


def test_settings_that_change_during_a_run_are_named_and_compared_only_with_the_same(
    project, threads
):
    project.makepyfile(test_small=SETTING + CHANGES.format(1))
    measure_and_accept(project)
    (after,) = (b for b in last_run(project) if b["name"] == "test_after")
    assert after["extra_info"][OURS]["measured"] == {"threads": 1}
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["measured with threads 1, where the run began with threads 3, *::test_after;*"]
    )
    project.makepyfile(test_small=SETTING + CHANGES.format(2))
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 13
    result.stdout.fnmatch_lines(["*incomparable*after*", "*threads was 1 and is 2*"])


def test_a_process_of_other_settings_is_no_replicate(project, others, threads, monkeypatch):
    project.makepyfile(test_small=SETTING + CHANGES.format(1))
    project.runpytest("--benchmark-only")
    measured = json.loads((project.path / ".benchmarks" / "last_run.json").read_text())
    del measured["benchmarks"][-1]["extra_info"][OURS]["measured"]
    monkeypatch.setattr(session, "measure_again", MEASURE_AGAIN)
    monkeypatch.setattr(session, "measure_in_process", lambda *a: measured)
    result = project.runpytest("--benchmark-only", "--processes=2")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*test_after: threads was 1 and is None in a fresh process;*"])


def test_a_process_of_another_key_is_no_replicate(project, others, threads, monkeypatch):
    """Settings of a module that holds none of the benchmarks are not a worker's."""
    project.makepyfile(test_other="import torch\ntorch.set_num_threads(3)\ndef test_x(): pass")
    alone = project.path / "test_small.py"
    torch.set_num_threads(2)
    project.runpytest("--benchmark-only", str(alone))
    measured = json.loads((project.path / ".benchmarks" / "last_run.json").read_text())
    monkeypatch.setattr(session, "measure_again", MEASURE_AGAIN)
    monkeypatch.setattr(session, "measure_in_process", lambda *a: measured)
    result = project.runpytest("--benchmark-only", "--processes=2")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["a fresh process is *_threads2_* and the first one *_threads3_*"])
