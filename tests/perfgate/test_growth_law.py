"""Growth laws: wrong exponents are red in either direction."""

import pytest

from perfgate.judge.growth_law import Exponents, Law, Sizes, deviations


def cubic(sizes):
    """Bytes of a made-up layer with a constant part."""
    peak = 1000 + sizes.batch * sizes.inputs * sizes.outputs * sizes.grid
    return {"forward bytes": peak, "backward bytes": 2 * peak, "saved bytes": 0}


AT, POWERS = Sizes(1000, 100, 100, 10), Exponents(1, 2, 1)


def law(at=AT, forward=POWERS, saved=None):
    return Law(at, {"forward bytes": forward, "backward bytes": POWERS, "saved bytes": saved})


CUBIC = law()


def test_a_law_that_holds():
    assert deviations("made_up", CUBIC, cubic) == []


def test_a_law_with_a_wrong_exponent_is_red():
    (sentence,) = deviations("made_up", law(forward=Exponents(1, 1, 1)), cubic)
    assert sentence.startswith("made_up: forward bytes grow as width^2.00 (100,001,000 B at batch")
    assert "expected width^1 within 0.1" in sentence


@pytest.mark.parametrize("power", [-0.2, 0.2])
def test_growth_that_is_a_fifth_of_a_power_off_is_red_either_way(power):
    def measure(sizes):
        return cubic(sizes) | {
            "backward bytes": cubic(sizes)["backward bytes"] * sizes.batch**power
        }

    assert len(deviations("made_up", CUBIC, measure)) == 1


def test_keeping_something_where_the_law_says_nothing_is_red():
    found = deviations("made_up", CUBIC, lambda sizes: cubic(sizes) | {"saved bytes": sizes.batch})
    assert len(found) == 3  # on each axis
    assert "saved bytes are not 0 (1,000 B at batch 1000, 100->100, grid 10," in found[0]


def test_keeping_nothing_where_the_law_says_something_is_red():
    assert len(deviations("made_up", law(saved=Exponents(1, 1, 1)), cubic)) == 3


def test_without_a_grid_only_two_sizes_grow():
    without = law(Sizes(1000, 100, 100))
    assert deviations("made_up", without, lambda sizes: cubic(sizes._replace(grid=1))) == []


def test_flops_are_no_bytes():
    at = Sizes(1000, 100, 100)
    linear = Law(at, {"forward FLOPs": Exponents(1, 1)})
    (sentence,) = deviations("made_up", linear, lambda sizes: {"forward FLOPs": sizes.batch})
    assert sentence.startswith("made_up: forward FLOPs grow as width^0.00 (1,000 FLOP at batch")
