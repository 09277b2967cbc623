"""How a product is cut: cells of rows and inputs, by the bytes that they take and that they move.

A cell holds all functions of its inputs at its rows, and is one product. There are two ways to cut.
A cell of all inputs takes the weights where they are: with few rows in each, the library reads
and packs all weights many times. Cells of some inputs take copies of their weights, which are
scaled at once, have more rows, and read and write the outputs of these rows once for each cell.
With F functions of n inputs, m outputs and cells of R rows and I inputs, some rows move `2 F n m`
elements in the first way, and in the second `4 F n m + 2 R m n / I`, which is least for each row at
`R = sqrt(2 F C)`, where the workspace holds C elements of x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from kan_impls.fused import workspace as devices
from kan_impls.fused.compiled import CompiledBasis
from kan_impls.fused.term import Term
from kan_impls.fused.workspace import Workspace

# What a pass holds at most besides its operands and results: the products run at full speed.
# A single row of a single input may need more, in the second way 8 bytes for each of its weights.
WORKSPACE_BYTES = 15 * 2**20

# Bytes of x of which all is prepared at once, if that is all of its rows.
PREPARED_BYTES = 2**19

# The product that makes the gradients of the values takes up to a quarter less time where those of
# an input begin at a whole vector (measured with 8 floats). With fewer vectors than this what stays
# empty of one would be much of all.
LEAST_VECTORS = 8

# For each product of a cell the lower bound, at which a forward pass of 100 rows takes no more than
# an MLP's. Beyond it a pass takes half of the values of its functions, which autograd would save.
LEAST_BYTES = 7 * 2**20


@dataclass(frozen=True)
class Cells:
    """The cells of a term in a pass.

    Args:
        batch, in_features: what is cut.
        num_functions: of the term, for each input.
        dtype: in which the basis is evaluated.
        rows_at_once, inputs_at_once: of a cell.
        inputs_in_piece: whose functions are evaluated at once.
        is_staged: products take a copy of the weights.
        prepares_all: the basis prepares all inputs of some rows at once: fewer operators.
        vector: elements of a vector, at which the values of an input begin unless the rows are few;
            0 where they lie side by side.
    """

    batch: int
    in_features: int
    num_functions: int
    dtype: torch.dtype
    rows_at_once: int
    inputs_at_once: int
    inputs_in_piece: int
    is_staged: bool
    prepares_all: bool
    vector: int

    def pitch(self, rows: int) -> int:
        """Elements from input to input of the values at so many rows."""
        return _pitch(rows, self.vector)

    def rows(self) -> Iterator[slice]:
        """Slices of rows, nearly equal in size."""
        return _slices(self.batch, self.rows_at_once)

    def inputs(self) -> Iterator[slice]:
        """Slices of inputs."""
        return _slices(self.in_features, self.inputs_at_once)

    def pieces(self, inputs: int) -> Iterator[slice]:
        """Slices of the inputs of a cell."""
        return _slices(inputs, _even(inputs, self.inputs_in_piece))


@dataclass(frozen=True)
class Pass:
    """What a pass computes by products.

    Args:
        y: a forward pass; the others are those of a backward pass.
        grad_values: the gradients of the values, for those of x and of the basis's parameters.
        grad_weights: the gradients of the weights, or of their scales.
        copies_rows: of grad_y, which is not contiguous.
    """

    y: bool = False
    grad_values: bool = False
    grad_weights: bool = False
    copies_rows: bool = False

    @property
    def products(self) -> int:
        """Of each cell."""
        return self.y + self.grad_values + self.grad_weights


SMALLEST = Workspace(WORKSPACE_BYTES, LEAST_BYTES, PREPARED_BYTES)


def workspace_of(device: torch.device) -> Workspace:
    """What a pass takes on a device, unless another workspace is given."""
    if device.type == "cuda":
        return devices.of_gpu(torch.cuda.current_device() if device.index is None else device.index)
    return Workspace(WORKSPACE_BYTES, LEAST_BYTES, PREPARED_BYTES)


def cells_of(
    x: Tensor, terms: Sequence[Term], wanted: Pass, workspace: Workspace | None = None
) -> list[Cells]:
    """The cells of each term, with the same rows in a forward pass.

    Args:
        x: shape `(batch, in_features)`.
        terms: of the same sizes and dtype.
        wanted: what is computed.
        workspace: by default that of the device.
    """
    total = sum(term.weight.shape[0] for term in terms)
    within = workspace or workspace_of(x.device)
    found = [_cells_of_term(x, term, wanted, total, within) for term in terms]
    if not wanted.y:
        return found
    rows = min(cells.rows_at_once for cells in found)
    return [replace(cells, rows_at_once=rows) for cells in found]


def _cells_of_term(x: Tensor, term: Term, wanted: Pass, total: int, workspace: Workspace) -> Cells:
    count, _, out_features = term.weight.shape
    held = term.basis.elements_held(wanted.grad_values)
    vector = term.basis.vector if isinstance(term.basis, CompiledBasis) else 0
    dtypes = x.dtype, term.weight.dtype
    return _cells(
        *x.shape,
        out_features,
        count,
        total,
        held,
        dtypes,
        term.is_staged,
        vector,
        wanted,
        workspace,
    )


@lru_cache(maxsize=1024)
def _cells(
    batch: int,
    in_features: int,
    out_features: int,
    count: int,
    total: int,
    held: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    must_stage: bool,
    vector: int,
    wanted: Pass,
    within: Workspace,
) -> Cells:
    """See `cells_of`.

    Args:
        count, total: functions of the term, and of all terms.
        held: `Basis.elements_held`.
        dtypes: of x and of the weights.
        must_stage: whether the weights must be staged.
        vector: of the CPU, if the basis is compiled for it, which takes x where it is, and whose
            values take the place of their gradients; else 0.
        within: bounds.
    """
    dtype = torch.promote_types(torch.promote_types(*dtypes), torch.float32)
    itemsize = dtype.itemsize
    # Per row and input: the values, and in 16 bits a copy of them; x, and as it was; the gradients
    # of the values and of x. A compiled basis takes values, and with one output a gradient of x.
    copies = 2 if dtypes[1].itemsize < 4 else 1
    held_apart = 0 if vector else (copies - 1 + wanted.grad_values) * count + 2
    per_element = itemsize * (count + held_apart + wanted.grad_values)
    # Per row and input of a piece: what the basis holds besides.
    per_point = itemsize * held
    # Per row: a copy of grad_y, and in 16 bits a sum and a product; a piece of one input.
    rows_copied = wanted.copies_rows if vector else 2 * copies - 1
    per_row = itemsize * rows_copied * out_features + per_point
    # A matrix of some inputs is one in memory only if there is one function.
    must_copy = must_stage or count > 1
    # Per input of staged weights: these, and the sum of their gradient; in 16 bits what is added.
    per_input = itemsize * wanted.products * count * out_features * must_copy
    per_input += 2 * (copies - 1) * count * out_features * wanted.grad_weights
    whole = itemsize * batch * in_features
    workspace = min(within.most, max(within.least * wanted.products, whole * total // 2))
    pitched = _pitch(batch, vector)
    # While they are prepared, eight tensors are there; three of them remain.
    prepares_all = not vector and whole <= min(within.prepared, workspace // 8)
    workspace -= 3 * whole * prepares_all
    # What is evaluated at once, and held meanwhile, if not all of a cell: much of it stays in
    # second-level caches until the last of the operators that make it.
    in_piece = max(1, workspace // (3 * itemsize * (count + held)))

    def whole_rows(most: int) -> int:
        return most - most % vector if _has_pitch(most, vector) else max(1, most)

    def even_rows(most: int) -> int:
        return min(_pitch(_even(pitched, most), vector), most)

    def cut(per_element: int, room: int) -> tuple[int, int, int, bool]:
        """How many cells, their rows and inputs, and whether their weights are staged."""

        def rows_of(inputs: int, stage: int) -> int:
            fitting = (room - stage * inputs) // (per_element * inputs + per_row)
            return whole_rows(min(pitched, fitting))

        all_rows = rows_of(in_features, 0)
        all_moved = _number(batch, all_rows) * 2 * count * in_features
        elements = max(0, room) // (2 * per_element)
        rows = even_rows(whole_rows(min(pitched, math.isqrt(2 * count * elements))))
        fitting = (room - per_row * rows) // (per_element * rows + per_input)
        inputs = _even(in_features, min(in_features, fitting))
        rows = rows_of(inputs, per_input)
        cells = _number(batch, rows) * _number(in_features, inputs)
        moved = _number(batch, rows) * (4 if must_copy else 2) * count * in_features
        moved += 2 * batch * _number(in_features, inputs)
        if must_stage or moved < all_moved:
            return cells, rows, inputs, must_copy
        return _number(batch, all_rows), all_rows, in_features, False

    in_one = cut(per_element + per_point, workspace)
    pieces = cut(per_element, workspace - per_point * in_piece)
    if in_one <= pieces or not within.in_pieces:
        pieces = in_one
        in_piece = batch * in_features
    _, rows, inputs, is_staged = min(in_one, pieces)
    rows, inputs = max(1, min(batch, even_rows(rows))), _even(in_features, inputs)
    return Cells(
        batch,
        in_features,
        count,
        dtype,
        rows,
        inputs,
        max(1, in_piece // rows),
        is_staged,
        prepares_all,
        vector,
    )


def _has_pitch(rows: int, vector: int) -> bool:
    return 0 < LEAST_VECTORS * vector <= rows


def _pitch(rows: int, vector: int) -> int:
    return _number(rows, vector) * vector if _has_pitch(rows, vector) else rows


def _number(size: int, most: int) -> int:
    """How many parts of at most that size."""
    return -(-size // most)


def _even(size: int, most: int) -> int:
    """The size of as many parts, nearly equal."""
    return max(1, _number(size, max(1, _number(size, max(1, most)))))


def _slices(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
