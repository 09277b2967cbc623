"""The judgement, as tables of measurements made by hand."""

import pytest

from perfgate.judge.judge import Judge
from perfgate.judge.limits import Limits
from perfgate.judge.verdict import Answers, MemoryChange, TimeChange, verdict_of
from tests.perfgate.measurements import (
    LIMITS,
    NAME,
    calibration,
    measurement,
    process,
    processes,
    run_of,
)

COMMIT = "0123456789abcdef"


def judge(baseline, current, limits=LIMITS, anchor=None, answers=None, **options):
    judge = Judge(
        run_of(baseline), run_of(anchor) if anchor else None, lambda measurement: limits, **options
    )
    given = {} if answers is None else {"answers": answers}
    (verdict,) = judge.judge_run(run_of(current), **given)
    return verdict


def in_turns(status, change=0.1, against="baseline"):
    found = TimeChange("median_ns", against, status, change, 0.03, 0.05, 4, commit=COMMIT)
    return Answers({NAME: [found]}, {})


@pytest.mark.parametrize(
    ("ratios", "status", "cause"),
    [
        ((1.0, 1.01, 0.99), "unchanged", "+0.0%"),
        ((1.015, 1.015, 1.015), "unchanged", "+1.5%"),
        # Stored times accuse nobody: the earlier code must be asked.
        ((1.10, 1.11, 1.09), "inconclusive", "+10.0%"),
        ((0.9, 0.9, 0.9), "inconclusive", "-10.0%"),
        # One odd process of three is no change.
        ((1.0, 1.0, 1.5), "unchanged", "+0.0%"),
    ],
)
def test_the_time_over_the_reference(ratios, status, cause):
    verdict = judge(measurement(*[1.0] * 30), measurement(*ratios))
    assert verdict.status == status
    assert cause in verdict.cause
    assert "\n" not in verdict.cause
    assert verdict.open == (() if status == "unchanged" else ("baseline",))
    assert {change.status for change in verdict.times} <= {"unchanged", "inconclusive"}


@pytest.mark.parametrize("status", ["regressed", "improved", "unchanged", "inconclusive"])
@pytest.mark.parametrize("ratio", [1.0, 1.1])
def test_the_earlier_code_decides_whatever_stored_times_say(status, ratio):
    now = measurement(ratio, ratio, ratio)
    verdict = judge(measurement(*[1.0] * 30), now, answers=in_turns(status))
    assert verdict.status == status
    assert "+10.0% in turns with the baseline's code 0123456789 (limit 3.0%, 4 pairs" in (
        verdict.cause
    )
    # Both figures are there to be shown.
    assert [change.commit for change in verdict.times][:2] == [COMMIT, None]
    assert verdict.open == ()


def test_what_could_not_be_compared_says_why():
    why = "its code cannot be had; run git fetch --unshallow"
    answers = Answers({}, {(NAME, "baseline"): why})
    slow = measurement(1.1, 1.1, 1.1)
    verdict = judge(measurement(*[1.0] * 30), slow, answers=answers)
    assert verdict.status == "inconclusive"
    assert f"it seems changed; against the baseline: {why}" in verdict.cause


def test_an_oldest_baseline_that_cannot_be_compared_is_named_beside_the_verdict():
    answers = in_turns("unchanged")
    answers.obstacles[NAME, "anchor"] = "its code cannot be had"
    old = measurement(calibration=None)
    verdict = judge(old, measurement(), anchor=measurement(), answers=answers)
    assert verdict.status == "unchanged"
    assert "against the oldest baseline: its code cannot be had" in verdict.cause


def test_a_loss_that_stored_times_show_is_not_forgotten_where_the_oldest_code_cannot_be_had():
    answers = in_turns("unchanged", 0.01)
    answers.obstacles[NAME, "anchor"] = "its code cannot be had"
    now, oldest = measurement(1.04, 1.04, 1.04), measurement(*[0.67] * 30)
    verdict = judge(measurement(*[1.0] * 30), now, anchor=oldest, answers=answers)
    assert verdict.status == "inconclusive"
    assert "+55.2%" in verdict.cause
    assert "against the oldest baseline: its code cannot be had" in verdict.cause


def test_the_oldest_code_does_not_answer_for_the_baselines():
    answers = in_turns("unchanged", against="anchor")
    answers.obstacles[NAME, "baseline"] = "its code cannot be had"
    old = measurement(calibration=None)
    verdict = judge(old, measurement(), anchor=old, answers=answers)
    assert verdict.status == "inconclusive"
    assert "against the baseline: its code cannot be had" in verdict.cause


@pytest.mark.parametrize(
    "oldest",
    [
        measurement(processes=processes(1.0, 1.0, 1.0, rounds=1, disturbed=9)),
        measurement(memory={"forward_peak_bytes": 4096, "another_bytes": 1}, processes=[]),
    ],
)
def test_an_oldest_run_whose_times_are_lost_is_asked_in_turns(oldest):
    assert judge(measurement(), measurement(), anchor=oldest).open == ("anchor",)


def test_stored_times_must_exclude_a_loss_since_the_oldest_baseline():
    """Not just fail to show it: what noise hides, the code itself is asked."""
    noisy = {"calibration": calibration(sd=0.025)}
    now, old = measurement(1.06, 1.06, 1.06, **noisy), measurement(*[1.06] * 30, **noisy)
    assert judge(old, now, anchor=old).open == ()
    assert judge(old, now, anchor=measurement(*[1.0] * 30)).open == ("anchor",)


def test_what_could_not_be_compared_does_not_hide_a_loss_since_long_ago():
    answers = in_turns("regressed", against="anchor")
    answers.obstacles[NAME, "baseline"] = "its code cannot be had"
    old = measurement(calibration=None)
    assert judge(old, measurement(), anchor=old, answers=answers).status == "regressed"


def test_where_stored_times_say_nothing_the_oldest_baseline_is_asked_too():
    old = measurement(calibration=None)
    assert judge(old, measurement(), anchor=old).open == ("baseline", "anchor")
    assert judge(measurement(), measurement(), anchor=measurement()).open == ()
    elsewhere = judge(
        measurement(), measurement(), anchor=measurement(), strange_anchor=lambda oldest: True
    )
    assert elsewhere.open == ("anchor",)


def test_a_stored_change_is_said_though_it_accuses_nobody():
    verdict = judge(measurement(calibration=None), measurement(3.0, 3.0, 3.0))
    assert verdict.status == "inconclusive"
    assert "(stored time over reference +200%)" in verdict.cause


def test_what_has_no_baseline_and_whose_base_cannot_be_measured_is_unjudged():
    def judged(answers):
        new = measurement(name="new")
        judge = Judge(run_of(), None, lambda measurement: LIMITS)
        (verdict,) = judge.judge_run(run_of(new), answers=answers)
        return verdict

    why = {("new", "baseline"): "its code cannot be measured here"}
    assert judged(Answers({}, why)).status == "unjudged"
    assert judged(Answers({}, why, lacking={"new"})).status == "no_baseline"


def test_more_processes_of_one_run_know_no_more_of_the_next_one():
    many = processes(*[1.0] * 30)
    few = judge(measurement(), measurement()).times[0]
    assert judge(measurement(processes=many), measurement()).times[0].limit < few.limit
    inherited = measurement(processes=processes(*[1.0] * 12))
    assert judge(inherited, measurement()).times[0].limit == few.limit


@pytest.mark.parametrize(
    ("baseline", "options", "cause"),
    [
        ({"calibration": None}, {}, "its noise was never calibrated"),
        ({}, {"stranger": lambda m: "calibrated elsewhere"}, "calibrated elsewhere"),
    ],
)
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_without_known_noise_no_stored_time_says_anything(baseline, options, cause, ratio):
    before, now = measurement(**baseline), measurement(ratio, ratio, ratio)
    verdict = judge(before, now, **options)
    assert verdict.status == "inconclusive"
    assert cause in verdict.cause
    assert verdict.open == ("baseline",)
    assert judge(before, now, answers=in_turns("unchanged"), **options).status == "unchanged"


def test_the_limit_follows_the_noise():
    quiet, noisy = (
        judge(measurement(calibration=calibration(sd)), measurement()).times[0]
        for sd in (0.002, 0.02)
    )
    assert quiet.limit == pytest.approx(LIMITS.ratio)
    # 3.25 standard errors of 9 degrees of freedom, of the root of 2 times 2%.
    assert noisy.limit == pytest.approx(0.0963, abs=1e-4)


def test_what_could_not_be_seen_is_not_unchanged():
    noisy = measurement(calibration=calibration(sd=0.04))
    verdict = judge(noisy, measurement())
    assert verdict.status == "inconclusive"
    assert "a change of up to 15% is not excluded" in verdict.cause
    assert verdict.open == ("baseline",)
    wide = Limits(visible=0.9)
    assert judge(noisy, measurement(), limits=wide).status == "unchanged"


def test_a_faster_mlp_makes_nothing_else_slower():
    before = measurement(processes=processes(1.0, 1.0, 1.0, beside={"mlp": 1.0}))
    now = processes(1.0, 1.0, 1.0, beside={"mlp": 2.0})
    assert judge(before, measurement(processes=now)).status == "unchanged"


def test_a_slowdown_that_the_reference_shares_is_seen_by_time_itself():
    slow = processes(1.0, 1.0, 1.0, median_ns=3e6)
    verdict = judge(measurement(), measurement(processes=slow))
    assert verdict.status == "inconclusive"
    assert verdict.cause.startswith("time +200.0%")
    assert verdict.open == ("baseline",)
    # One fast process tells that it is the machine.
    mixed = [process(median_ns=1e6), *slow[1:]]
    assert judge(measurement(), measurement(processes=mixed)).status == "unchanged"


def test_many_small_losses_are_seen_since_the_oldest_baseline():
    lost = processes(1.07, 1.07, 1.07)
    last, now = measurement(*[1.055] * 30), measurement(processes=lost)
    assert judge(last, now).status == "unchanged"
    oldest = measurement(*[1.0] * 30)
    verdict = judge(last, now, anchor=oldest)
    assert verdict.status == "inconclusive"
    assert "+7.0%" in verdict.cause
    assert "since the oldest baseline" in verdict.cause
    assert verdict.open == ("anchor",)
    answers = in_turns("regressed", 0.07, "anchor")
    verdict = judge(last, now, anchor=oldest, answers=answers)
    assert verdict.status == "regressed"
    assert "in turns with the oldest baseline's code" in verdict.cause
    # What is faster than it once was needs no mention.
    assert judge(last, now, anchor=measurement(*[2.0] * 30)).status == "unchanged"


@pytest.mark.parametrize(
    ("bytes_now", "status", "cause"),
    [
        (4097, "regressed", "forward_peak_bytes +1 B (4,096 to 4,097)"),
        (8192, "regressed", "+4,096 B"),
        (4095, "improved", "-1 B"),
        (4096, "unchanged", ""),
    ],
)
def test_memory_is_judged_to_the_byte(bytes_now, status, cause):
    verdict = judge(measurement(), measurement(memory={"forward_peak_bytes": bytes_now}))
    assert verdict.status == status
    assert cause in verdict.cause
    # It repeats exactly, so there is nothing to compare in turns.
    assert verdict.open == ()


def test_a_gpus_library_workspace_is_no_regression():
    limits = Limits(memory_bytes=2**20)
    grown = measurement(memory={"forward_peak_bytes": 4096 + 2**19})
    assert judge(measurement(), grown, limits).status == "unchanged"
    grown = measurement(memory={"forward_peak_bytes": 4096 + 2**21})
    assert judge(measurement(), grown, limits).status == "regressed"


def test_a_loss_outweighs_a_gain():
    now = measurement(0.5, 0.5, 0.5, memory={"forward_peak_bytes": 5000})
    verdict = judge(measurement(), now, answers=in_turns("improved", -0.5))
    assert verdict.status == "regressed"
    assert "+904 B" in verdict.cause


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"measured": {"case": "reference", "batch": 200}}, "batch was 100 and is 200"),
        ({"memory": {}}, "forward_peak_bytes was not measured"),
        ({"processes": [process(ratio=None)]}, "only one of the two has an interleaved reference"),
    ],
)
def test_other_work_is_incomparable(changes, cause):
    verdict = judge(measurement(), measurement(**changes))
    assert verdict.status == "incomparable"
    assert cause in verdict.cause


def test_a_busy_machine_makes_no_verdict_on_time_but_one_on_memory():
    busy = [*processes(9.0, 9.0, rounds=1, disturbed=9), process()]
    verdict = judge(measurement(), measurement(processes=busy))
    assert verdict.status == "unjudged"
    assert "18 of 30 rounds lost" in verdict.cause
    assert verdict.open == ("baseline",)
    # A change that stands out of the noise is said, however busy the machine was.
    assert judge(
        measurement(), measurement(processes=busy), answers=in_turns("regressed", 2.3)
    ).status == ("regressed")
    more = measurement(processes=busy, memory={"forward_peak_bytes": 5000})
    assert judge(measurement(), more).status == "regressed"


@pytest.mark.parametrize(
    ("against", "change", "visible", "status"),
    [
        ("baseline", 0.1, 0.6, "inconclusive"),
        ("baseline", 0.1, 1.4, "unjudged"),
        ("baseline", -0.5, 1.4, "inconclusive"),  # a gain, most of which is none of noise
        ("anchor", -0.3, 1.4, "unjudged"),  # here no gain is to be excluded
    ],
)
def test_turns_that_do_not_even_exclude_twice_the_time_judge_nothing(
    against, change, visible, status
):
    change = TimeChange("median_ns", against, "inconclusive", change, 0.5, visible, 3, "c" * 40)
    assert verdict_of("a", [change]).status == status
    grown = MemoryChange("peak", "regressed", 1, 9000)
    assert verdict_of("a", [change], [grown]).status == "regressed"


@pytest.mark.parametrize(
    ("before", "now", "status"),
    [
        (10, 10, "unchanged"),
        (10, 11, "regressed"),
        (10, 9, "improved"),
        (None, 11, "unchanged"),
        (10, None, "incomparable"),
    ],
)
def test_launches_are_exact(before, now, status):
    verdict = judge(measurement(launches=before), measurement(launches=now))
    assert verdict.status == status
    if status == "incomparable":
        assert verdict.cause == "launches was not measured"
    elif status != "unchanged":
        assert f"({before} to {now})" in verdict.cause


def test_one_more_launch_is_no_less_because_time_is_open():
    busy = [*processes(9.0, 9.0, rounds=1, disturbed=9), process()]
    verdict = judge(measurement(launches=10), measurement(launches=11, processes=busy))
    assert verdict.status == "regressed"
    assert verdict.open == ("baseline",)


def test_a_disturbed_process_does_not_count():
    one_busy = [process(), process(), process(5.0, rounds=1, disturbed=9)]
    assert judge(measurement(), measurement(processes=one_busy)).times[0].processes == 2


def test_without_a_reference_time_itself_is_judged():
    def plain(median_ns):
        measured = [process(ratio=None, median_ns=median_ns)] * 3
        return measurement(processes=measured, memory={}, measured={})

    assert judge(plain(1e6), plain(1e6)).status == "unchanged"
    assert judge(plain(1e6), plain(2e6)).status == "inconclusive"
    assert judge(plain(1e6), plain(1e5)).open == ("baseline",)


def test_silence_is_a_verdict():
    baseline = run_of(*(measurement(name=name) for name in "abcd"))
    current = run_of(measurement(name="a"), measurement(name="e"))
    verdicts = Judge(baseline, None, lambda m: LIMITS).judge_run(
        current, absent={"b": "it was skipped (no memory)"}, left_out=["d"]
    )
    by_name = {verdict.name: verdict for verdict in verdicts}
    assert by_name.keys() == {"a", "b", "c", "e"}
    assert by_name["a"].status == "unchanged"
    assert by_name["b"].status == by_name["c"].status == "missing"
    assert "no memory" in by_name["b"].cause
    assert by_name["e"].status == "no_baseline"
    assert "kan-bench accept" in by_name["e"].cause


def test_a_benchmark_that_ran_is_judged_even_if_deselected_elsewhere():
    judge = Judge(run_of(measurement()), None, lambda m: LIMITS)
    verdicts = judge.judge_run(run_of(measurement()), left_out=[NAME])
    assert [verdict.status for verdict in verdicts] == ["unchanged"]


def test_without_a_baseline_everything_lacks_one_unless_a_base_was_asked():
    judge = Judge(None, None, lambda m: LIMITS)
    assert [v.status for v in judge.judge_run(run_of(measurement()))] == ["no_baseline"]
    (verdict,) = judge.judge_run(
        run_of(measurement()), answers=in_turns("regressed", against="base")
    )
    assert verdict.status == "regressed"
    assert "in turns with the base's code" in verdict.cause


def of_forms(**forms):
    return measurement(*[1.0] * 30, info={"forms": forms} if forms else {})


@pytest.mark.parametrize("accused", [False, True])
def test_another_form_is_said_in_the_verdict(accused):
    before, now = of_forms(forward="product in 1024 MiB"), of_forms(forward="kernels")
    answers = in_turns("regressed") if accused else None
    verdict = judge(before, now, answers=answers)
    assert verdict.status == ("regressed" if accused else "unchanged")
    assert verdict.cause.endswith(
        "another form ran: forward was 'product in 1024 MiB' and is 'kernels'"
    )
    for then, today in ((now, now), (of_forms(), now), (now, of_forms())):
        assert "form" not in judge(then, today, answers=answers).cause
