"""The judgement, as a table."""

import pytest

from kan_impls.bench.record import Measurement, Run
from kan_impls.bench.verdict import CUDA_LIMITS, FAILING, Limits, judge, judge_run

NAME = "benchmarks/test_x.py::test_x[mlp]"
LIMITS = Limits(ratio=0.10, absolute=3.0, memory_bytes=0)


def measurement(name=NAME, **changes):
    fields = {
        "measured": {"case": "reference", "batch": 100},
        "median_ns": 1e6,
        "rounds": 20,
        "ratio": 1.0,
        "ratio_uncertainty": 0.01,
        "memory": {"forward_peak_bytes": 4096},
    }
    return Measurement(name=name, **{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "status", "cause"),
    [
        ({}, "unchanged", "+0.0%"),
        ({"ratio": 1.09}, "unchanged", "+9.0%"),
        ({"ratio": 1.20}, "regressed", "+20.0%"),
        ({"ratio": 0.70}, "improved", "-30.0%"),
        # Beyond the limit, but not by more than the uncertainty of both.
        ({"ratio": 1.11}, "inconclusive", "not clear"),
        ({"ratio": 1.20, "ratio_uncertainty": 0.15}, "inconclusive", "not clear"),
        ({"ratio": 0.89}, "inconclusive", "not clear"),
        ({"ratio": 2.0, "rounds": 3}, "inconclusive", "too few rounds"),
        # Within the limit, but the uncertainty alone is wider than it.
        ({"ratio_uncertainty": 0.2}, "inconclusive", "too noisy"),
        ({"ratio_uncertainty": float("inf")}, "inconclusive", "too noisy"),
        # The reference was slowed down as well, so that the ratio hides it.
        ({"median_ns": 4.1e6}, "regressed", "time +310%"),
        ({"median_ns": 3.9e6}, "unchanged", "+0.0%"),
        ({"memory": {"forward_peak_bytes": 4097}}, "regressed", "+1 B"),
        ({"memory": {"forward_peak_bytes": 8192}}, "regressed", "+4,096 B"),
        ({"memory": {"forward_peak_bytes": 4095}}, "improved", "-1 B"),
        ({"memory": {}}, "incomparable", "not measured"),
        # A loss outweighs a gain.
        ({"ratio": 0.5, "memory": {"forward_peak_bytes": 5000}}, "regressed", "+904 B"),
        ({"measured": {"case": "reference", "batch": 200}}, "incomparable", "batch was 100"),
        ({"ratio": None}, "incomparable", "reference"),
    ],
)
def test_one_figure_at_a_time(changes, status, cause):
    verdict = judge(NAME, measurement(), measurement(**changes), LIMITS)
    assert verdict.status == status
    assert cause in verdict.cause
    assert "\n" not in verdict.cause


@pytest.mark.parametrize(("uncertainty", "status"), [(0.005, "regressed"), (0.02, "unchanged")])
def test_the_steadier_companion_counts(uncertainty, status):
    of_mlp = {"ratio_to_mlp": 2.0, "ratio_to_mlp_uncertainty": 0.01}
    baseline = measurement(**of_mlp, ratio_uncertainty=uncertainty)
    current = measurement(**of_mlp, ratio_uncertainty=uncertainty, ratio=1.2)
    assert judge(NAME, baseline, current, LIMITS).status == status


def test_without_a_reference_only_the_loose_limit_judges():
    plain = {"ratio": None, "memory": {}, "measured": {}}
    baseline = measurement(**plain)
    assert judge(NAME, baseline, measurement(**plain, median_ns=2e6), LIMITS).status == "unchanged"
    assert judge(NAME, baseline, measurement(**plain, median_ns=5e6), LIMITS).status == "regressed"
    assert judge(NAME, baseline, measurement(**plain, median_ns=1e5), LIMITS).status == "improved"


def test_a_gpus_library_workspace_is_no_regression():
    grown = measurement(memory={"forward_peak_bytes": 4096 + 2**19})
    assert judge(NAME, measurement(), grown, CUDA_LIMITS).status == "unchanged"
    grown = measurement(memory={"forward_peak_bytes": 4096 + 2**21})
    assert judge(NAME, measurement(), grown, CUDA_LIMITS).status == "regressed"


def run_of(*measurements):
    return Run({"device_key": "k"}, "c", "d", {m.name: m for m in measurements})


def test_silence_is_a_verdict():
    baseline = run_of(measurement("a"), measurement("b"), measurement("c"), measurement("d"))
    current = run_of(measurement("a"), measurement("e"))
    verdicts = judge_run(
        baseline, current, LIMITS, absent={"b": "it was skipped (no memory)"}, not_selected=["d"]
    )
    by_name = {verdict.name: verdict for verdict in verdicts}
    assert by_name.keys() == {"a", "b", "c", "e"}
    assert by_name["a"].status == "unchanged"
    assert by_name["b"].status == by_name["c"].status == "missing"
    assert "no memory" in by_name["b"].cause
    assert by_name["e"].status == "no_baseline"
    assert "kan-bench accept" in by_name["e"].cause


def test_a_benchmark_that_ran_is_judged_even_if_deselected_elsewhere():
    verdicts = judge_run(run_of(measurement()), run_of(measurement()), LIMITS, not_selected=[NAME])
    assert [verdict.status for verdict in verdicts] == ["unchanged"]


def test_without_a_baseline_everything_lacks_one():
    assert [v.status for v in judge_run(None, run_of(measurement()), LIMITS)] == ["no_baseline"]


def test_what_fails_a_gate():
    assert {"regressed", "missing", "incomparable"} == FAILING
