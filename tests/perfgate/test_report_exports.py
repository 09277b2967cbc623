"""The report for other programs: JUnit's XML, and services that keep histories."""

import re
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from perfgate.judge.exit_codes import failing_by
from perfgate.judge.parse import parse_run
from perfgate.judge.verdict import Verdict
from perfgate.report.document import document
from perfgate.report.exports import bencher, github_action_benchmark
from perfgate.report.junit import (
    junit_xml,
    properties,
    properties_by_test,
    suite_properties,
)
from tests.perfgate.runs import BY_STATUS, judged_document, node, run_data

# Of the common junit-10 schema, what is used here: elements, their attributes and children.
LAYOUT = {
    "testsuites": ({"name"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"},
        ["properties", "testcase"],
    ),
    "properties": (set(), ["property"]),
    "property": ({"name", "value"}, []),
    "testcase": ({"name", "classname", "time"}, ["skipped", "error", "failure", "system-out"]),
    "skipped": ({"message", "type"}, []),
    "error": ({"message", "type"}, []),
    "failure": ({"message", "type"}, []),
    "system-out": (set(), []),
}


def parsed(report):
    root = ElementTree.fromstring(junit_xml(report).encode())
    for element in root.iter():
        attributes, children = LAYOUT[element.tag]
        assert set(element.attrib) == attributes, element.tag
        assert {child.tag for child in element} <= {*children}, element.tag
    return root


def judged(*verdicts, exit_code=10, data=None, **options):
    run = parse_run(data or run_data())
    return document(run, verdicts, exit_code=exit_code, kind="compare", **options)


def outcomes(report):
    """Name of each case to the tag of its outcome, and to its message."""
    found = {}
    for case in parsed(report).iter("testcase"):
        inside = [child for child in case if child.tag != "system-out"]
        first = inside[0] if inside else None
        found[case.get("name")] = (
            ("passed", "") if first is None else (first.tag, first.get("message"))
        )
    return found


def test_each_benchmark_is_a_case_with_its_verdict():
    found = outcomes(judged_document())
    tags = {status: found[name.split("::")[1]][0] for status, name in BY_STATUS.items()}
    assert tags == {
        "unchanged": "passed",
        "improved": "passed",
        "regressed": "failure",
        "missing": "failure",
        "incomparable": "failure",
        "unjudged": "failure",
        "inconclusive": "skipped",
        "no_baseline": "skipped",
    }
    message = found["test_reference[efficient_kan-forward]"][1]
    assert message.startswith("regressed: +100.0% in turns with the baseline's code")
    assert "it seems changed" in found["test_reference[fourier_kan-forward]"][1]


def test_the_suite_counts_its_cases():
    suite = parsed(judged_document()).find("testsuite")
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "8", "failures": "4", "errors": "0", "skipped": "2"}
    assert suite.get("timestamp") == "2026-02-03T04:05:06"
    assert re.fullmatch(r"\d+\.\d+", suite.get("time"))
    times = [float(case.get("time")) for case in suite.iter("testcase")]
    assert float(suite.get("time")) == pytest.approx(sum(times))
    assert times[0] == pytest.approx(0.002, rel=1e-3)


def test_a_case_is_named_as_pytest_names_it():
    names = ["a/b/test_x.py::TestY::test_z[p::q/r.py]", "bare"]
    report = judged(*(Verdict(name, "missing", "gone") for name in names))
    cases = [(case.get("classname"), case.get("name")) for case in parsed(report).iter("testcase")]
    assert cases == [("a.b.test_x.TestY", "test_z[p::q/r.py]"), ("kan-bench", "bare")]


@pytest.mark.parametrize(
    ("status", "options", "code", "tag"),
    [
        ("no_baseline", {}, 0, "skipped"),
        ("no_baseline", {"require_baseline": True}, 15, "failure"),
        ("improved", {"fail_on_improved": True}, 16, "failure"),
        ("inconclusive", {"fail_on_inconclusive": True}, 17, "failure"),
        ("unchanged", {}, 0, "passed"),
        ("unjudged", {}, 19, "failure"),
        ("unjudged", {"allow_unjudged": True}, 0, "skipped"),
    ],
)
def test_what_the_run_was_told_not_to_let_pass_is_a_failure(status, options, code, tag):
    failing = failing_by(SimpleNamespace(**options))
    found = outcomes(judged(Verdict("a", status, "why"), exit_code=code, failing=failing))
    assert found == {"a": (tag, "" if tag == "passed" else f"{status.replace('_', ' ')}: why")}


def test_a_failure_does_not_hide_another_kind_of_failure():
    verdicts = Verdict("a", "regressed", "slow"), Verdict("b", "no_baseline", "new")
    report = judged(*verdicts, failing=failing_by(SimpleNamespace(require_baseline=True)))
    assert {name: tag for name, (tag, _) in outcomes(report).items()} == {
        "a": "failure",
        "b": "failure",
    }
    # Reports of earlier versions do not say what was not to pass.
    del report["failing"]
    assert [tag for tag, _ in outcomes(report).values()] == ["failure", "skipped"]


@pytest.mark.parametrize("code", [12, 14, 1, 99])
def test_a_run_that_fails_without_a_verdict_is_an_error(code):
    report = judged(exit_code=code)
    assert [tag for tag, _ in outcomes(report).values()] == ["error"]
    assert parsed(report).find("testsuite").get("errors") == "1"
    assert outcomes(judged(exit_code=0)) == {}
    beside = judged(Verdict("a", "unchanged", "same"), exit_code=code)
    assert [tag for tag, _ in outcomes(beside).values()] == ["passed", "error"]


def test_a_case_carries_its_figures_and_the_suite_the_run():
    report = judged_document()
    root = parsed(report)
    output = {case.get("name"): case.find("system-out").text for case in root.iter("testcase")}
    lines = output["test_reference[efficient_kan-forward]"].splitlines()
    assert {
        "median_ns=4000001.0",
        "ratio=2.0",
        "ratio_to_mlp=3.0",
        "forward_peak_bytes=8192",
        "processes=3",
        "disturbed_rounds=3",
        "verdict=regressed",
    } <= {*lines}
    facts = {entry.get("name"): entry.get("value") for entry in root.iter("property")}
    assert facts == dict(suite_properties(report))
    assert facts["kan_bench.exit_name"] == "REGRESSED"
    assert facts["kan_bench.regressed"] == facts["kan_bench.unchanged"] == "1"
    assert facts["kan_bench.device_key"] == "cpu_test"
    assert "kan_bench.base" not in facts


def test_properties_are_pairs_of_text():
    report = judged_document()
    by_test = properties_by_test(report)
    assert by_test.keys() == {*BY_STATUS.values()}
    gone = by_test[BY_STATUS["missing"]]
    assert gone == [
        ("verdict", "missing"),
        ("cause", "in the baseline, but this run does not have it"),
    ]
    first = report["measurements"][0]
    assert dict(by_test[first["name"]]).items() >= dict(properties(first)).items()
    assert all(
        isinstance(part, str) for pairs in by_test.values() for pair in pairs for part in pair
    )
    assert "ratio_to_mlp" not in dict(by_test[BY_STATUS["unchanged"]])


def test_what_xml_has_no_character_for_is_replaced():
    name = "x.py::test[\x00\x1b[31m<&>\"']\ufffe"
    data = run_data(name)
    case = next(parsed(judged(Verdict(name, "regressed", "a\x07b]]>"), data=data)).iter("testcase"))
    assert case.get("name") == "test[��[31m<&>\"']�"
    assert case.find("failure").get("message") == "regressed: a�b]]>"


def test_the_layout_check_sees_a_fault(monkeypatch):
    monkeypatch.setitem(LAYOUT, "testcase", ({"name", "classname"}, ["failure"]))
    with pytest.raises(AssertionError, match="testcase"):
        parsed(judged_document())


def entries_of(report, name):
    entries = github_action_benchmark(report)
    assert len({entry["name"] for entry in entries}) == len(entries)
    prefix = f"{name} · "
    return {
        entry["name"].removeprefix(prefix): entry
        for entry in entries
        if entry["name"].startswith(prefix)
    }


def test_the_action_gets_time_ratios_and_every_kind_of_memory():
    found = entries_of(judged_document(), BY_STATUS["regressed"])
    assert {what: (entry["value"], entry["unit"]) for what, entry in found.items()} == {
        "time": (4.000001, "ms"),
        "time over reference": (2.0, "ratio"),
        "time over mlp": (3.0, "ratio"),
        "forward peak": (8192, "bytes"),
        "saved": (100, "bytes"),
    }
    assert found["time"]["extra"].splitlines() == [
        "device: cpu_test",
        "commit: fedcba9876",
        "processes: 3",
        "rounds: 15, 3 disturbed",
        "verdict: regressed",
    ]


def test_a_range_is_half_the_spread_over_processes_as_the_action_reads_it():
    data = run_data("a")
    for index, process in enumerate(data["benchmarks"][0]["extra_info"]["processes"]):
        process["median_ns"] = 2e6 + 1e6 * index
    entry = entries_of(judged(data=data), "a")
    assert entry["time"]["value"] == 3.0
    assert entry["time"]["range"] == "± 1"
    assert "range" not in entry["saved"]
    assert "range" not in entry["time over mlp"]


def test_bencher_gets_measures_with_their_extremes():
    data = run_data(node("mlp-forward"))
    for index, process in enumerate(data["benchmarks"][0]["extra_info"]["processes"]):
        process["median_ns"] = 2e6 + 1e6 * index
    assert bencher(judged(data=data)) == {
        node("mlp-forward"): {
            "latency": {"value": 3e6, "lower_value": 2e6, "upper_value": 4e6},
            "time-over-reference": {"value": 1.0, "lower_value": 1.0, "upper_value": 1.0},
            "time-over-mlp": {"value": 1.5, "lower_value": 1.5, "upper_value": 1.5},
            "forward-peak-bytes": {"value": 4096, "lower_value": 4096, "upper_value": 4096},
            "saved-bytes": {"value": 100, "lower_value": 100, "upper_value": 100},
        }
    }


def test_bencher_takes_names_of_any_length():
    data = run_data("n" * 3000)
    data["benchmarks"][0]["extra_info"]["memory"] = {"k" * 100: 1}
    found = bencher(judged(data=data))
    assert [len(name) for name in found] == [1024]
    assert max(len(measure) for measures in found.values() for measure in measures) == 64


def test_benchmarks_of_other_plugins_have_a_time():
    data = run_data("x.py::test_a")
    data["benchmarks"][0]["extra_info"] = {}
    report = judged(data=data)
    assert [(entry["value"], entry["unit"]) for entry in github_action_benchmark(report)] == [
        (pytest.approx(2.0), "ms")
    ]
    assert bencher(report)["x.py::test_a"]["latency"]["value"] == pytest.approx(2e6)
    assert outcomes(report)["test_a"] == ("passed", "")


def test_an_empty_run_has_no_entries():
    assert github_action_benchmark(judged()) == []
    assert bencher(judged()) == {}
