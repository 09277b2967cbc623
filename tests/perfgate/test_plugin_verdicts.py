"""The plugin, end to end: what each verdict takes, and its exit status."""

import pytest

from perfgate.cli import main
from perfgate.judge.exit_codes import GateExit
from perfgate.run import runner
from tests.perfgate.inner_project import measure_and_accept, report_of, slow_down, waste_memory
from tests.perfgate.test_rounds import Script

FUSED = "test_small.py::test_small[fused_fourier_kan]"


def test_a_benchmark_without_a_baseline(project):
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no baseline*", "*store one with: kan-bench accept*"])
    assert project.runpytest("--benchmark-compare", "--require-baseline").ret == 15


def test_unchanged_code_is_unchanged(accepted, others):
    others.asked.clear()
    result = accepted.runpytest("--benchmark-compare", "--require-baseline")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 unchanged", "*exit status 0: passed"])
    # Three processes, and none to compare anything in turns.
    assert len(others.asked) == 2


def test_a_slower_layer_is_regressed_once_the_earlier_code_says_so(accepted, monkeypatch, turns):
    slow_down(monkeypatch, 1.2)
    turns.factor = 1.19
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == GateExit.REGRESSED == 10
    result.stdout.fnmatch_lines(
        ["*unchanged*mlp*", "*regressed*fused_fourier_kan*+19.0%*", "exit status 10: regressed"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    # Only what stored times left open was asked.
    assert turns.asked == [(FUSED, "baseline")]
    entry = next(m for m in report_of(accepted)["measurements"] if m["name"] == FUSED)
    assert [pair["time_factor"] for pair in entry["pairs"]] == [1.19] * 4


def test_a_busy_minute_is_no_regression(accepted, monkeypatch, turns):
    slow_down(monkeypatch, 1.2)
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 unchanged"])
    assert turns.asked == [(FUSED, "baseline")]


def test_without_the_earlier_code_a_change_is_not_clear(accepted, monkeypatch):
    slow_down(monkeypatch, 1.2)
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*inconclusive*fused_fourier_kan*", "*without a git commit*"])
    assert accepted.runpytest("--benchmark-compare", "--fail-on-inconclusive").ret == 17


def test_a_benchmark_of_which_no_time_could_be_judged_fails(accepted, monkeypatch):
    slow_down(monkeypatch, 3.3)
    monkeypatch.setattr(runner, "witness_of", lambda device: Script(*["waited"] * 1000))
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == GateExit.UNJUDGED == 19
    result.stdout.fnmatch_lines(["*the machine was busy*", "2 unjudged", "*19: unjudged"])
    assert accepted.runpytest("--benchmark-compare", "--allow-unjudged").ret == 0


def test_a_disturbed_machine_is_no_excuse_where_the_earlier_code_tells(
    accepted, monkeypatch, turns
):
    turns.factor = 3.3
    monkeypatch.setattr(runner, "witness_of", lambda device: Script(*["waited"] * 1000))
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*regressed*fused_fourier_kan*+230%*"])
    assert len(turns.asked) == 2


def test_noise_that_nobody_measured_is_not_guessed(project, turns, others):
    assert project.runpytest("--benchmark-only").ret == 0
    assert main(["accept"]) == 0
    others.asked.clear()
    turns.factor = 1.05
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["1 regressed, 1 unchanged"])
    assert len(turns.asked) == 2
    assert others.asked == []  # more stored times would say no more


def test_a_faster_layer_is_improved(accepted, monkeypatch, turns):
    slow_down(monkeypatch, 0.7)
    turns.factor = 0.7
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*improved*fused_fourier_kan*-30.0%*", "improved: keep it*"])
    assert accepted.runpytest("--benchmark-compare", "--fail-on-improved").ret == 16


def test_4_kib_more_are_regressed(accepted, monkeypatch):
    waste_memory(monkeypatch)
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*forward_peak_bytes +4,096 B*"])


def test_many_small_losses_are_seen_since_the_oldest_baseline(accepted, monkeypatch, turns):
    slow_down(monkeypatch, 1.04)
    measure_and_accept(accepted)
    slow_down(monkeypatch, 1.04)  # once more
    turns.factor = 1.08
    result = accepted.runpytest("--benchmark-compare=0001")
    assert result.ret == 10
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 10
    result.stdout.fnmatch_lines(
        ["oldest baseline: *0001_*.json", "*in turns with the oldest baseline's code*"]
    )
    assert turns.asked[-1] == (FUSED, "baseline", "anchor")
    # Accepted as what it is, with the reason, it is where the next ones start from.
    assert main(["accept", "--new-history", "the accurate mode costs that"]) == 0
    turns.factor = 1.0
    assert accepted.runpytest("--benchmark-compare").ret == 0


def test_limits_come_from_pyproject(accepted, monkeypatch):
    slow_down(monkeypatch, 1.2)
    entry = '[[tool.perfgate.limits]]\nimplementation = "fused_*"\nratio = 0.5\n'
    (accepted.path / "pyproject.toml").write_text(entry)
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *reason is None; expected a sentence*"])
    (accepted.path / "pyproject.toml").write_text(entry + 'reason = "a test"')
    assert accepted.runpytest("--benchmark-compare").ret == 0


def test_a_plain_benchmark_of_somebody_else_is_judged_too(project):
    project.makepyfile(test_small="def test_plain(benchmark): benchmark(sum, [1, 2])")
    assert project.runpytest("--benchmark-only").ret == 0
    assert main(["accept"]) == 0
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0  # of one process nobody knows the noise, and here is no earlier code
    result.stdout.fnmatch_lines(["inconclusive*plain*", "*without a git commit*"])
