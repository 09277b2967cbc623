"""Each kind of not being green has a status of its own."""

from types import SimpleNamespace

import pytest

from perfgate.judge.exit_codes import FAILING, GateExit, failing_by, gate_exit


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


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("require_baseline", {"no_baseline"}),
        ("fail_on_improved", {"improved"}),
        ("fail_on_inconclusive", {"inconclusive"}),
        ("allow_unjudged", {"unjudged"}),
    ],
)
def test_options_say_what_else_fails_and_what_does_not(option, change):
    assert failing_by(SimpleNamespace(**{option: True})) == FAILING ^ change
    assert failing_by(SimpleNamespace(**{option: False})) == FAILING == failing_by(object())


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["unchanged"], GateExit.STOPPED),
        (["missing", "unjudged"], GateExit.STOPPED),
        ([], GateExit.STOPPED),
        (["regressed", "unjudged"], GateExit.REGRESSED),
    ],
)
def test_only_a_loss_outweighs_a_process_that_stopped(statuses, code):
    assert gate_exit(statuses, stopped=True) == code


def test_statuses_are_distinct_and_none_is_pytests_own():
    codes = [int(code) for code in GateExit]
    assert len(set(codes)) == len(codes)
    assert set(codes) & set(range(1, 6)) == set()
