"""Tables for people."""

from kan_impls.bench.record import parse_run
from kan_impls.bench.report import (
    markdown_table,
    results_markdown,
    verdict_lines,
    verdict_summary,
)
from kan_impls.bench.verdict import Verdict
from tests.bench_runs import run_data


def test_a_markdown_table_is_aligned():
    assert markdown_table(["name", "ms"], [["a", "1.25"], ["longer", "10.00"]]).splitlines() == [
        "| name   |    ms |",
        "|:-------|------:|",
        "| a      |  1.25 |",
        "| longer | 10.00 |",
    ]


def test_results_show_each_figure_where_it_belongs():
    data = run_data("mlp", "fused", memory=2_500_000)
    for benchmark in run_data("mlp")["benchmarks"]:
        benchmark["fullname"] = "mlp backward"
        benchmark["extra_info"]["measured"]["pass"] = "backward"
        benchmark["extra_info"]["memory"] = {"backward_peak_bytes": 7_500_000}
        benchmark["stats"]["median"] = 0.003
        data["benchmarks"].append(benchmark)
    text = results_markdown(parse_run(data))
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    header, mlp, fused = ([cell.strip() for cell in line] for line in lines)
    row = dict(zip(header, mlp, strict=True))
    assert row["implementation"] == "mlp"
    assert (row["forward ms"], row["backward ms"], row["step ms"]) == ("2.00", "3.00", "")
    assert row["backward MB"] == "7.50"
    assert (row["parameters"], row["trainable"]) == ("1,234,567", "1,234,560")
    assert (row["fwd/MLP"], row["fwd floor"]) == ("1.500", "50%")
    row = dict(zip(header, fused, strict=True))
    assert (row["forward MB"], row["backward ms"]) == ("2.50", "")
    assert "Test CPU" in text
    assert "2026-01-02T03:04:05 UTC" in text
    assert "### reference, batch 100" in text


def test_an_empty_run_has_no_table():
    assert "|:" not in results_markdown(parse_run(run_data()))


def test_verdicts_are_one_line_each_worst_last():
    verdicts = [
        Verdict("b", "regressed", "slow"),
        Verdict("a", "unchanged", "same"),
        Verdict("c", "missing", "gone"),
        Verdict("d", "regressed", "big"),
    ]
    lines = verdict_lines(verdicts)
    assert [status for status, _ in lines] == ["unchanged", "missing", "regressed", "regressed"]
    assert all("\n" not in line for _, line in lines)
    assert verdict_summary(verdicts) == "2 regressed, 1 unchanged, 1 missing"
