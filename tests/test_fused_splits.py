"""The splits of the forward pass fill whole waves of blocks."""

import math

import pytest

from kan_impls.basis.fourier import FourierBasis
from kan_impls.fused import __main__ as command
from kan_impls.fused import kernels
from kan_impls.fused.kernels import Device, Element, Functions, Layer, Precision
from kan_impls.fused.splits import splits_of

SMS = (108, 114, 132, 144)


@pytest.mark.parametrize("sms", SMS)
def test_no_few_blocks_begin_a_wave(sms):
    functions, kind = Functions(FourierBasis(5)), (Element.FLOAT, Precision.ACCURATE)
    for rows in range(1, 513):
        waves = kernels.forward_waves(Layer(functions, rows, 1000, 1000, *kind, Device(90, sms)))
        # The least full is 6 splits of 32 blocks for 216 places.
        assert waves >= 0.88 * math.ceil(waves), f"{rows} rows"


def test_one_split_more_would_begin_a_wave():
    assert splits_of(250, blocks=16, places=264) == 16
    assert splits_of(250, blocks=16, places=256) == 16
    assert splits_of(250, blocks=16, places=255) == 15


def test_more_blocks_than_places_are_split_where_that_fills_the_last_wave():
    assert splits_of(250, blocks=96, places=132) == 4  # 2.9 waves, not 1 of which a quarter is idle
    assert splits_of(250, blocks=130, places=132) == 1
    assert splits_of(8, blocks=96, places=132) == 1  # too short to be worth it


def test_bounds_hold_and_no_split_is_empty():
    assert splits_of(250, 1000, 264, least=3) == 3
    assert splits_of(250, 16, 264, least=5, most=4) == 4
    assert splits_of(250, 16, 264, most=7) == 7
    for stages in range(1, 60):
        splits = splits_of(stages, 1, 50)
        assert (splits - 1) * math.ceil(stages / splits) < stages


def test_the_table_of_waves(capsys):
    assert command.main(["waves", "--sms", "132", "108", "--rows", "130"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| rows from | 132 SMs | 108 SMs |"
    assert lines[2:] == ["| 1 | 0.97 | 0.96 |", "| 113 | 0.97 | 0.89 |"]
