"""The plugin, end to end: runs that measure nothing, break, or have no whole baseline."""

import pytest

from perfgate import session
from tests.perfgate.inner_project import BENCHMARK, newest_baseline, report_of


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


FAULTY = (
    BENCHMARK.replace('["mlp", "fused_fourier_kan"]', '["mlp", "broken", "excused"]').replace(
        "    case = Case",
        """    if name in ("broken", "excused"):
        try:
            measure(Case("small", Broken(name), 8, (6, 5, 1)), "forward")
        except RuntimeError as error:
            if name == "broken":
                raise
            pytest.xfail(f"as expected, {error}")
    case = Case""",
    )
    + """
class Broken:
    def __init__(self, name):
        self.name, self.bound, self.functions_per_input = name, "product", lambda config: 1

    def model(self, widths, **config):
        raise RuntimeError("out of luck")
"""
)


@pytest.mark.filterwarnings("ignore:.* without an estimate of its memory")
def test_what_fails_is_a_row_with_the_reason_and_spoils_no_other(project):
    project.makepyfile(test_small=FAULTY)
    result = project.runpytest("--benchmark-only")
    result.assert_outcomes(passed=1, failed=1, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*| mlp *",
            "*| broken (failed) *",
            "*| excused (failed) *",
            "- broken failed, forward: RuntimeError: out of luck",
            "- excused failed, forward: as expected, out of luck",
            "broken at small failed (RuntimeError: out of luck): forward",
        ]
    )
    report = report_of(project)
    assert report["exit"]["name"] == "TESTS_FAILED"
    assert "excused at small failed (as expected, out of luck): forward" in report["notes"]
