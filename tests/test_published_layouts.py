"""Layouts in letters, and the tensors that they turn."""

import pytest
import torch

from kan_impls.published import Rearrangement, shape_of

SIZES = {"i": 3, "o": 2, "g": 4, "k": 8}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("o i k", "k i o", lambda t: t.permute(2, 1, 0)),
        ("2 o i g", "(g 2) i o", lambda t: t.permute(3, 0, 2, 1).flatten(0, 1)),
        ("(g 2) i o", "2 i o g", lambda t: t.unflatten(0, (4, 2)).permute(1, 2, 3, 0)),
        ("(i k) o", "k i o", lambda t: t.unflatten(0, (3, 8)).transpose(0, 1)),
        ("1 o", "o", lambda t: t.squeeze(0)),
        ("o", "1 o", lambda t: t.unsqueeze(0)),
        ("o 1 k i", "k i o", lambda t: t.squeeze(1).permute(1, 2, 0)),
    ],
)
def test_a_tensor_from_one_layout_to_another_and_back(source, target, expected):
    value = torch.arange(float(torch.tensor(shape_of(source, SIZES)).prod()))
    value = value.view(shape_of(source, SIZES))
    there = Rearrangement.between(source, target, SIZES)(value)
    assert torch.equal(there, expected(value))
    assert torch.equal(Rearrangement.between(target, source, SIZES)(there), value)


def test_layouts_that_merge_nothing_are_views():
    value = torch.zeros(shape_of("(g 2) i o", SIZES))
    Rearrangement.between("(g 2) i o", "2 o i g", SIZES)(value).fill_(1)
    assert value.all()
