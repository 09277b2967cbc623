"""Runs of identical code become a baseline that knows its noise."""

import copy
import json

import pytest

from perfgate.cli import main
from perfgate.judge.parse import figures_of, parse_run
from perfgate.run.processes import Command
from perfgate.store import baseline
from perfgate.store.calibrate import CalibrationError, calibrate, calibration_of, joined
from tests.perfgate.runs import run_data, store


def on(data, day, machine, commit="c"):
    """The data, measured on that day and machine."""
    data["datetime"] = f"{day}T03:04:05+00:00"
    data["machine_info"]["perfgate"]["machine"] = {
        "id": machine,
        "hypervisor": "kvm",
        "boot": "b",
    }
    data["commit_info"]["id"] = commit
    return data


def process_data(ratio, disturbed=0, memory=4096):
    data = run_data("a", memory=memory)
    data["benchmarks"][0]["extra_info"]["processes"] = [
        {"median_ns": 2e6 * ratio, "ratio": ratio, "rounds": 5, "disturbed": disturbed}
    ]
    seconds = 2e-3 * ratio
    stats = {"median": seconds, "rounds": 5, "data": [seconds] * 5}
    data["benchmarks"][0]["stats"] = stats
    data["benchmarks"][0]["extra_info"]["rounds"] = [{"seconds": {"own": 1.0}}]
    return data


def test_a_calibration_holds_a_figure_of_each_run_and_all_processes():
    data = calibration_of(
        [[process_data(r) for r in run] for run in ((1.0, 1.1, 1.2), (1.3, 1.1, 1.0))]
    )
    found = parse_run(data).measurements["a"]
    assert found.calibration.values("ratio") == [1.1, 1.1]
    assert found.calibration.values("median_ns") == pytest.approx([2.2e6, 2.2e6])
    assert found.calibration.processes == 3
    assert [process.ratio for process in found.processes] == [1.0, 1.1, 1.2, 1.3, 1.1, 1.0]
    assert "rounds" not in figures_of(data["benchmarks"][0])


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


def test_processes_of_other_settings_are_an_error():
    other = process_data(1.0)
    other["machine_info"]["perfgate"]["device_key"] = "cpu_other"
    with pytest.raises(CalibrationError, match=r"is cpu_other and another cpu_test; .*conftest"):
        calibration_of([[process_data(1.0), other]])


def test_every_process_is_fresh_and_kept_on_demand(tmp_path, monkeypatch):
    orders = []

    def measure(command, order, announce):
        orders.append(order)
        return process_data(1.0 + 0.01 * len(orders))

    monkeypatch.setattr("perfgate.store.calibrate.measure_in_process", measure)
    keep = tmp_path / "kept" / "here"
    data = calibrate(Command([], tmp_path), 2, 3, lambda text: None, keep)
    assert len(parse_run(data).measurements["a"].processes) == 6
    # Memory once in a run; all know what the first one measured.
    assert [order.only_times for order in orders] == [False, True, True] * 2
    assert [order.names for order in orders] == [None, *[["a"]] * 5]
    assert sorted(path.name for path in keep.iterdir())[-1] == "run02-process3.json"
    assert (
        "rounds"
        in json.loads((keep / "run01-process1.json").read_text())["benchmarks"][0]["extra_info"]
    )


def test_an_empty_selection_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("perfgate.store.calibrate.measure_in_process", lambda *a: run_data())
    with pytest.raises(CalibrationError, match="nothing was measured; expected one benchmark"):
        calibrate(Command([], tmp_path), 2, 3, lambda text: None)


def test_the_statistics_are_those_of_the_process_in_the_middle():
    data = calibration_of([[process_data(r) for r in run] for run in ((1.0, 1.4, 1.2), (9.0, 1.1))])
    (entry,) = data["benchmarks"]
    assert entry["stats"]["median"] == pytest.approx(2e-3 * 1.2)
    assert entry["stats"]["data"] == [entry["stats"]["median"]] * 5


def test_each_run_says_where_and_when_it_was():
    runs = [
        [on(process_data(1.0), "2026-01-02", "m", "c1")],
        [on(process_data(9.0, disturbed=50), "2026-01-03", "m")],  # no part of the noise
        [on(process_data(1.1), "2026-01-04", "n", "c2")],
    ]
    calibration = parse_run(calibration_of(runs)).measurements["a"].calibration
    assert calibration.values("ratio") == [1.0, 1.1]
    assert calibration.clusters("ratio") == [("2026-01-02", "m"), ("2026-01-04", "n")]
    assert [origin.commit for origin in calibration.origins] == ["c1", "c2"]
    assert (calibration.days, calibration.machines) == (2, 2)


def old_calibration(**kwargs):
    """A stored calibration from before runs had origins."""
    data = calibration_of([[on(process_data(r, **kwargs), "2026-01-01", "m")] for r in (1.0, 1.2)])
    calibration = figures_of(data["benchmarks"][0])["calibration"]
    del calibration["origins"]
    return data


def test_old_calibrations_are_of_one_day_and_machine():
    calibration = parse_run(old_calibration()).measurements["a"].calibration
    assert (calibration.days, calibration.machines) == (1, 1)
    assert calibration.clusters("ratio") == [("2026-01-01", None)] * 2


def test_runs_of_another_day_and_machine_join_the_stored_ones():
    new = calibration_of([[on(process_data(r), "2026-01-05", "n")] for r in (1.3, 1.4, 1.5)])
    found = parse_run(joined(old_calibration(), new)).measurements["a"]
    assert found.calibration.values("ratio") == [1.0, 1.2, 1.3, 1.4, 1.5]
    assert (found.calibration.days, found.calibration.machines) == (2, 2)
    assert [process.ratio for process in found.processes] == [1.0, 1.2, 1.3, 1.4, 1.5]
    assert new["benchmarks"][0]["stats"]["median"] == pytest.approx(2e-3 * 1.4)
    again = calibration_of([[on(process_data(1.1), "2026-01-05", "n")]])
    assert parse_run(joined(new, again)).measurements["a"].calibration.days == 2


def test_runs_of_code_that_costs_something_else_do_not_join():
    new = calibration_of([[process_data(1.0)], [process_data(1.1)]])
    with pytest.raises(CalibrationError, match=r"took .*4100.*calibrate without --add"):
        joined(old_calibration(memory=4100), new)
    # Another shape is another benchmark, with a calibration of its own.
    held = old_calibration()
    figures_of(held["benchmarks"][0])["measured"]["batch"] = 7
    assert len(parse_run(joined(held, new)).measurements["a"].calibration.runs) == 2


def test_runs_of_other_numbers_of_processes_are_refused_at_once(tmp_path, monkeypatch):
    asked = []

    def measure(command, order, announce):
        asked.append(order)
        return process_data(1.0)

    monkeypatch.setattr("perfgate.store.calibrate.measure_in_process", measure)
    store(tmp_path, "cpu_test", old_calibration(), "x")
    with pytest.raises(CalibrationError, match=r"are of 3 .*expected 1, .*--processes 1"):
        calibrate(Command([], tmp_path), 2, 3, lambda text: None, add_to=tmp_path)
    assert len(asked) == 1
    for folder in (tmp_path, tmp_path / "empty"):
        data = calibrate(Command([], tmp_path), 2, 1, lambda text: None, add_to=folder)
        assert len(parse_run(data).measurements["a"].calibration.runs) == 2
    with pytest.raises(CalibrationError, match=r"are of 1 .*expected 3, .*--processes 3"):
        joined(calibration_of([[process_data(1.0)] * 3] * 2), data)


def test_add_keeps_what_was_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr("perfgate.store.calibrate.measure_in_process", lambda *a: process_data(1.0))
    held = old_calibration()
    held["benchmarks"] += run_data("b")["benchmarks"]
    store(tmp_path, "cpu_test", held, "x")
    arguments = ["calibrate", "--add", "--runs=2", "--processes=1", f"--baselines={tmp_path}"]
    assert main(arguments) == 0
    run = baseline.read_run(baseline.find(tmp_path, "cpu_test"))
    assert run.measurements.keys() == {"a", "b"}
    assert len(run.measurements["a"].calibration.runs) == 4


def test_what_another_process_added_meanwhile_is_kept(tmp_path, monkeypatch):
    """It may store while this one measures, for an hour."""
    arguments = ["calibrate", "--add", "--runs=1", "--processes=1", f"--baselines={tmp_path}"]
    store(tmp_path, "cpu_test", old_calibration(), "x")
    measured = []

    def measure(*_):
        measured.append(1)
        if len(measured) == 1:
            assert main(arguments) == 0  # the other process
        return process_data(1.0)

    monkeypatch.setattr("perfgate.store.calibrate.measure_in_process", measure)
    assert main(arguments) == 0
    run = baseline.read_run(baseline.find(tmp_path, "cpu_test"))
    assert len(run.measurements["a"].calibration.runs) == 4
