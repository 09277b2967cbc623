"""Stored runs: what is wrong in them is said in one line, and what is not ours is not read."""

import copy
import json

import pytest

from perfgate.fields import DEEPEST, GREATEST_COUNT
from perfgate.judge.parse import InvalidRunError, figures_of, parse_run
from perfgate.store import baseline
from perfgate.store.accept import accept
from tests.perfgate.runs import run_data

HUGE = 10**5000
DEEP = "[" * 100_000 + "]" * 100_000

WRONG = {
    "time": [None, "1", True, 0, 0.0, -1, float("nan"), float("inf"), HUGE, 1e300, 1e-300, [], {}],
    "median": [None, "1", True, -1, float("nan"), float("inf"), HUGE, 1e300, 1e-300, [], {}],
    "count": [None, "1", True, -1, 0.5, float("nan"), float("inf"), HUGE, 2**63, [], {}],
    "object": [None, 0, 1, "x", []],
    "array": [None, 0, 1, "x", {}],
    "text": [0, 1.5, [], {}],
}
FIELDS = {
    "benchmarks": "array",
    "machine_info": "object",
    "machine_info.perfgate": "object",
    "machine_info.perfgate.device_key": "text",
    "commit_info": "object",
    "commit_info.id": "text",
    "datetime": "text",
    "perfgate": "object",
    "perfgate.anchor": "text",
    "benchmarks.0": "object",
    "benchmarks.0.fullname": "text",
    "benchmarks.0.stats": "object",
    "benchmarks.0.stats.median": "median",
    "benchmarks.0.stats.rounds": "count",
    "benchmarks.0.extra_info": "object",
    "benchmarks.0.extra_info.perfgate": "object",
    "benchmarks.0.extra_info.perfgate.processes": "array",
    "benchmarks.0.extra_info.perfgate.processes.0": "object",
    "benchmarks.0.extra_info.perfgate.processes.0.median_ns": "time",
    "benchmarks.0.extra_info.perfgate.processes.0.rounds": "count",
    "benchmarks.0.extra_info.perfgate.processes.0.disturbed": "count",
    "benchmarks.0.extra_info.perfgate.confirming": "array",
    "benchmarks.0.extra_info.perfgate.memory": "object",
    "benchmarks.0.extra_info.perfgate.memory.saved_bytes": "count",
    "benchmarks.0.extra_info.perfgate.calibration.processes": "count",
    "benchmarks.0.extra_info.perfgate.calibration.runs": "array",
    "benchmarks.0.extra_info.perfgate.calibration.runs.0": "object",
    "benchmarks.0.extra_info.perfgate.calibration.runs.0.ratio": "time",
}


def whole_run():
    data = run_data("a", "b", anchor="a reason")
    for entry in data["benchmarks"]:
        figures_of(entry)["calibration"] = {"processes": 3, "runs": [{"ratio": 1.0}] * 2}
    return data


def place(data, path):
    """The container of a field, and its key there."""
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in way:
        data = data[key]
    return data, last


@pytest.mark.parametrize(("path", "kind"), FIELDS.items(), ids=FIELDS)
def test_a_field_of_the_wrong_kind_is_named(path, kind):
    for wrong in WRONG[kind]:
        data = whole_run()
        container, key = place(data, path)
        container[key] = wrong
        with pytest.raises(InvalidRunError) as caught:
            parse_run(data)
        assert (f"[{key}]" if key == 0 else key) in str(caught.value), wrong
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "path",
    [
        "benchmarks",
        "machine_info",
        "commit_info",
        "datetime",
        "benchmarks.0.fullname",
        "benchmarks.0.stats",
        "benchmarks.0.stats.median",
        "benchmarks.0.stats.rounds",
    ],
)
def test_a_field_that_is_missing_is_named(path):
    data = whole_run()
    container, key = place(data, path)
    del container[key]
    with pytest.raises(InvalidRunError, match=rf"{key}: it is missing"):
        parse_run(data)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"benchmarks": ' + DEEP + "}",
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        json.dumps(run_data("a")).replace("0.002", "9" * 5001),
    ],
    ids=["deep", "deep inside", "one level too deep", "5001 digits"],
)
def test_what_python_cannot_take_is_one_line(tmp_path, text):
    path = tmp_path / "0001_a.json"
    path.write_text(text)
    with pytest.raises(baseline.BaselineError, match=r"is not a complete run.*restore") as caught:
        baseline.read_run(path)
    assert "\n" not in str(caught.value)


def test_the_greatest_count_is_one():
    data = whole_run()
    figures_of(data["benchmarks"][0])["memory"]["saved_bytes"] = GREATEST_COUNT
    assert parse_run(data).measurements["a"].memory["saved_bytes"] == 2**53


def test_a_time_below_the_clocks_resolution_is_the_least_that_it_tells():
    data = plain(run_data("a"))
    data["benchmarks"][0]["stats"]["median"] = 0.0
    assert parse_run(data).measurements["a"].median_ns == 1.0


def plain(data):
    """As pytest-benchmark writes it without the plugin."""
    del data["machine_info"]["perfgate"]
    for entry in data["benchmarks"]:
        entry["extra_info"] = {}
    return data


USERS = {
    "processes": [4, "four", None, [1, 2], [{"pid": 7}], {}],
    "memory": [12, "much", {"rss": -5}, [], None],
    "measured": ["yesterday", 5, {"case": "mine"}],
    "calibration": [True, {"offset": 0.5}, None],
    "confirming": ["no"],
    "parameters": ["many", -3],
    "floor_fraction": ["half"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, found in USERS.items() for value in found]
)
@pytest.mark.parametrize("is_plain", [True, False])
def test_what_users_say_of_their_benchmarks_is_theirs(key, value, is_plain):
    data = run_data("a")
    if is_plain:
        plain(data)
    else:
        figures_of(data["benchmarks"][0])
    before = parse_run(copy.deepcopy(data))
    data["benchmarks"][0]["extra_info"][key] = value
    assert parse_run(data) == before
    own = copy.deepcopy(figures_of(data["benchmarks"][0]))
    assert data["benchmarks"][0]["extra_info"][key] == value
    assert value is None or own.get(key) != value


def test_older_files_of_ours_are_read_and_moved():
    old, new = run_data("a"), run_data("a")
    old["benchmarks"][0]["extra_info"]["theirs"] = [1]
    figures = figures_of(new["benchmarks"][0])
    assert figures["processes"][0]["ratio"] == 1.0
    assert new["benchmarks"][0]["extra_info"].keys() == {"perfgate"}
    assert parse_run(old).measurements["a"].processes == parse_run(new).measurements["a"].processes
    figures_of(old["benchmarks"][0])
    assert old["benchmarks"][0]["extra_info"].keys() == {"perfgate", "theirs"}


def test_our_place_is_found_by_its_earlier_name():
    data = run_data("a", "b", anchor="because")
    figures_of(data["benchmarks"][0])
    old = json.loads(json.dumps(data).replace('"perfgate"', '"kan_impls"'))
    assert old != data
    assert parse_run(old) == parse_run(data)
    assert figures_of(old["benchmarks"][0]) == figures_of(data["benchmarks"][0])
    assert old["benchmarks"] == data["benchmarks"]


def test_a_plain_file_is_no_baseline_of_a_device(tmp_path):
    with pytest.raises(baseline.BaselineError, match=r"does not say of which device.*compare=base"):
        accept(plain(run_data("a")), "base.json", tmp_path)
    assert list(tmp_path.iterdir()) == []
