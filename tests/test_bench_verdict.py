"""The judgement, as tables of measurements made by hand."""

import pytest

from kan_impls.bench.limits import Limits
from kan_impls.bench.verdict import Judge
from tests.bench_measurements import (
    LIMITS,
    NAME,
    calibration,
    measurement,
    process,
    processes,
    run_of,
)

# Of 9 degrees of freedom two runs exceed 2.8 standard errors once in 12 * 100; times 1% and the
# root of 3/30 + 3/6: a limit of 2.2%.
SLOW = (1.10, 1.11, 1.09)


def judge(baseline, current, limits=LIMITS, anchor=None, **options):
    judge = Judge(
        run_of(baseline), run_of(anchor) if anchor else None, lambda measurement: limits, **options
    )
    (verdict,) = judge.judge_run(run_of(current))
    return verdict


@pytest.mark.parametrize(
    ("ratios", "confirming", "status", "cause"),
    [
        ((1.0, 1.01, 0.99), (), "unchanged", "+0.0%"),
        ((1.015, 1.015, 1.015), (), "unchanged", "+1.5%"),
        # What looks changed is not called so before fresh processes have shown it.
        (SLOW, (), "inconclusive", "1 further run would decide"),
        (SLOW, SLOW, "regressed", "+10.0% (limit 2.2%, fresh processes +10.0%)"),
        ((0.9, 0.9, 0.9), (0.9, 0.9, 0.9), "improved", "-10.0%"),
        # A busy minute is no regression.
        ((1.3, 1.3, 1.3), (1.0, 1.0, 1.0), "inconclusive", "not clear"),
        # One odd process of three is none either.
        ((1.0, 1.0, 1.5), (), "unchanged", "+0.0%"),
    ],
)
def test_the_time_over_the_reference(ratios, confirming, status, cause):
    now = measurement(*ratios, confirming=processes(*confirming))
    verdict = judge(measurement(*[1.0] * 30), now)
    assert verdict.status == status
    assert cause in verdict.cause
    assert "\n" not in verdict.cause


def test_the_limit_follows_the_noise():
    quiet, noisy = (
        judge(measurement(calibration=calibration(sd)), measurement()).times[0]
        for sd in (0.002, 0.02)
    )
    assert quiet.limit == pytest.approx(LIMITS.ratio)
    assert noisy.limit == pytest.approx(0.0978, abs=1e-4)


def test_more_comparisons_and_a_lower_target_widen_the_limit():
    one = judge(measurement(), measurement()).times[0].limit
    assert judge(measurement(), measurement(), false_alarm=0.001).times[0].limit > one
    names = [f"b{number}" for number in range(50)]
    baseline = run_of(*(measurement(name=name) for name in names))
    now = run_of(*(measurement(name=name) for name in names))
    verdicts = Judge(baseline, None, lambda m: LIMITS).judge_run(now)
    # Fifty calibrations say together more of the common noise than one alone.
    assert len(verdicts) == 50
    assert all(v.status == "unchanged" for v in verdicts)


def test_what_could_not_be_seen_is_not_unchanged():
    noisy = measurement(calibration=calibration(sd=0.04))
    verdict = judge(noisy, measurement())
    assert verdict.status == "inconclusive"
    assert "too noisy, only beyond" in verdict.cause
    wide = Limits(visible=0.9)
    assert judge(noisy, measurement(), limits=wide).status == "unchanged"


def test_further_runs_are_those_that_make_the_change_visible():
    noisy = measurement(*[1.0] * 300, calibration=calibration(sd=0.03))
    verdict = judge(noisy, measurement())
    assert verdict.status == "inconclusive"
    more = verdict.further_runs
    assert f"{more} further runs would decide" in verdict.cause
    enough = measurement(*[1.0] * 3 * (1 + more))
    one_less = measurement(*[1.0] * 3 * more)
    assert judge(noisy, enough).status == "unchanged"
    assert judge(noisy, one_less).status == "inconclusive"


def test_noise_that_no_number_of_runs_overcomes_says_so():
    verdict = judge(measurement(calibration=calibration(sd=0.5)), measurement())
    assert verdict.further_runs is None
    assert "measure on a quieter machine" in verdict.cause


def test_without_a_calibration_the_noise_is_assumed_and_said_to_be():
    verdict = judge(measurement(calibration=None), measurement())
    assert "not calibrated" in verdict.cause
    doubled = measurement(2.0, 2.0, 2.0, confirming=processes(2.0, 2.0, 2.0))
    assert judge(measurement(calibration=None), doubled).status == "regressed"


def test_a_faster_mlp_makes_nothing_else_slower():
    before = measurement(processes=processes(1.0, 1.0, 1.0, ratio_to_mlp=1.0))
    now = processes(1.0, 1.0, 1.0, ratio_to_mlp=2.0)
    assert judge(before, measurement(processes=now, confirming=now)).status == "unchanged"


def test_a_slowdown_that_the_reference_shares_is_seen_by_time_itself():
    slow = processes(1.0, 1.0, 1.0, median_ns=3e6)
    verdict = judge(measurement(), measurement(processes=slow, confirming=slow))
    assert verdict.status == "regressed"
    assert verdict.cause.startswith("time +200.0%")
    # One fast process tells that it is the machine.
    mixed = [process(median_ns=1e6), *slow[1:]]
    assert (
        judge(measurement(), measurement(processes=mixed, confirming=mixed)).status != "regressed"
    )


def test_many_small_losses_are_seen_since_the_oldest_baseline():
    lost = processes(1.07, 1.07, 1.07)
    last = measurement(*[1.055] * 30)
    now = measurement(processes=lost, confirming=lost)
    assert judge(last, now).status == "unchanged"
    verdict = judge(last, now, anchor=measurement(*[1.0] * 30))
    assert verdict.status == "regressed"
    assert "+7.0%" in verdict.cause
    assert "since the oldest baseline" in verdict.cause
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
    # It repeats exactly, so there is nothing to confirm.
    assert verdict.further_runs is None


def test_a_gpus_library_workspace_is_no_regression():
    limits = Limits(memory_bytes=2**20)
    grown = measurement(memory={"forward_peak_bytes": 4096 + 2**19})
    assert judge(measurement(), grown, limits).status == "unchanged"
    grown = measurement(memory={"forward_peak_bytes": 4096 + 2**21})
    assert judge(measurement(), grown, limits).status == "regressed"


def test_a_loss_outweighs_a_gain():
    fast = processes(0.5, 0.5, 0.5)
    now = measurement(processes=fast, confirming=fast, memory={"forward_peak_bytes": 5000})
    verdict = judge(measurement(), now)
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
    assert verdict.status == "inconclusive"
    assert "18 of 30 rounds lost" in verdict.cause
    assert verdict.further_runs == 1
    more = measurement(processes=busy, memory={"forward_peak_bytes": 5000})
    assert judge(measurement(), more).status == "regressed"


def test_a_disturbed_process_does_not_count():
    one_busy = [process(), process(), process(5.0, rounds=1, disturbed=9)]
    assert judge(measurement(), measurement(processes=one_busy)).times[0].processes == 2


def test_without_a_reference_only_the_loose_limit_judges():
    def plain(median_ns):
        measured = [process(ratio=None, median_ns=median_ns)] * 3
        return measurement(
            processes=measured, confirming=measured, memory={}, measured={}, calibration=None
        )

    assert judge(plain(1e6), plain(2e6)).status == "unchanged"
    assert judge(plain(1e6), plain(9e6)).status == "regressed"
    assert judge(plain(1e6), plain(1e5)).status == "improved"


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


def test_without_a_baseline_everything_lacks_one():
    judge = Judge(None, None, lambda m: LIMITS)
    assert [v.status for v in judge.judge_run(run_of(measurement()))] == ["no_baseline"]
