"""Runs of identical code become a baseline that knows its noise."""

import copy
import json

import pytest

from kan_impls.bench.calibrate import CalibrationError, calibrate, calibration_of
from kan_impls.bench.processes import Command
from kan_impls.bench.record import parse_run
from tests.bench_runs import run_data


def process_data(ratio, disturbed=0, memory=4096):
    data = run_data("a", memory=memory)
    data["benchmarks"][0]["extra_info"]["processes"] = [
        {"median_ns": 2e6 * ratio, "ratio": ratio, "ratio_to_mlp": None, "rounds": 5,
         "disturbed": disturbed}
    ]  # fmt: skip
    data["benchmarks"][0]["extra_info"]["rounds"] = [{"seconds": {"own": 1.0}}]
    return data


def test_a_calibration_holds_a_figure_of_each_run_and_all_processes():
    data = calibration_of(
        [[process_data(r) for r in run] for run in ((1.0, 1.1, 1.2), (1.3, 1.1, 1.0))]
    )
    found = parse_run(data).measurements["a"]
    assert found.calibration.values("ratio") == [1.1, 1.1]
    assert found.calibration.values("median_ns") == pytest.approx([2.2e6, 2.2e6])
    assert found.calibration.values("ratio_to_mlp") == []
    assert found.calibration.processes == 3
    assert [process.ratio for process in found.processes] == [1.0, 1.1, 1.2, 1.3, 1.1, 1.0]
    assert "rounds" not in data["benchmarks"][0]["extra_info"]


def test_a_disturbed_process_is_no_part_of_the_noise():
    busy = process_data(9.0, disturbed=50)
    data = calibration_of([[process_data(1.0), busy], [process_data(1.1), busy, busy]])
    # Of the second run not even half is clean.
    assert parse_run(data).measurements["a"].calibration.values("ratio") == [1.0]


def test_memory_that_differs_between_identical_runs_is_an_error():
    with pytest.raises(CalibrationError, match=r"took .*4100.* bytes in one run"):
        calibration_of([[process_data(1.0)], [process_data(1.0, memory=4100)]])


def test_benchmarks_that_only_some_runs_measured_are_an_error():
    more = copy.deepcopy(process_data(1.0))
    more["benchmarks"] += run_data("b")["benchmarks"]
    with pytest.raises(CalibrationError, match="only some of the runs measured b"):
        calibration_of([[process_data(1.0)], [more]])


def test_every_process_is_fresh_and_kept_on_demand(tmp_path, monkeypatch):
    orders = []

    def measure(command, order, announce):
        orders.append(order)
        return process_data(1.0 + 0.01 * len(orders))

    monkeypatch.setattr("kan_impls.bench.calibrate.measure_in_process", measure)
    keep = tmp_path / "kept" / "here"
    data = calibrate(Command([], tmp_path), 2, 3, lambda text: None, keep)
    assert len(parse_run(data).measurements["a"].processes) == 6
    # Memory once in a run; all know what the first one measured.
    assert [order.only_times for order in orders] == [False, True, True] * 2
    assert [order.names for order in orders] == [None, *[["a"]] * 5]
    assert sorted(path.name for path in keep.iterdir())[-1] == "run02-process3.json"
    assert "rounds" in json.loads((keep / "run01-process1.json").read_text())["benchmarks"][0][
        "extra_info"
    ]  # fmt: skip


def test_an_empty_selection_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("kan_impls.bench.calibrate.measure_in_process", lambda *a: run_data())
    with pytest.raises(CalibrationError, match="nothing was measured; expected one benchmark"):
        calibrate(Command([], tmp_path), 2, 3, lambda text: None)
