"""A small project with two benchmarks, in which runs of pytest inside pytest measure and judge.

Time is a clock that only the benchmark itself moves, and other processes measure what the test
says, so that no verdict here depends on the machine; memory is real. The fixtures are those of
`conftest.py`.
"""

import json
from dataclasses import asdict

import torch

from perfgate import session
from perfgate.ab.run import Comparison
from perfgate.ab.settle import Settlement
from perfgate.cli import main
from perfgate.judge.parse import parse_process
from perfgate.judge.place import OURS
from perfgate.judge.record import Process
from perfgate.judge.sequential import Goal, decide
from perfgate.measure.timing import Timer
from perfgate.network.passes import ModulePass

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


def last_run(project):
    text = (project.path / ".benchmarks" / "last_run.json").read_text()
    return json.loads(text)["benchmarks"]
