"""The plugin, end to end in small folders: what is measured, judged, and the exit status.

Time is a clock that only the benchmark itself moves, and other processes measure what the test
says, so that no verdict here depends on the machine; memory is real.
"""

import importlib
import json
import platform
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

import pytest
import torch

from kan_impls import get_variant
from perfgate import configure, session
from perfgate.ab.run import Comparison
from perfgate.ab.settle import Settlement
from perfgate.cli import main
from perfgate.judge.exit_codes import GateExit
from perfgate.judge.parse import parse_process, parse_run
from perfgate.judge.place import OURS
from perfgate.judge.record import Process
from perfgate.judge.sequential import Goal, decide
from perfgate.measure.cuda_timing import TIMERS
from perfgate.measure.timing import Timer
from perfgate.network import floor
from perfgate.network.case import Case
from perfgate.network.passes import ModulePass
from perfgate.network.workload import check_memory, pass_of
from perfgate.run import runner
from tests.perfgate.test_rounds import Script

CONFTEST = """
pytest_plugins = ["perfgate.plugin"]

def pytest_benchmark_generate_machine_info():
    return {}  # asking the processor takes a second
"""

BENCHMARK = """
import pytest
from kan_impls import get_variant
from perfgate.network.case import Case

@pytest.mark.parametrize("name", ["mlp", "fused_fourier_kan"])
def test_small(measure, name):
    case = Case("small", get_variant(name), 8, (6, 5, 1))
    measure(case, "forward", beside=Case("small", get_variant("mlp"), 8, (6, 5, 1)))
"""

MEASURE_AGAIN = session.measure_again  # which most tests replace


class Clock(Timer):
    """All clocks are one, and move by 8 ms at each reading: so long lasts what lies between."""

    now = 0.0
    step = 2**-7  # of which sums are exact

    def __init__(self, device=None):
        pass

    def __call__(self):
        Clock.now += Clock.step
        return Clock.now


def own_figures(state):
    """What this process measured, by benchmark."""
    found = {}
    for stats in state.measured:
        parts = stats.extra_info.get(OURS, {}).get("processes")
        plain = asdict(Process(stats.stats.median * 1e9, rounds=stats.stats.rounds))
        found[stats.fullname] = parse_process(parts[0] if parts else plain)
    return found


class Others:
    """Other processes, which agree with this one."""

    def __init__(self):
        self.asked = []

    def __call__(self, state, names):
        self.asked.append(list(names))
        own = own_figures(state)
        return {name: [own[name]] for name in names}


class Turns:
    """Comparisons in turns, in which the fused layer takes `factor` times as long."""

    def __init__(self):
        self.factor = 1.0
        self.asked = []

    def __call__(self, verdicts, stored, place, base, most_pairs, judge_new):
        found = Settlement()
        for verdict in verdicts:
            if verdict.open:
                self.asked.append((verdict.name, *verdict.open))
                factor = self.factor if "fused" in verdict.name else 1.0
                factors = {verdict.name: [factor] * 4}
                decisions = decide(factors, {verdict.name: Goal(0.02, 0.10)}, 0.01, most_pairs)
                pairs = [Process(factor)] * 4
                comparison = Comparison(None, {verdict.name: pairs}, decisions)
                found.times[verdict.name] = [
                    comparison.change(verdict.name, against, base or "c" * 40)
                    for against in verdict.open
                ]
                found.pairs[verdict.name] = pairs
        return found


@pytest.fixture(scope="module", autouse=True)
def _import_all_once():
    # pytester forgets the modules that a run has imported: slow, and torch bears no second time.
    for name in ("scipy.special", "plotly", "perfgate.report.write"):
        importlib.import_module(name)
    case = Case("small", get_variant("fused_fourier_kan"), 8, (6, 5, 1))
    check_memory(case, torch.device("cpu"))
    pass_of(case, "backward", torch.device("cpu")).measure_memory()


@pytest.fixture
def others(monkeypatch):
    others = Others()
    monkeypatch.setattr(session, "measure_again", others)
    return others


@pytest.fixture
def turns(monkeypatch):
    turns = Turns()
    monkeypatch.setattr(session, "settle", turns)
    return turns


@pytest.fixture
def project(pytester, monkeypatch, others):
    """A folder with two benchmarks, and a clock that makes every round last equally long."""
    monkeypatch.setitem(TIMERS, "wall", Clock)
    monkeypatch.setattr(runner, "witness_of", lambda device: Script())
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
    original = ModulePass.run

    def run(self):
        original(self)
        if "fused" in self.describe()["implementation"]:
            Clock.now += Clock.step * (factor - 1)

    monkeypatch.setattr(ModulePass, "run", run)


def waste_memory(monkeypatch):
    original = ModulePass.forward

    def forward(self):
        wasted = torch.empty(1024)
        result = original(self)
        del wasted
        return result

    monkeypatch.setattr(ModulePass, "forward", forward)


def newest_baseline(project):
    return sorted((project.path / "benchmarks" / "baselines").glob("*/*.json"))[-1]


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def calibrated(data):
    """As if ten runs of three processes had differed by a fifth of a percent."""
    runs = [dict.fromkeys(("ratio", "median_ns"), 1 + 0.002 * (number % 2)) for number in range(10)]
    machine = data["machine_info"]["perfgate"]["machine"]
    origin = {"datetime": data["datetime"], "machine": machine["id"], "boot": machine["boot"]}
    for entry in data["benchmarks"]:
        entry["extra_info"][OURS]["calibration"] = {
            "processes": 3,
            "runs": runs,
            "origins": [origin] * len(runs),
        }


def measure_and_accept(project):
    assert project.runpytest("--benchmark-only", "--processes=3").ret == 0
    assert main(["accept"]) == 0
    edit(newest_baseline(project), calibrated)


def report_of(project):
    return json.loads((project.path / ".benchmarks" / "report" / "report.json").read_text())


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


def test_plain_pytest_runs_each_benchmark_once_untimed(project):
    result = project.runpytest()
    result.assert_outcomes(passed=2)
    assert not (project.path / ".benchmarks" / "last_run.json").exists()


def test_benchmark_only_measures_and_keeps_the_run(project):
    project.makepyfile(test_other="def test_other(): pass")
    result = project.runpytest("--benchmark-only")
    result.assert_outcomes(passed=2, deselected=1)
    result.stdout.fnmatch_lines(["*[[]1/2] test_small*", "*| implementation *", "*| mlp *"])
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


def test_a_benchmark_without_a_baseline(project):
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no baseline*", "*store one with: kan-bench accept*"])
    assert project.runpytest("--benchmark-compare", "--require-baseline").ret == 15


def test_unchanged_code_is_unchanged(project, others):
    measure_and_accept(project)
    others.asked.clear()
    result = project.runpytest("--benchmark-compare", "--require-baseline")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 unchanged", "*exit status 0: passed"])
    # Three processes, and none to compare anything in turns.
    assert len(others.asked) == 2


FUSED = "test_small.py::test_small[fused_fourier_kan]"


def test_a_slower_layer_is_regressed_once_the_earlier_code_says_so(project, monkeypatch, turns):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.2)
    turns.factor = 1.19
    result = project.runpytest("--benchmark-compare")
    assert result.ret == GateExit.REGRESSED == 10
    result.stdout.fnmatch_lines(
        ["*unchanged*mlp*", "*regressed*fused_fourier_kan*+19.0%*", "exit status 10: regressed"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    # Only what stored times left open was asked.
    assert turns.asked == [(FUSED, "baseline")]
    entry = next(m for m in report_of(project)["measurements"] if m["name"] == FUSED)
    assert [pair["time_factor"] for pair in entry["pairs"]] == [1.19] * 4


def test_a_busy_minute_is_no_regression(project, monkeypatch, turns):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.2)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 unchanged"])
    assert turns.asked == [(FUSED, "baseline")]


def test_without_the_earlier_code_a_change_is_not_clear(project, monkeypatch):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.2)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*inconclusive*fused_fourier_kan*", "*without a git commit*"])
    assert project.runpytest("--benchmark-compare", "--fail-on-inconclusive").ret == 17


def test_a_benchmark_of_which_no_time_could_be_judged_fails(project, monkeypatch):
    measure_and_accept(project)
    slow_down(monkeypatch, 3.3)
    monkeypatch.setattr(runner, "witness_of", lambda device: Script(*["waited"] * 1000))
    result = project.runpytest("--benchmark-compare")
    assert result.ret == GateExit.UNJUDGED == 19
    result.stdout.fnmatch_lines(["*the machine was busy*", "2 unjudged", "*19: unjudged"])
    assert project.runpytest("--benchmark-compare", "--allow-unjudged").ret == 0


def test_a_disturbed_machine_is_no_excuse_where_the_earlier_code_tells(project, monkeypatch, turns):
    measure_and_accept(project)
    turns.factor = 3.3
    monkeypatch.setattr(runner, "witness_of", lambda device: Script(*["waited"] * 1000))
    result = project.runpytest("--benchmark-compare")
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


def test_a_faster_layer_is_improved(project, monkeypatch, turns):
    measure_and_accept(project)
    slow_down(monkeypatch, 0.7)
    turns.factor = 0.7
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*improved*fused_fourier_kan*-30.0%*", "improved: keep it*"])
    assert project.runpytest("--benchmark-compare", "--fail-on-improved").ret == 16


def test_4_kib_more_are_regressed(project, monkeypatch):
    measure_and_accept(project)
    waste_memory(monkeypatch)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*forward_peak_bytes +4,096 B*"])


def test_many_small_losses_are_seen_since_the_oldest_baseline(project, monkeypatch, turns):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.04)
    measure_and_accept(project)
    slow_down(monkeypatch, 1.04)  # once more
    turns.factor = 1.08
    result = project.runpytest("--benchmark-compare=0001")
    assert result.ret == 10
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 10
    result.stdout.fnmatch_lines(
        ["oldest baseline: *0001_*.json", "*in turns with the oldest baseline's code*"]
    )
    assert turns.asked[-1] == (FUSED, "baseline", "anchor")
    # Accepted as what it is, with the reason, it is where the next ones start from.
    assert main(["accept", "--new-history", "the accurate mode costs that"]) == 0
    turns.factor = 1.0
    assert project.runpytest("--benchmark-compare").ret == 0


def test_limits_come_from_pyproject(project, monkeypatch):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.2)
    entry = '[[tool.perfgate.limits]]\nimplementation = "fused_*"\nratio = 0.5\n'
    (project.path / "pyproject.toml").write_text(entry)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *reason is None; expected a sentence*"])
    (project.path / "pyproject.toml").write_text(entry + 'reason = "a test"')
    assert project.runpytest("--benchmark-compare").ret == 0


def test_a_benchmark_that_is_gone_is_missing(project):
    measure_and_accept(project)
    project.makepyfile(test_small=BENCHMARK.replace(', "fused_fourier_kan"]', "]"))
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*missing*fused_fourier_kan*"])


def test_a_skipped_benchmark_is_missing_with_the_reason(project, monkeypatch):
    measure_and_accept(project)
    monkeypatch.setattr("perfgate.measure.memory.free_bytes", lambda device: 5000)
    project.makepyfile(test_plain="def test_plain(benchmark): benchmark(sum, [1, 2])")
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*missing*", "*it was skipped (* needs an*"])


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
    assert result.ret == 11
    result.stdout.fnmatch_lines(["*missing*fused_fourier_kan*"])


def test_another_case_is_incomparable(project):
    measure_and_accept(project)
    project.makepyfile(test_small=BENCHMARK.replace(", 8, ", ", 9, "))
    result = project.runpytest("--benchmark-compare")
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


def test_another_device_is_incomparable(project):
    measure_and_accept(project)
    other = project.path / "other.json"
    other.write_text(newest_baseline(project).read_text())
    edit(other, lambda data: data["machine_info"]["perfgate"].update(device_key="cuda_other"))
    result = project.runpytest(f"--benchmark-compare={other}")
    assert result.ret == 13
    result.stdout.fnmatch_lines(["*incomparable*", "*cuda_other*"])


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


def last_run(project):
    text = (project.path / ".benchmarks" / "last_run.json").read_text()
    return json.loads(text)["benchmarks"]


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


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip", "-k=nothing"])
def test_a_run_that_measures_nothing_fails(project, option):
    measure_and_accept(project)
    result = project.runpytest("--benchmark-compare", option)
    assert result.ret == 12
    result.stdout.fnmatch_lines(["nothing was measured; expected one benchmark or more*"])


def test_a_run_under_xdist_measures_nothing_and_fails(project):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    project.makepyfile(test_small="def test_plain(benchmark): benchmark(sum, [1, 2])")
    result = project.runpytest("--benchmark-compare", "-n1")
    assert result.ret == 12


def test_a_run_in_which_all_are_skipped_fails(project):
    measure_and_accept(project)
    skipped = BENCHMARK.replace("def test_small", '@pytest.mark.skip("no")\ndef test_small')
    project.makepyfile(test_small=skipped.replace("skip(", "skip(reason="))
    assert project.runpytest("--benchmark-compare").ret == 12


def test_a_benchmark_that_fails_keeps_pytests_own_status(project):
    measure_and_accept(project)
    failing = BENCHMARK.replace("    case =", "    assert name == 'mlp'\n    case =")
    project.makepyfile(test_small=failing)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*missing*", "*but it failed*"])


def test_another_process_that_breaks_fails_the_run(project, monkeypatch):
    measure_and_accept(project)

    def broken(state, names):
        raise session.WorkerError("a measuring process ended with status 3")

    monkeypatch.setattr(session, "measure_again", broken)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 11
    result.stdout.fnmatch_lines(["a measuring process ended with status 3"])


@pytest.mark.parametrize("text", ["{", "[]", '{"benchmarks": 3}'])
def test_a_damaged_baseline_stops_the_run_before_it_measures(project, text):
    measure_and_accept(project)
    newest_baseline(project).write_text(text)
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 14
    result.stderr.fnmatch_lines(["*0001_*.json is not a complete run*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*test_small*")


def test_an_unknown_baseline(project):
    measure_and_accept(project)
    result = project.runpytest("--benchmark-compare=0042")
    assert result.ret == 14
    result.stderr.fnmatch_lines(["*the baseline '0042' does not exist*"])


def test_a_folder_that_cannot_be_written_loses_only_the_copy(project):
    (project.path / ".benchmarks").write_text("in the way")
    result = project.runpytest("--benchmark-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*| mlp *", "*cannot be written*the run is not kept*"])


def test_benchmark_json_gets_its_table_beside_it(project):
    project.runpytest("--benchmark-json=out.json")
    assert "| mlp " in (project.path / "out.md").read_text()
    assert len(json.loads((project.path / "out.json").read_text())["benchmarks"]) == 2


def test_reports_say_what_the_terminal_says(project, monkeypatch, turns):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.2)
    turns.factor = 1.2
    project.runpytest("--benchmark-compare")
    report = report_of(project)
    statuses = {entry["name"]: entry["status"] for entry in report["verdicts"]}
    assert statuses["test_small.py::test_small[fused_fourier_kan]"] == "regressed"
    assert report["exit"]["code"] == 10
    names = {path.name for path in (project.path / ".benchmarks" / "report").iterdir()}
    assert {"summary.md", "junit.xml", "bencher.json", "exit_code"} <= names


def test_another_folder_for_the_reports(project):
    project.runpytest("--benchmark-only", "--report=gate")
    assert (project.path / "gate" / "report.json").exists()


def test_junit_holds_figures_and_verdicts(project, monkeypatch, turns):
    measure_and_accept(project)
    slow_down(monkeypatch, 1.2)
    turns.factor = 1.2
    project.runpytest("--benchmark-compare", "--junitxml=junit.xml")
    root = ElementTree.parse(project.path / "junit.xml").getroot()
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


def test_a_plain_benchmark_of_somebody_else_is_judged_too(project):
    project.makepyfile(test_small="def test_plain(benchmark): benchmark(sum, [1, 2])")
    assert project.runpytest("--benchmark-only").ret == 0
    assert main(["accept"]) == 0
    result = project.runpytest("--benchmark-compare")
    assert result.ret == 0  # of one process nobody knows the noise, and here is no earlier code
    result.stdout.fnmatch_lines(["inconclusive*plain*", "*without a git commit*"])


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
