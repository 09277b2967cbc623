"""A report's own verdicts count, and whether they are all there."""

import pytest

from perfgate.judge.exit_codes import FAILING, GateExit
from perfgate.report import ReportError, write_all
from perfgate.report.outcome import read_whole, ruling
from tests.perfgate.runs import BY_STATUS, judged_document


def exit_of(report, **options):
    return ruling(report, **options)[0]


def green(*statuses):
    """A report that calls itself passed, with these verdicts."""
    report = judged_document()
    report["exit"] = {"code": 0, "name": "PASSED"}
    names = {BY_STATUS[status] for status in statuses}
    for part in ("verdicts", "measurements"):
        report[part] = [entry for entry in report[part] if entry["name"] in names]
    return report


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["unchanged", "improved"], GateExit.PASSED),
        (["unchanged", "regressed"], GateExit.REGRESSED),
        (["unchanged", "missing"], GateExit.MISSING),
        (["incomparable"], GateExit.INCOMPARABLE),
        ([], GateExit.NOTHING_MEASURED),
    ],
)
def test_the_verdicts_decide_whatever_the_report_calls_itself(statuses, code):
    assert exit_of(green(*statuses)) == code


def test_what_is_not_to_pass_is_the_callers_choice():
    report = green("inconclusive")
    assert exit_of(report) == GateExit.PASSED
    assert exit_of(report, failing={*FAILING, "inconclusive"}) == GateExit.INCONCLUSIVE


@pytest.mark.parametrize(
    ("against", "code"),
    [("base", GateExit.PASSED), ("baseline", GateExit.PASSED), ("anchor", GateExit.UNJUDGED)],
)
def test_an_unclear_time_must_have_been_compared_with_the_code_before_the_change(against, code):
    report = green("inconclusive")
    (verdict,) = report["verdicts"]
    verdict["times"] = [{"in_turns_with": "c" * 40, "against": against}]
    assert exit_of(report, needs_time=True) == code
    assert exit_of(report) == GateExit.PASSED


def test_a_failure_that_no_verdict_names_stays():
    report = {**green("unchanged"), "exit": {"code": 1, "name": "TESTS_FAILED"}}
    assert exit_of(report) == 1


def test_a_benchmark_without_a_verdict_is_missing():
    report = green("unchanged", "improved")
    del report["verdicts"][0]  # measured, and not judged
    assert exit_of(report) == GateExit.MISSING


def test_a_report_of_a_run_that_broke_off_is_none(tmp_path):
    report = judged_document()
    write_all(tmp_path, report)
    assert read_whole(tmp_path) == report
    (tmp_path / "exit_code").write_text("0\n")
    with pytest.raises(ReportError, match=r"is 0, and report.json says 10"):
        read_whole(tmp_path)
    (tmp_path / "exit_code").unlink()
    with pytest.raises(ReportError, match=r"is not there .*measure again"):
        read_whole(tmp_path)
