"""How a product is cut: cells that cover all rows and inputs, within their workspace."""

import pytest
import torch

from kan_impls.basis.silu import SiluBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import cells
from kan_impls.fused.compiled import CompiledBasis
from kan_impls.fused.term import Term


def as_compiled(basis, vector):
    """What cells know of a basis that is compiled for a CPU of such vectors."""
    made = CompiledBasis.__new__(CompiledBasis)
    made.definition, made.vector = basis, vector
    return made


@pytest.mark.parametrize(
    "wanted",
    [cells.Pass(y=True), cells.Pass(grad_weights=True), cells.Pass(False, True, True)],
    ids=str,
)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("vector", [0, 8, 16])
@pytest.mark.parametrize("batch", [0, 1, 65, 100, 300, 513, 4000])
def test_cells_fit_and_cover(batch, vector, scaled, wanted):
    spline, silu = UniformBSplineBasis.over(-1, 1, 5, 3), SiluBasis()
    if vector:
        spline, silu = as_compiled(spline, vector), as_compiled(silu, vector)
    scale = torch.empty(1000, 1000, device="meta") if scaled else None
    terms = [
        Term(spline, torch.empty(8, 1000, 1000, device="meta"), scale),
        Term(silu, torch.empty(1, 1000, 1000, device="meta")),
    ]
    found = cells.cells_of(torch.empty(batch, 1000, device="meta"), terms, wanted)
    for term, own in zip(terms, found, strict=True):
        for size, slices in ((batch, own.rows()), (1000, own.inputs())):
            assert [i for s in slices for i in range(size)[s]] == list(range(size))
        assert own.is_staged >= term.is_staged
        count = len(term.weight)
        pitch = own.pitch(own.rows_at_once)
        assert not vector or pitch % vector == 0 or pitch == own.rows_at_once < 8 * vector
        held = count if vector else (1 + wanted.grad_values) * count
        values = held * pitch * own.inputs_at_once
        stage = own.is_staged * wanted.products * count * own.inputs_at_once * 1000
        assert 4 * (values + stage) <= cells.WORKSPACE_BYTES
        # Weights are not read anew for every few rows: twice takes as long as a copy of them.
        reads = len([*own.rows()])
        assert own.rows_at_once >= 400 or reads <= (2 if vector or batch > 400 else 1)
    assert not found[1].is_staged  # one function's weights are a matrix, whatever the inputs
