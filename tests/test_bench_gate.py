"""What is measured again, and how often."""

from kan_impls.bench.gate import decide
from kan_impls.bench.verdict import Verdict
from tests.bench_measurements import measurement, processes, run_of


class Judge:
    """Verdicts by the number of processes that a benchmark has."""

    def __init__(self, further):
        self.further = further

    def __call__(self, run):
        return [
            Verdict(name, "inconclusive", "", further_runs=self.further.get(name))
            if len(m.confirming) < 3 * self.further.get(name, 0)
            else Verdict(name, "unchanged", "")
            for name, m in run.measurements.items()
        ]


def measuring(log):
    def measure(names):
        log.append(list(names))
        return {name: processes(1.0, 1.0, 1.0) for name in names}

    return measure


def decide_on(further, most_runs):
    log = []
    run = run_of(*(measurement(name=name) for name in "abc"))
    run, verdicts = decide(run, Judge(further), measuring(log), most_runs)
    return log, run, {verdict.name: verdict.status for verdict in verdicts}


def test_only_what_is_unclear_is_measured_again():
    log, run, statuses = decide_on({"b": 1}, most_runs=2)
    assert log == [["b"]]
    assert set(statuses.values()) == {"unchanged"}
    assert len(run.measurements["b"].confirming) == 3
    assert not run.measurements["a"].confirming


def test_what_needs_more_runs_than_are_allowed_is_left_unclear_at_once():
    log, _, statuses = decide_on({"a": 3}, most_runs=2)
    assert log == []
    assert statuses["a"] == "inconclusive"


def test_runs_are_limited():
    log, _, statuses = decide_on({"a": 2}, most_runs=2)
    assert log == [["a"]]  # then it needs two, and one is left
    assert statuses["a"] == "inconclusive"
    assert decide_on({"a": 1}, most_runs=0)[0] == []
