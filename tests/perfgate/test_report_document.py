"""The report as a JSON document, and its published schema."""

import copy
import json
import math

import jsonschema
import pytest

from perfgate.judge.exit_codes import GateExit
from perfgate.judge.parse import parse_run
from perfgate.judge.verdict import CountChange, TimeChange, Verdict
from perfgate.report.document import (
    ReportError,
    Source,
    document,
    read_document,
    to_json,
)
from perfgate.report.schema import schema, violations
from perfgate.report.words import EXITS, STATUSES
from tests.perfgate.runs import BY_STATUS, growth_data, judged_document, run_data

VALIDATOR = jsonschema.Draft202012Validator(schema())


def measure_only(data, **options):
    return document(parse_run(data), [], **{"exit_code": 0, "kind": "measure", **options})


def plain_data():
    """What pytest-benchmark writes of benchmarks that know nothing of this package."""
    data = run_data("x.py::test_a", "x.py::test_b")
    for entry in data["benchmarks"]:
        entry["extra_info"] = {}
    data["machine_info"] = {}
    return data


DOCUMENTS = {
    "every status": judged_document,
    "growth": lambda: measure_only(growth_data()),
    "other plugins": lambda: measure_only(plain_data()),
    "empty": lambda: measure_only(run_data(), exit_code=GateExit.NOTHING_MEASURED),
    "two revisions": lambda: judged_document(
        kind="ab",
        base="main",
        baseline=None,
        anchor=None,
        pairs=parse_run(run_data(*BY_STATUS.values())),
    ),
}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_real_documents_are_as_the_schema_says(name):
    written = json.loads(to_json(DOCUMENTS[name]()))
    assert [error.message for error in VALIDATOR.iter_errors(written)] == []
    assert list(violations(written)) == []


def test_every_status_occurs():
    statuses = {verdict["name"]: verdict["status"] for verdict in judged_document()["verdicts"]}
    assert statuses == {name: status for status, name in BY_STATUS.items()}


def test_a_measurement_says_everything_with_its_unit():
    found = {m["name"]: m for m in judged_document()["measurements"]}[BY_STATUS["regressed"]]
    process = {
        "median_ns": 4e6,
        "ratio": 2.0,
        "ratio_to_mlp": 3.0,
        "rounds": 5,
        "disturbed_rounds": 1,
    }
    assert found["processes"][0] == process
    assert found["memory_bytes"] == {"forward_peak_bytes": 8192, "saved_bytes": 100}
    assert (found["median_ns"], found["ratio"], found["ratio_to_mlp"]) == (4e6 + 1, 2.0, 3.0)
    assert (found["rounds"], found["disturbed_rounds"]) == (15, 3)
    assert (found["parameters"], found["floor_fraction"], found["flops"]) == (1234567, 0.5, 10**9)
    assert found["evidence"] == [{"waited_ns": 12, "stolen_ns": 0}]
    assert found["baseline"]["median_ns"] == 2e6 + 1
    assert found["baseline"]["memory_bytes"]["forward_peak_bytes"] == 4096


def test_a_verdict_says_all_that_was_compared():
    found = {v["name"]: v for v in judged_document()["verdicts"]}[BY_STATUS["regressed"]]
    in_turns, stored = found["times"][:2]
    assert in_turns == {
        "figure": "median_ns",
        "against": "baseline",
        "status": "regressed",
        "change_fraction": 1.0,
        "limit_fraction": 0.03,
        "visible_fraction": 0.9,
        "processes": 4,
        "in_turns_with": "c" * 40,
        "noise_of": None,
        "given_up": None,
    }
    # The stored time beside it, which accuses nobody.
    assert stored["change_fraction"] == pytest.approx(1.0)
    assert stored["limit_fraction"] == pytest.approx(0.02)
    assert (stored["figure"], stored["status"]) == ("ratio", "inconclusive")
    assert (stored["processes"], stored["in_turns_with"]) == (3, None)
    assert stored["noise_of"] == "6 runs on 1 day and 1 machine"
    against = [time["against"] for time in found["times"]]
    assert against == ["baseline", "baseline", "anchor", "baseline"]
    assert found["memory"][0] == {
        "kind": "forward_peak_bytes",
        "status": "regressed",
        "before_bytes": 4096,
        "now_bytes": 8192,
    }


def test_each_figure_of_a_comparison_is_in_its_place():
    change = TimeChange("median_ns", "anchor", "inconclusive", 0.1, 0.3, 0.4, 5, "abc", "2 runs")
    verdict = Verdict(
        "a",
        "inconclusive",
        "noisy",
        [change],
        counts=[CountChange("launches", "regressed", 3, 4)],
    )
    found = document(parse_run(run_data("a")), [verdict], exit_code=17, kind="compare")
    assert found["verdicts"] == [
        {
            "name": "a",
            "status": "inconclusive",
            "cause": "noisy",
            "memory": [],
            "counts": [{"kind": "launches", "status": "regressed", "before": 3, "now": 4}],
            "times": [
                {
                    "figure": "median_ns",
                    "against": "anchor",
                    "status": "inconclusive",
                    "change_fraction": 0.1,
                    "limit_fraction": 0.3,
                    "visible_fraction": 0.4,
                    "processes": 5,
                    "in_turns_with": "abc",
                    "noise_of": "2 runs",
                    "given_up": None,
                }
            ],
        }
    ]


def test_a_report_of_an_earlier_version_is_read():
    old = judged_document()
    for verdict in old["verdicts"]:
        verdict["further_runs"] = 2
        del verdict["counts"]
        for time in verdict["times"]:
            for name in ("in_turns_with", "noise_of", "given_up"):
                del time[name]
            time |= {"confirmed_fraction": None, "further_runs": 1, "calibrated": True}
    for measurement in old["measurements"]:
        for process in measurement["processes"]:
            process["confirming"] = False
    assert list(violations(old)) == []


def test_what_json_has_no_number_for_is_null():
    change = TimeChange("ratio", "baseline", "inconclusive", math.nan, math.inf, -math.inf, 1)
    data = run_data("a")
    data["benchmarks"][0]["extra_info"] |= {
        "floor_fraction": math.inf,
        "evidence": [{"clock": math.nan}],
        "parameters": 1.5,
    }
    data["benchmarks"][0]["extra_info"]["measured"]["config"] = {"range": (0.0, math.inf)}
    found = document(
        parse_run(data),
        [Verdict("a", "inconclusive", "noisy", [change])],
        exit_code=0,
        kind="compare",
    )
    written = json.loads(to_json(found), parse_constant=pytest.fail)
    assert list(violations(written)) == []
    time, measurement = written["verdicts"][0]["times"][0], written["measurements"][0]
    assert [time[f"{name}_fraction"] for name in ("change", "limit", "visible")] == [None] * 3
    assert measurement["floor_fraction"] is measurement["parameters"] is None
    assert measurement["evidence"] == [{"clock": None}]
    assert measurement["measured"]["config"] == {"range": [0.0, None]}


def test_what_other_plugins_say_of_their_work_is_taken_as_far_as_it_is_known():
    data = run_data("a", "b")
    data["benchmarks"][0]["extra_info"]["measured"] = {
        "case": 5,
        "batch": "x",
        "widths": "y",
        "z": 1,
    }
    data["benchmarks"][1]["extra_info"]["measured"] = "nothing"
    found = measure_only(data)
    assert [m["measured"] for m in found["measurements"]] == [{"z": 1}, {}]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *((member.value, member.name) for member in GateExit),
        (1, "TESTS_FAILED"),
        (2, "INTERRUPTED"),
        (3, "INTERNAL_ERROR"),
        (4, "USAGE_ERROR"),
        (5, "NO_TESTS_COLLECTED"),
        (99, "OTHER"),
    ],
)
def test_every_exit_status_has_a_name_and_words(code, name):
    found = measure_only(run_data(), exit_code=code)
    assert found["exit"] == {"code": code, "name": name}
    assert name in EXITS
    assert name in schema()["properties"]["exit"]["properties"]["name"]["enum"]


def test_the_schema_knows_the_statuses_of_the_judge():
    assert {*schema()["$defs"]["verdict"]["properties"]["status"]["enum"]} == {*STATUSES}


def test_the_commands_go_with_the_kind():
    assert judged_document()["commands"] == {
        "reproduce": "pytest --benchmark-compare",
        "accept": "kan-bench accept",
    }
    two = judged_document(kind="ab", base="v1 (0123456)", baseline=None)["commands"]
    assert two == {"reproduce": "kan-bench ab v1", "accept": None}


def test_two_revisions_show_their_pairs():
    pairs = parse_run(run_data(BY_STATUS["unchanged"], ratio=1.01))
    report = judged_document(kind="ab", base="v1", pairs=pairs)
    found = {m["name"]: m for m in report["measurements"]}[BY_STATUS["unchanged"]]
    assert found["pairs"][0] == {"time_factor": 2e6, "rounds": 5, "disturbed_rounds": 1}
    assert found["median_ns"] == 2e6 + 1


def test_a_written_document_is_read_again(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(to_json(judged_document()), encoding="utf-8")
    assert read_document(path) == json.loads(to_json(judged_document()))


def mutations():
    """Each place of a document, and values that may not stand there."""

    def places(part, path):
        yield path
        if isinstance(part, dict):
            for key, value in part.items():
                yield from places(value, [*path, key])
        elif isinstance(part, list) and part:
            yield from places(part[0], [*path, 0])

    whole = json.loads(to_json(DOCUMENTS["two revisions"]()))
    whole["baseline"] = judged_document()["baseline"]
    # One of each is enough, and what is compared must be small: there are thousands.
    for key in ("verdicts", "measurements"):
        full = max(whole[key], key=lambda part: len(json.dumps(part)))
        whole[key] = [full]
    for part in (whole["verdicts"][0]["times"], whole["measurements"][0]["processes"]):
        del part[1:]
    for part in (whole["verdicts"][0]["memory"], whole["measurements"][0]["pairs"]):
        del part[1:]
    assert VALIDATOR.is_valid(whole)
    for path in list(places(whole, []))[1:]:
        for replacement in ("gone", None, -1, 1.5, "text", [None], {"x": []}, True):
            changed = copy.deepcopy(whole)
            *above, last = path
            parent = changed
            for key in above:
                parent = parent[key]
            if replacement != "gone":
                parent[last] = replacement
            elif isinstance(parent, dict):
                del parent[last]
            yield changed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no report (Expecting value"),
        ("[1, 2", "is no report"),
        ('{"schema": NaN}', "NaN is no JSON number"),
        ("[]", "is of the schema None; expected 'kan-impls-report/1'"),
        ({"schema": "kan-impls-report/2"}, "read it with the version of kan-impls"),
        ({"kind": "other"}, "the report.kind: 'other' is not one of ['compare', 'ab'"),
        (
            {"extra": 1},
            "the report: Additional properties are not allowed ('extra' was unexpected)",
        ),
        ({"verdicts": [{}]}, "the report.verdicts[0]: 'name' is a required property"),
        (
            {"false_alarm_probability": 2},
            "the report.false_alarm_probability: 2 is greater than the maximum of 1",
        ),
        ({"notes": "none"}, "the report.notes: 'none' is not of type 'array'"),
        ("[" * 100_000, "is no report"),
    ],
)
def test_what_is_no_report_is_refused_with_what_to_do(tmp_path, content, message):
    path = tmp_path / "report.json"
    if not isinstance(content, str):
        content = json.dumps({**judged_document(), **content})
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ReportError) as caught:
        read_document(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ReportError, match=r"cannot be read \(No such file"):
        read_document(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="is no report"):
        read_document(tmp_path / "binary.json")


def test_the_stored_runs_are_named():
    found = judged_document()
    assert found["baseline"] == {
        "path": "benchmarks/baselines/cpu_test/0002_a.json",
        "commit": "0123456789abcdef",
        "datetime": "2026-01-02T03:04:05+00:00",
        "device_key": "cpu_test",
    }
    pathless = judged_document(baseline=Source(parse_run(run_data())), anchor=None)
    assert pathless["baseline"]["path"] is None
    assert pathless["anchor"] is None
    anew = measure_only(run_data("a", anchor="another layout of the caches"))
    assert anew["new_history_because"] == "another layout of the caches"
