"""The plugin, end to end: runs that measure nothing, break, or have no whole baseline."""

import pytest

from perfgate import session
from tests.perfgate.inner_project import BENCHMARK, newest_baseline


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip", "-k=nothing"])
def test_a_run_that_measures_nothing_fails(accepted, option):
    result = accepted.runpytest("--benchmark-compare", option)
    assert result.ret == 12
    result.stdout.fnmatch_lines(["nothing was measured; expected one benchmark or more*"])


def test_a_run_under_xdist_measures_nothing_and_fails(project):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    project.makepyfile(test_small="def test_plain(benchmark): benchmark(sum, [1, 2])")
    result = project.runpytest("--benchmark-compare", "-n1")
    assert result.ret == 12


def test_a_run_in_which_all_are_skipped_fails(accepted):
    skipped = BENCHMARK.replace("def test_small", '@pytest.mark.skip("no")\ndef test_small')
    accepted.makepyfile(test_small=skipped.replace("skip(", "skip(reason="))
    assert accepted.runpytest("--benchmark-compare").ret == 12


def test_a_benchmark_that_fails_keeps_pytests_own_status(accepted):
    failing = BENCHMARK.replace("    case =", "    assert name == 'mlp'\n    case =")
    accepted.makepyfile(test_small=failing)
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*missing*", "*but it failed*"])


def test_another_process_that_breaks_fails_the_run(accepted, monkeypatch):
    def broken(state, names):
        raise session.WorkerError("a measuring process ended with status 3")

    monkeypatch.setattr(session, "measure_again", broken)
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["a measuring process ended with status 3"])


@pytest.mark.parametrize("text", ["{", "[]", '{"benchmarks": 3}'])
def test_a_damaged_baseline_stops_the_run_before_it_measures(accepted, text):
    newest_baseline(accepted).write_text(text)
    result = accepted.runpytest("--benchmark-compare")
    assert result.ret == 14
    result.stderr.fnmatch_lines(["*0001_*.json is not a complete run*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*test_small*")


def test_an_unknown_baseline(accepted):
    result = accepted.runpytest("--benchmark-compare=0042")
    assert result.ret == 14
    result.stderr.fnmatch_lines(["*the baseline '0042' does not exist*"])
