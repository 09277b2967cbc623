"""Each kind of not being green has a status of its own."""

import pytest

from perfgate.judge.exit_codes import FAILING, GateExit, gate_exit


@pytest.mark.parametrize(
    ("statuses", "more", "code"),
    [
        (["unchanged", "improved", "inconclusive", "no_baseline"], (), GateExit.PASSED),
        (["unchanged", "regressed"], (), GateExit.REGRESSED),
        (["missing", "unchanged"], (), GateExit.MISSING),
        (["incomparable"], (), GateExit.INCOMPARABLE),
        (["unjudged", "unchanged"], (), GateExit.UNJUDGED),
        (["no_baseline"], ("no_baseline",), GateExit.NO_BASELINE),
        (["improved"], ("improved",), GateExit.IMPROVED),
        (["inconclusive"], ("inconclusive",), GateExit.INCONCLUSIVE),
        ([], (), GateExit.NOTHING_MEASURED),
        # The worst counts.
        (["improved", "missing", "regressed"], ("improved",), GateExit.REGRESSED),
        (["inconclusive", "missing"], ("inconclusive",), GateExit.MISSING),
    ],
)
def test_the_exit_status(statuses, more, code):
    assert gate_exit(statuses, FAILING | set(more)) == code


def test_statuses_are_distinct_and_none_is_pytests_own():
    codes = [int(code) for code in GateExit]
    assert len(set(codes)) == len(codes)
    assert set(codes) & set(range(1, 6)) == set()
