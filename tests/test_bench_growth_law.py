"""Growth laws: wrong exponents are red in either direction."""

import dataclasses

import pytest

from kan_impls.bench.growth_law import Exponents, Law, Sizes, deviations


def cubic(sizes):
    """Bytes of a made-up layer with a constant part."""
    peak = 1000 + sizes.batch * sizes.inputs * sizes.outputs * sizes.grid
    return {"forward": peak, "backward": 2 * peak, "saved": 0}


CUBIC = Law(Sizes(1000, 100, 100, 10), Exponents(1, 2, 1), Exponents(1, 2, 1), saved=None)


def test_a_law_that_holds():
    assert deviations("made_up", CUBIC, cubic) == []


def test_a_law_with_a_wrong_exponent_is_red():
    law = dataclasses.replace(CUBIC, forward=Exponents(1, 1, 1))
    (sentence,) = deviations("made_up", law, cubic)
    assert sentence.startswith("made_up: forward bytes grow as width^2.00 (100,001,000 B at batch")
    assert "expected width^1 within 0.1" in sentence


@pytest.mark.parametrize("power", [-0.2, 0.2])
def test_growth_that_is_a_fifth_of_a_power_off_is_red_either_way(power):
    def measure(sizes):
        return cubic(sizes) | {"backward": cubic(sizes)["backward"] * sizes.batch**power}

    assert len(deviations("made_up", CUBIC, measure)) == 1


def test_keeping_something_where_the_law_says_nothing_is_red():
    found = deviations("made_up", CUBIC, lambda sizes: cubic(sizes) | {"saved": sizes.batch})
    assert len(found) == 3  # on each axis
    assert "saved bytes are not 0 (1,000 B at batch 1000, 100->100, grid 10," in found[0]


def test_keeping_nothing_where_the_law_says_something_is_red():
    law = dataclasses.replace(CUBIC, saved=Exponents(1, 1, 1))
    assert len(deviations("made_up", law, cubic)) == 3


def test_without_a_grid_only_two_sizes_grow():
    law = Law(Sizes(1000, 100, 100), Exponents(1, 2), Exponents(1, 2), saved=None)
    assert deviations("made_up", law, lambda sizes: cubic(sizes._replace(grid=1))) == []
