"""Tables for people."""

from xml.etree import ElementTree

import pytest

from perfgate.failures import Failure
from perfgate.judge.parse import parse_run
from perfgate.judge.verdict import MemoryChange, TimeChange, Verdict
from perfgate.plain_text import printable
from perfgate.report.document import document
from perfgate.report.junit import junit_xml
from perfgate.report.summary import summary_markdown
from perfgate.report.tables import markdown_table, results_markdown
from perfgate.report.verdict_table import verdict_lines, verdict_summary
from perfgate.report.words import (
    byte_change,
    milliseconds,
    one_line,
    percent,
    short_names,
)
from tests.perfgate.runs import benchmark, node, run_data


def time_change(status="unchanged", **fields):
    usual = {
        "figure": "ratio",
        "against": "baseline",
        "change": 0.01,
        "limit": 0.03,
        "visible": 0.05,
        "processes": 3,
    }
    return TimeChange(status=status, **{**usual, **fields})


def test_a_markdown_table_is_aligned():
    assert markdown_table(["name", "ms"], [["a", "1.25"], ["longer", "10.00"]]).splitlines() == [
        "| name   |    ms |",
        "|:-------|------:|",
        "| a      |  1.25 |",
        "| longer | 10.00 |",
    ]


def rows_of(data):
    return rows_in(results_markdown(parse_run(data)))


def rows_in(text):
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    header, *rows = ([cell.strip() for cell in line] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_results_show_each_figure_where_it_belongs():
    data = run_data("mlp", "fused", memory=2_500_000)
    data["benchmarks"].append(benchmark("mlp backward", "mlp", "backward", ratio=1.5))
    data["benchmarks"][-1]["extra_info"]["memory"] = {"backward_peak_bytes": 7_500_000}
    mlp, fused = rows_of(data)
    assert mlp["implementation"] == "mlp"
    assert (mlp["forward ms"], mlp["backward ms"], mlp["step ms"]) == ("2.00", "3.00", "")
    assert mlp["backward MB"] == "7.50"
    assert (mlp["parameters"], mlp["trainable"]) == ("1,234,567", "1,234,560")
    assert (mlp["fwd/mlp"], mlp["bwd/mlp"], mlp["fwd floor"]) == ("", "", "50%")
    assert (fused["forward MB"], fused["backward ms"], fused["fwd/mlp"]) == ("2.50", "", "1.500")
    text = results_markdown(parse_run(data))
    assert "Test CPU" in text
    assert "2026-01-02T03:04:05 UTC" in text
    assert "### reference, batch 100" in text


def test_the_fastest_and_the_smallest_are_named():
    data = run_data()
    for name, parameters, step in (("kan", 1000, 20), ("mlp", 10, 30), ("slow", 2000, 40)):
        entry = benchmark(f"{name} step", name, "training_step", median_ns=step * 1e6)
        entry["extra_info"] |= {"parameters": parameters, "memory": {"backward_peak_bytes": 2**20}}
        data["benchmarks"].append(entry)
    assert (
        "Fastest: kan, 20.0 ms a step. Smallest: mlp, 1.05 MB with its parameters."
        in results_markdown(parse_run(data))
    )
    del data["benchmarks"][1:]
    assert "Fastest" not in results_markdown(parse_run(data))  # of one alone


def measured_as(**fields):
    """Both passes of `kan`, whose time is taken and which is run as said."""
    entries = [benchmark(f"{p} {fields}", "kan", p) for p in ("forward", "backward")]
    for entry in entries:
        entry["extra_info"]["measured"] |= fields
    return entries


def test_each_way_to_run_has_a_row():
    data = run_data()
    for fields in ({}, {"mode": "graph"}, {"backend": "cuda", "precision": "tf32"}):
        data["benchmarks"] += measured_as(**fields)
    data["benchmarks"] += measured_as(config={"grid_size": 50})
    rows = rows_of(data)
    assert [row["implementation"] for row in rows] == ["kan", "kan graph", "kan cuda tf32", "kan"]
    assert all(row["forward ms"] and row["backward ms"] for row in rows)


def test_figures_of_two_timers_or_caches_never_share_a_table():
    data = run_data()
    for fields in ({}, {"timer": "events"}, {"cache": "cold"}):
        data["benchmarks"] += measured_as(**fields)
    text = results_markdown(parse_run(data))
    assert [line for line in text.splitlines() if line.startswith("###")] == [
        "### reference, batch 100",
        "### reference, batch 100, timer events",
        "### reference, batch 100, cold caches",
    ]
    assert text.count("| kan ") == 3


def failure(implementation, pass_name, reason):
    work = benchmark("", implementation, pass_name)["extra_info"]["measured"]
    return Failure(f"test[{implementation}]", work, reason)


def test_what_failed_has_a_row_with_the_reason():
    failures = [
        *(failure("theirs", name, "ValueError: a | b") for name in ("forward", "training_step")),
        failure("kan", "backward", "RuntimeError: out of luck"),
    ]
    run = parse_run(run_data("mlp", "kan"))
    text = results_markdown(run, failures)
    mlp, kan, theirs = rows_in(text)
    assert mlp["implementation"] == "mlp"
    assert kan["implementation"] == "kan (backward failed)"
    assert kan["forward ms"] == "2.00"
    assert theirs["implementation"] == "theirs (failed)"
    assert theirs["forward ms"] == ""
    assert "\n- kan failed, backward: RuntimeError: out of luck\n" in text
    assert "\n- theirs failed, forward, step: ValueError: a | b\n" in text
    (alone,) = rows_in(results_markdown(parse_run(run_data()), failures[-1:]))
    assert alone == {"implementation": "kan (failed)"}


def test_layers_from_elsewhere_have_their_version_and_error():
    data = run_data("kan", "theirs")
    data["benchmarks"][1]["extra_info"] |= {"package_version": "0.5.2", "float64_error": 2.5e-7}
    ours, theirs = rows_of(data)
    assert (ours["implementation"], ours["error"]) == ("kan", "")
    assert (theirs["implementation"], theirs["error"]) == ("theirs (0.5.2, external)", "2.5e-07")
    assert "`error` is the largest difference" in results_markdown(parse_run(data))
    assert "error" not in rows_of(run_data("kan"))[0]


def test_an_empty_run_has_no_table():
    assert "|:" not in results_markdown(parse_run(run_data()))


def test_a_benchmark_of_another_plugin_is_no_row():
    data = run_data("mine", "other")
    data["benchmarks"][1]["extra_info"] = {"measured": "something"}
    assert [row["implementation"] for row in rows_of(data)] == ["mine"]


VERDICTS = [
    Verdict(node("b-forward"), "regressed", "slow", [time_change("regressed", change=0.5)]),
    Verdict(
        node("a-forward"),
        "unchanged",
        "the same",
        [time_change(processes=6)],
        [MemoryChange("saved_bytes", "unchanged", 4096, 4096)],
    ),
    Verdict(node("c-backward_with_input_grad"), "missing", "gone"),
    Verdict(
        node("d-forward"),
        "regressed",
        "big",
        [time_change(change=0.0)],
        [
            MemoryChange("saved_bytes", "unchanged", 4, 4),
            MemoryChange("forward_peak_bytes", "regressed", 4096, 8192),
        ],
    ),
]


def test_verdicts_are_aligned_with_their_cause_below_and_the_worst_last():
    assert verdict_lines(VERDICTS) == [
        ("", "verdict    benchmark                 change  at most    memory  processes"),
        ("unchanged", "unchanged  reference[a-forward]       +1.0%     5.0%       0 B          6"),
        ("missing", "missing    reference[c-backward+dx]"),
        ("missing", "           gone"),
        ("regressed", "regressed  reference[b-forward]      +50.0%     5.0%                    3"),
        ("regressed", "           slow"),
        ("regressed", "regressed  reference[d-forward]       +0.0%     5.0%  +4,096 B          3"),
        ("regressed", "           big"),
    ]
    assert verdict_summary(VERDICTS) == "2 regressed, 1 missing, 1 unchanged"


def test_a_hundred_columns_are_enough_for_any_name_and_cause():
    name = node("fused_efficient_kan_of_many_words-backward-" + "x" * 80)
    cause = "time over reference +10.0% (limit 3.0%, fresh processes +9.0%) " * 4
    change = time_change("inconclusive", change=12.5, limit=3.0)
    memory = [MemoryChange("saved_bytes", "unchanged", 0, 123_456_789_012)]
    lines = verdict_lines([Verdict(name, "inconclusive", cause, [change], memory)])
    assert max(len(line) for _, line in lines) <= 100
    assert "…" in lines[1][1]
    assert " ".join(line.strip() for _, line in lines[2:]) == cause.strip()


def test_a_cause_that_verdicts_share_is_said_once():
    verdicts = [Verdict(name, "no_baseline", "store one") for name in "abc"]
    lines = [line.split() for _, line in verdict_lines(verdicts)]
    assert lines[1:] == [
        ["no", "baseline", "a"],
        ["no", "baseline", "b"],
        ["no", "baseline", "c"],
        ["store", "one"],
    ]


def test_without_verdicts_there_are_no_lines():
    assert verdict_lines([]) == []
    assert verdict_summary([]) == ""


def test_a_name_cannot_steer_the_terminal():
    lines = verdict_lines([Verdict("a\x1b[31m\nb\u202e", "missing", "c\nd\x07")])
    assert not any(character in line for _, line in lines for character in "\x1b\n\x07\u202e")
    assert one_line("a\r\n\tb") == "a b"


def test_names_lose_what_is_obvious_and_stay_different():
    names = [node("mlp-backward_with_input_grad"), node("mlp-training_step"), "x.py::test_a", "b"]
    assert list(short_names(names).values()) == [
        "reference[mlp-backward+dx]",
        "reference[mlp-step]",
        "a",
        "b",
    ]
    same = ["x.py::test_a", "y.py::test_a", "y.py::test_b"]
    assert list(short_names(same).values()) == ["x.py::test_a", "y.py::test_a", "b"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (milliseconds(1_234_567.0), "1.23"),
        (milliseconds(46e6), "46.0"),
        (milliseconds(1.234e9), "1,234"),
        (milliseconds(None), ""),
        (percent(0.1234, sign=True), "+12.3%"),
        (percent(-0.00004, sign=True), "+0.0%"),
        (percent(12.5), "1250%"),
        (percent(None), ""),
        (byte_change(4096, 8192), "+4,096 B"),
        (byte_change(5, 5), "0 B"),
    ],
)
def test_figures_are_rounded_alike_everywhere(shown, expected):
    assert shown == expected


HOSTILE = [
    "::error::a",
    "a ::error::b",
    "##[error]a",
    "a##vso[task.complete result=Failed]",
    "a\x1b]0;title\x07b",
    "\u202ea\u2066b\u061c",
    "a\u2028b",
    "x" * 96 + " ::error::b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_a_command_of_a_ci_or_turns_writing(name):
    verdicts = [Verdict(name, "missing", name), Verdict("b" + name, "regressed", f"z {name}")]
    report = document(parse_run(run_data()), verdicts, exit_code=10, kind="compare")
    report["notes"] = [name]
    lines = [line for _, line in verdict_lines(verdicts)]
    shown = [*lines, summary_markdown(report), junit_xml(report), printable(f"{name}\n{name}")]
    for text in shown:
        assert not set(text) & set("\x1b\x07\u202e\u2066\u061c\u2028")
        assert "##[" not in text
        assert "##vso[" not in text
    for line in "\n".join([*lines, *shown[-1:]]).split("\n"):
        assert not line.lstrip().startswith("::")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.py::test_a[x::y]", "a[x::y]"),
        ("x.py::TestK::test_a[x::y[z]]", "a[x::y[z]]"),
        ("a/x.py::TestK::test_a", "a"),
        ("a[1]/x.py::test_a[b]", "a[b]"),
        ("test_a[x::y]", "test_a[x::y]"),
    ],
)
def test_parameters_may_hold_colons(name, expected):
    assert short_names([name]) == {name: expected}
    verdicts = [Verdict(name, "missing", "gone")]
    report = document(parse_run(run_data()), verdicts, exit_code=11, kind="compare")
    case = ElementTree.fromstring(junit_xml(report)).find(".//testcase")
    assert case.get("name").removeprefix("test_") == expected.removeprefix("test_")
