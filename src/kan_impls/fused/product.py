"""The product form: some functions of some inputs, then one library matrix product.

Nothing of the basis outlives its block. Rows are taken in chunks, and inputs too where the
weights are scaled, so that the workspace stays within `WORKSPACE_BYTES` at any batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kan_impls.basis.base import Block, Scratch
from kan_impls.fused.term import Term, TermGrad

# Large enough for some 130 rows of 1000 inputs and 5 harmonics, where the products run at full
# speed; small enough to stay in a large cache. A single row of a single input, or of all inputs
# where the weights are not staged, may need more: 400 bytes per input and 24 per output.
WORKSPACE_BYTES = 15 * 2**20

# Of these, what scaled weights and the sum of their gradient take: each a block of inputs deep.
STAGE_BYTES = 4 * 2**20

# Elements of a basis beside staged weights, and of the gradient of any basis, that are made at
# once: half a megabyte stays in the second-level cache until it is used.
BLOCK_ELEMENTS = 2**17

# Rows that share a copy of staged weights at least: fewer, and copying would be felt.
STAGED_ROWS = 128


class _Memory:
    """What the cells of a pass share."""

    def __init__(self) -> None:
        self.basis = Scratch()
        self.weights = Scratch()  # scaled ones
        self.total = Scratch()  # their gradient
        self.grad_phi = Scratch()


def forward(x: Tensor, terms: Sequence[Term], bias: Tensor | None) -> Tensor:
    """`y[b,o] = bias[o] + sum over the terms`.

    Args:
        x: shape `(batch, in_features)`, any floating dtype.
        terms: one or more, of the same sizes and dtype.
        bias: shape `(out_features,)`, or None.

    Returns:
        Shape `(batch, out_features)`, in the dtype of the weights.
    """
    weight = terms[0].weight
    y = weight.new_empty(x.shape[0], weight.shape[2])
    layout, memory = _Layout(x, terms), _Memory()
    for rows in layout.rows():
        total = _accumulator(y[rows])
        if bias is None:
            total.zero_()
        else:
            total.copy_(bias.expand_as(total))
        columns = layout.columns(x[rows])
        for term in terms:
            prepared = term.basis.prepare(columns)
            for inputs in layout.inputs(term):
                own = [part[inputs] for part in prepared]
                _add_forward(total, own, term.of_inputs(inputs), memory)
        if total.dtype != y.dtype:
            y[rows] = total
    return y


def _add_forward(total: Tensor, prepared: Sequence[Tensor], term: Term, memory: _Memory) -> None:
    """Add a term to `total`, shape `(rows, out_features)`."""
    for block in term.blocks(prepared, memory.basis):
        matrix = term.matrix(block.functions, memory.weights)
        _add_product(total, block.values.flatten(0, 1).t(), matrix)


def backward(
    grad_y: Tensor,
    x: Tensor,
    terms: Sequence[Term],
    needs_grad_x: bool,
    needs_grads: Sequence[tuple[bool, bool, bool]],
) -> tuple[Tensor | None, list[TermGrad]]:
    """The gradients of `forward` with respect to x and to the terms' tensors.

    The basis is evaluated again, from x.

    Args:
        grad_y: shape `(batch, out_features)`.
        x, terms: as in `forward`.
        needs_grad_x: whether the gradient of x is needed.
        needs_grads: for each term, whether those of its weight, of its scale and of the
            parameters of its basis are; those of the parameters are each input's own.
    """
    grad_x = _empty(x) if needs_grad_x else None
    grads = [_grads_of(term, *needs) for term, needs in zip(terms, needs_grads, strict=True)]
    layout, memory = _Layout(x, terms), _Memory()
    for term, grad in zip(terms, grads, strict=True):
        cells = _Cells(x, term, layout)
        for inputs in layout.inputs(term):
            part = _Part(term, grad, inputs, memory)
            for rows in layout.rows():
                prepared = cells.prepared(rows, inputs)
                total_x = torch.zeros_like(prepared[0]) if needs_grad_x else None
                is_first = rows.start == 0
                part.add_rows(prepared, grad_y[rows].contiguous(), total_x, is_first)
                if grad_x is None or total_x is None:
                    continue
                if term is terms[0]:
                    grad_x[rows, inputs] = total_x.t()
                else:
                    grad_x[rows, inputs] += total_x.t()
            part.finish(is_empty=x.shape[0] == 0)
    return grad_x, grads


def _grads_of(term: Term, weight: bool, scale: bool, params: bool) -> TermGrad:
    """Memory for the gradients that are needed."""
    return TermGrad(
        _empty(term.weight) if weight else None,
        _empty(term.scale) if scale and term.scale is not None else None,
        [
            param.new_zeros(
                (term.weight.shape[1], param.shape[1]),
                dtype=torch.promote_types(param.dtype, torch.float32),
            )
            for param in term.params
            if params
        ],
    )


def _empty(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


class _Cells:
    """What a basis prepares of x, cell by cell; of all inputs at once where that is all rows."""

    def __init__(self, x: Tensor, term: Term, layout: _Layout) -> None:
        self.x, self.basis, self.layout = x, term.basis, layout
        self._whole: tuple[Tensor, ...] | None = None
        if layout.rows_at_once >= x.shape[0]:
            self._whole = self.basis.prepare(layout.columns(x))

    def prepared(self, rows: slice, inputs: slice) -> Sequence[Tensor]:
        """Each of shape `(inputs, rows)`."""
        if self._whole is not None:
            return [part[inputs] for part in self._whole]
        return self.basis.prepare(self.layout.columns(self.x[rows, inputs]))


class _Part:
    """The backward pass of a term, for some of the inputs."""

    def __init__(self, term: Term, grad: TermGrad, inputs: slice, memory: _Memory) -> None:
        self.memory = memory
        self.term = term.of_inputs(inputs)
        self.grad_weight = None if grad.weight is None else grad.weight[:, inputs]
        self.grad_scale = None if grad.scale is None else grad.scale[inputs]
        self.grad_params = [param[inputs] for param in grad.params]
        self.total = self.grad_weight
        if term.is_staged and (grad.weight is not None or grad.scale is not None):
            weight = self.term.weight
            wide = torch.promote_types(weight.dtype, torch.float32)
            self.total = memory.total.empty(weight, weight.shape, wide)

    def add_rows(
        self, prepared: Sequence[Tensor], grad_y: Tensor, grad_x: Tensor | None, is_first: bool
    ) -> None:
        """Add what some rows contribute to `grad_x`, shape `(inputs, rows)`, and to the
        gradient of the weights, which the first rows overwrite."""
        for block in self.term.blocks(prepared, self.memory.basis, grad_x is not None):
            if grad_x is not None or self.grad_params:
                self._add_basis_grads(grad_x, prepared, block, grad_y)
            if self.total is not None:
                # With beta 0 the memory need not be cleared first.
                target = self.total[block.functions]
                target = target.view(-1, target.shape[2])  # not a copy, which would be lost
                beta = 0 if is_first else 1
                _add_product(target, block.values.flatten(0, 1), grad_y, beta=beta)

    def _add_basis_grads(
        self, grad_x: Tensor | None, prepared: Sequence[Tensor], block: Block, grad_y: Tensor
    ) -> None:
        """Add what one block contributes to the gradients of x and of the basis's parameters."""
        basis = self.term.basis
        if grad_x is not None and grad_y.shape[1] == 1 and not self.grad_params:
            _add_input_grad_of_one_output(grad_x, block, grad_y, self.term, self.memory)
            return
        for slots, grad_phi in _grads_of_values(block, grad_y, self.term, self.memory):
            if self.grad_params:
                basis.add_param_grads(self.grad_params, prepared, block, slots, grad_phi)
            if grad_x is not None:
                basis.add_input_grad(grad_x, block, slots, grad_phi)

    def finish(self, is_empty: bool) -> None:
        """Turn the sum over all rows into the gradients."""
        if self.total is None:
            return
        if is_empty:
            self.total.zero_()
        if self.grad_weight is not None and self.total is not self.grad_weight:
            scale = 1 if self.term.scale is None else self.term.scale
            torch.mul(self.total, scale, out=self.grad_weight)
        if self.grad_scale is not None:
            own = self.total.mul_(self.term.weight)
            if own.dtype == self.grad_scale.dtype:
                torch.sum(own, 0, out=self.grad_scale)
            else:
                self.grad_scale.copy_(own.sum(0))


def _add_input_grad_of_one_output(
    grad_x: Tensor, block: Block, grad_y: Tensor, term: Term, memory: _Memory
) -> None:
    """The cotangent is then one factor per row: applied last, it is applied once."""
    slope = torch.zeros_like(grad_x)
    weight = term.matrix(block.functions, memory.weights).view(-1, grad_x.shape[0], 1)
    term.basis.add_input_grad(slope, block, slice(0, len(weight)), weight.to(grad_x.dtype))
    grad_x.addcmul_(slope, grad_y.t().to(grad_x.dtype))


def _grads_of_values(
    block: Block, grad_y: Tensor, term: Term, memory: _Memory
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the gradients with respect to the values of a block, some functions at a time."""
    count, *shape = block.values.shape
    step = min(count, max(1, BLOCK_ELEMENTS // max(1, math.prod(shape))))
    buffer = memory.grad_phi.empty(grad_y, (step, *shape))
    for start in range(0, count, step):
        grad_phi = buffer[: count - start]
        first = block.functions.start + start
        part = term.matrix(slice(first, first + grad_phi.shape[0]), memory.weights)
        torch.mm(part, grad_y.t(), out=grad_phi.flatten(0, 1))
        yield slice(start, start + grad_phi.shape[0]), grad_phi


class _Layout:
    """How a product is cut into cells of rows and inputs."""

    def __init__(self, x: Tensor, terms: Sequence[Term]) -> None:
        weight = terms[0].weight
        self.batch, self.in_features = x.shape
        self.dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
        itemsize, out_features = self.dtype.itemsize, weight.shape[2]
        stages, limit = 0, self.batch
        self._inputs_at_once = {}
        for term in terms:
            num_basis, at_once = term.basis.num_basis, self.in_features
            if term.is_staged:
                per_input = num_basis * out_features * itemsize
                in_stage = STAGE_BYTES // per_input
                in_cell = BLOCK_ELEMENTS // (num_basis * min(max(self.batch, 1), STAGED_ROWS))
                at_once = min(at_once, max(1, min(in_stage, in_cell)))
                limit = min(limit, max(STAGED_ROWS, BLOCK_ELEMENTS // (num_basis * at_once)))
                stages = max(stages, 2 * per_input * at_once)
            self._inputs_at_once[id(term)] = at_once
        # Per row and input: x as columns, twice while it changes its dtype, what is prepared of
        # it, and its gradient. In a cell: the basis, and in 16 bits a copy of it; the gradient
        # of a function. Per row and output: grad_y, and a sum and a product in 16 bits.
        copies = 1 if weight.dtype.itemsize >= 4 else 2
        cell = max(
            self._inputs_at_once[id(term)] * (copies * term.basis.elements_per_input + 1)
            for term in terms
        )
        per_row = itemsize * (8 * self.in_features + cell + (2 * copies - 1) * out_features)
        most = min(limit, (WORKSPACE_BYTES - stages - BLOCK_ELEMENTS * itemsize) // per_row)
        chunks = -(-self.batch // max(1, most))
        self.rows_at_once = max(1, -(-self.batch // max(1, chunks)))

    def rows(self) -> Iterator[slice]:
        """Slices of rows, nearly equal in size."""
        for start in range(0, self.batch, self.rows_at_once):
            yield slice(start, min(start + self.rows_at_once, self.batch))

    def inputs(self, term: Term) -> Iterator[slice]:
        """Slices of inputs, as many as the stages of a term hold."""
        at_once = self._inputs_at_once[id(term)]
        for start in range(0, self.in_features, at_once):
            yield slice(start, min(start + at_once, self.in_features))

    def columns(self, x: Tensor) -> Tensor:
        """A cell of x in columns, shape `(inputs, rows)`, in at least float32.

        In columns the values of a function are one contiguous matrix, and those of a block
        one contiguous operand of a product.
        """
        return x.t().contiguous().to(self.dtype)


def _accumulator(result: Tensor) -> Tensor:
    """Where a sum of several products is formed: `result` itself, or float32 for 16 bits."""
    if result.dtype.itemsize >= 4:
        return result
    return torch.empty_like(result, dtype=torch.float32)


def _add_product(total: Tensor, left: Tensor, right: Tensor, beta: float = 1) -> None:
    """`total = beta * total + left @ right`, the product taken in the dtype of `right`."""
    if left.dtype != right.dtype:
        left = left.to(right.dtype)
    if total.dtype == right.dtype:
        total.addmm_(left, right, beta=beta)
    elif beta:
        total.add_(left @ right)
    else:
        total.copy_(left @ right)
