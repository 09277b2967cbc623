"""Stored times judge on the machine that they are of, and nowhere else."""

import json
from dataclasses import replace

import pytest

from perfgate.compare import Stored, load
from perfgate.judge.limits import LimitTable
from perfgate.judge.parse import figures_of, parse_run
from perfgate.judge.provenance import Machine, Origin
from perfgate.store.accept import accept
from tests.perfgate.measurements import LIMITS, calibration, measurement, run_of
from tests.perfgate.runs import run_data

HERE, THERE = Machine("here", "kvm", "x"), Machine("there", "kvm", "y")


def calibrated(*machines):
    """A measurement whose noise is known on these machines."""
    known = calibration(0.002, runs=10)
    origins = [Origin("2026-01-01", machines[n % len(machines)].id) for n in range(10)]
    return measurement(calibration=replace(known, origins=origins))


def judged(baseline, now=None, anchor=None):
    stored = Stored(None, baseline, None, anchor, LimitTable(LIMITS))
    (verdict,) = stored.judge(now or run_of(measurement(), machine=HERE), {}, [])
    return verdict


@pytest.mark.parametrize(
    ("calibrated_on", "measured_on", "status", "cause"),
    [
        ((HERE, THERE), HERE, "unchanged", "+0.0%"),
        ((THERE,), HERE, "inconclusive", "calibrated on another machine"),
        ((HERE, THERE), THERE, "inconclusive", "measured on another machine"),
        ((HERE,), None, "inconclusive", "measured on another machine"),
    ],
)
def test_stored_times_judge_only_on_their_machine(calibrated_on, measured_on, status, cause):
    verdict = judged(run_of(calibrated(*calibrated_on), machine=measured_on))
    assert verdict.status == status
    assert cause in verdict.cause
    assert verdict.open == (() if status == "unchanged" else ("baseline",))


@pytest.mark.parametrize(("oldest", "asked"), [(HERE, ()), (THERE, ("anchor",))])
def test_times_of_the_oldest_baseline_judge_only_on_their_machine(oldest, asked):
    baseline = run_of(calibrated(HERE), machine=HERE)
    verdict = judged(baseline, anchor=run_of(measurement(), machine=oldest))
    assert verdict.open == asked


def on(machine, data, commit="c" * 40):
    data["machine_info"]["perfgate"]["machine"] = vars(machine)
    data["commit_info"] = {"id": commit, "dirty": False}
    for entry in data["benchmarks"]:
        runs = [{"ratio": 1 + 0.001 * (-1) ** n, "median_ns": 2e6} for n in range(10)]
        sides = (vars(HERE), vars(THERE))
        origins = [
            {"datetime": "2026-01-01", "machine": sides[n % 2]["id"], "boot": sides[n % 2]["boot"]}
            for n in range(10)
        ]
        figures_of(entry)["calibration"] = {"processes": 3, "runs": runs, "origins": origins}
    return data


def test_a_kept_entry_and_the_oldest_one_stay_those_of_their_machine(tmp_path):
    accept(on(THERE, run_data("a", "b")), "x", tmp_path)
    accept(on(HERE, run_data("b")), "y", tmp_path, merge=True)
    path = accept(on(HERE, run_data("b")), "z", tmp_path, merge=True)  # kept twice
    stored = load(tmp_path, "cpu_test", None, tmp_path / "pyproject.toml")
    assert stored.run.machine_of("a") == THERE
    assert stored.run.machine_of("b") == HERE
    assert {name: stored.anchor.machine_of(name) for name in "ab"} == dict.fromkeys("ab", THERE)
    now = parse_run(on(HERE, run_data("a", "b")))
    verdicts = {v.name: v for v in stored.judge(now, {}, [])}
    assert verdicts["a"].open == ("baseline", "anchor")
    assert verdicts["b"].open == ("anchor",)
    # Earlier versions did not say of which machine a kept entry is.
    data = json.loads(path.read_text())
    for entry in data["benchmarks"]:
        figures_of(entry).pop("machine", None)
    assert parse_run(data).machine_of("a") is None
