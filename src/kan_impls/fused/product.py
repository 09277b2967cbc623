"""The product form: all functions of some inputs at some rows, then one library matrix product.

Nothing of the basis outlives its cell. How cells are cut is `kan_impls.fused.cells`' to say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kan_impls.basis.base import Scratch
from kan_impls.fused.cells import Cells, Pass, cells_of
from kan_impls.fused.compiled import CompiledBasis
from kan_impls.fused.term import Term, TermGrad
from kan_impls.fused.workspace import Workspace

# With fewer rows (measured) the gradients of the values take less time than a product of the
# weights with their gradient.
SPANNED_ROWS = 16


class _Memory:
    """What the cells of a term share."""

    def __init__(self) -> None:
        self.basis = Scratch()
        self.values = Scratch()
        self.grad_values = Scratch()
        self.weights = Scratch()  # staged ones
        self.total = Scratch()  # their gradient


def forward(
    x: Tensor, terms: Sequence[Term], bias: Tensor | None, workspace: Workspace | None = None
) -> Tensor:
    """`y[b,o] = bias[o] + sum over the terms`.

    Args:
        x: shape `(batch, in_features)`, any floating dtype.
        terms: one or more, of the same sizes and dtype.
        bias: shape `(out_features,)`, or None.
        workspace: what the pass takes; by default that of the device.

    Returns:
        Shape `(batch, out_features)`, in the dtype of the weights.
    """
    weight = terms[0].weight
    y = weight.new_empty(x.shape[0], weight.shape[2])
    cells, memory = cells_of(x, terms, Pass(y=True), workspace), _Memory()
    for rows in cells[0].rows():
        total = _accumulator(y[rows])
        if bias is not None:
            total.copy_(bias.expand_as(total))
        is_empty = bias is None
        for term, cut in zip(terms, cells, strict=True):
            if len(terms) > 1:  # what one leaves would be beside what the next takes
                memory = _Memory()
            _add_forward(total, is_empty, _Columns(x[rows], term, cut), term, memory)
            is_empty = False
        if total.dtype != y.dtype:
            y[rows] = total
    return y


def _add_forward(
    total: Tensor, is_empty: bool, columns: _Columns, term: Term, memory: _Memory
) -> None:
    """Add a term to `total`, shape `(rows, out_features)`, or begin it."""
    cut = columns.cut
    for inputs in cut.inputs():
        part, values = term.of_inputs(inputs), columns.values(inputs, memory)
        for piece in cut.pieces(values.shape[1]):
            own, prepared = part.of_inputs(piece), columns.prepared(inputs, piece)
            own.basis.evaluate(prepared, own.params, values[:, piece], memory.basis)
            del prepared  # before that of the next piece
        matrix = part.matrix(memory.weights if cut.is_staged else None)
        _add_product(total, values.flatten(0, 1).t(), matrix, beta=0 if is_empty else 1)
        is_empty = False


def backward(
    grad_y: Tensor,
    x: Tensor,
    terms: Sequence[Term],
    needs_grad_x: bool,
    needs_grads: Sequence[tuple[bool, bool, bool]],
    workspace: Workspace | None = None,
) -> tuple[Tensor | None, list[TermGrad]]:
    """The gradients of `forward` with respect to x and to the terms' tensors.

    The basis is evaluated again, from x.

    Args:
        grad_y: shape `(batch, out_features)`.
        x, terms: as in `forward`.
        needs_grad_x: whether the gradient of x is needed.
        needs_grads: for each term, whether those of its weight, of its scale and of the
            parameters of its basis are; those of the parameters are each input's own, or any
            parts of the sum where all inputs have the same.
        workspace: as in `forward`.
    """
    grad_x = _empty(x) if needs_grad_x else None
    if grad_x is not None and isinstance(terms[0].basis, CompiledBasis):
        grad_x.zero_()  # each cell adds to it
    # With the gradient of x those of the values are there.
    fewest = max(SPANNED_ROWS, terms[0].weight.shape[0])
    are_spanned = not needs_grad_x and x.shape[0] >= fewest
    grads = [
        _grads_of(term, *needs, are_spanned) for term, needs in zip(terms, needs_grads, strict=True)
    ]
    wanted = Pass(
        grad_values=needs_grad_x or any(grad.params and not grad.are_spanned for grad in grads),
        grad_weights=any(weight or scale for weight, scale, _ in needs_grads),
        copies_rows=not grad_y.is_contiguous(),
    )
    found = cells_of(x, terms, wanted, workspace)
    for term, grad, cut in zip(terms, grads, found, strict=True):
        if needs_grad_x or grad.is_needed:
            _backward_of_term(grad_y, x, term, cut, grad, grad_x, term is terms[0])
    return grad_x, grads


def _backward_of_term(
    grad_y: Tensor,
    x: Tensor,
    term: Term,
    cut: Cells,
    grad: TermGrad,
    grad_x: Tensor | None,
    is_first: bool,
) -> None:
    """Write the gradients of a term, and that of x, or add to it unless it is the first one's."""
    memory, columns = _Memory(), [_Columns(x[rows], term, cut) for rows in cut.rows()]
    for inputs in cut.inputs():
        part = _Part(term, grad, inputs, cut, memory, is_first)
        for rows, own in zip(cut.rows(), columns, strict=True):
            to = None if grad_x is None else grad_x[rows, inputs].t()
            part.add_rows(own, grad_y[rows].contiguous(), to, rows.start == 0)
        part.finish(is_empty=x.shape[0] == 0)


def _grads_of(term: Term, weight: bool, scale: bool, params: bool, are_spanned: bool) -> TermGrad:
    """Memory for the gradients that are needed.

    Args:
        are_spanned: where that can be.
    """
    # Of 16 bits, or with a scale, the product with the weights would take a copy of them.
    is_plain = term.scale is None and term.weight.dtype.itemsize >= 4
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
        are_spanned=(
            are_spanned and params and weight and is_plain and term.basis.spans_param_grads
        ),
    )


def _empty(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


class _Columns:
    """Some rows of x in columns, and what a basis prepares of them: of all inputs at once, or
    each time that they are asked for.

    In columns the values of a function are one matrix, and those of all functions one operand of
    a product. A compiled basis takes x where it is.
    """

    def __init__(self, x: Tensor, term: Term, cut: Cells) -> None:
        self.x, self.basis, self.cut = x, term.basis, cut
        self._all = self._prepare(x) if cut.prepares_all else None

    def _prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.basis, CompiledBasis):
            return (x.t(),)
        return self.basis.prepare(x.t().contiguous().to(self.cut.dtype))

    def prepared(self, inputs: slice, piece: slice) -> Sequence[Tensor]:
        """Those of a piece of some inputs, each of shape `(inputs, rows)`."""
        own = slice(inputs.start + piece.start, inputs.start + piece.stop)
        if self._all is not None:
            return [part[own] for part in self._all]
        return self._prepare(self.x[:, own])

    def values(self, inputs: slice, memory: _Memory) -> Tensor:
        """Memory for those of some inputs, shape `(functions, inputs, rows)`."""
        rows = self.x.shape[0]
        shape = (self.cut.num_functions, inputs.stop - inputs.start, self.cut.pitch(rows))
        return memory.values.empty(self.x, shape, self.cut.dtype)[..., :rows]


class _Part:
    """The backward pass of a term, for some of the inputs."""

    def __init__(
        self,
        term: Term,
        grad: TermGrad,
        inputs: slice,
        cut: Cells,
        memory: _Memory,
        is_first_term: bool,
    ) -> None:
        self.inputs, self.cut, self.memory = inputs, cut, memory
        self.is_first_term = is_first_term
        self.term, self.grad = term.of_inputs(inputs), grad.of_inputs(inputs)
        self._matrix: Tensor | None = None
        self.total = self.grad.weight
        if cut.is_staged and (grad.weight is not None or grad.scale is not None):
            weight = self.term.weight
            wide = torch.promote_types(weight.dtype, torch.float32)
            self.total = memory.total.empty(weight, weight.shape, wide)

    @property
    def matrix(self) -> Tensor:
        """The weights, staged at their first use."""
        if self._matrix is None:
            memory = self.memory.weights if self.cut.is_staged else None
            self._matrix = self.term.matrix(memory)
        return self._matrix

    def add_rows(
        self, columns: _Columns, grad_y: Tensor, to: Tensor | None, is_first: bool
    ) -> None:
        """Add what some rows contribute to the gradients: that of x is `to`, shape
        `(inputs, rows)`, which the first term overwrites, and that of the weights is overwritten
        by the first rows."""
        values = columns.values(self.inputs, self.memory)
        grad_x = self._sum_of_x(values, grad_y, to)
        grad_values, params = None, () if self.grad.are_spanned else self.grad.params
        if to is not None or params:
            grad_values = self._grad_values(grad_y, values)
        for piece in self.cut.pieces(values.shape[1]):
            prepared = slopes = None  # before those of the next piece
            own, at = self.term.of_inputs(piece), values[:, piece]
            prepared = columns.prepared(self.inputs, piece)
            own_x = None if grad_x is None else grad_x[piece]
            grads = [grad[piece] for grad in params]
            grad_phi = None if grad_values is None else grad_values[:, piece]
            if grad_phi is not None and isinstance(own.basis, CompiledBasis):
                own.basis.evaluate_and_add(prepared, own.params, at, grad_phi, own_x, grads)
                continue
            slopes = own.basis.evaluate(
                prepared, own.params, at, self.memory.basis, with_slopes=own_x is not None
            )
            if grad_phi is None:
                continue
            if grads:
                own.basis.add_param_grads(grads, prepared, own.params, at, grad_phi)
            if own_x is not None:
                own.basis.add_input_grad(own_x, at, slopes, grad_phi)
        if to is not None and grad_x is not None and grad_x is not to:
            if self._is_factored(grad_y):
                grad_x.mul_(grad_y.t())
            if self.is_first_term:
                to.copy_(grad_x)
            else:
                to += grad_x
        if self.total is not None:
            # With beta 0 the memory need not be cleared first; `view` makes no copy, which would
            # be lost.
            target, left = self.total.view(-1, self.total.shape[2]), values.flatten(0, 1)
            _add_product(target, left, grad_y, beta=0 if is_first else 1)

    def _sum_of_x(self, values: Tensor, grad_y: Tensor, to: Tensor | None) -> Tensor | None:
        """What is added to the gradient of x: that itself where the basis can add to it."""
        is_apart = not isinstance(self.term.basis, CompiledBasis) or self._is_factored(grad_y)
        return torch.zeros_like(values[0]) if to is not None and is_apart else to

    def _grad_values(self, grad_y: Tensor, values: Tensor) -> Tensor:
        """The gradients with respect to the values, shape `(functions, inputs, rows)`; with one
        output `(functions, inputs, 1)`, without the cotangent, which is one factor per row. They
        are in the memory of the values where these can take their place."""
        if self._is_factored(grad_y):
            return self.matrix.view(*values.shape[:2], 1)
        grad = values
        if not isinstance(self.term.basis, CompiledBasis):
            grad = self.memory.grad_values.empty(grad_y, values.shape)
        torch.mm(self.matrix, grad_y.t(), out=grad.flatten(0, 1))
        return grad

    def _is_factored(self, grad_y: Tensor) -> bool:
        return grad_y.shape[1] == 1 and not self.grad.params

    def finish(self, is_empty: bool) -> None:
        """Turn the sum over all rows into the gradients."""
        if self.total is None:
            return
        if is_empty:
            self.total.zero_()
        if self.grad.are_spanned:
            self._add_param_grads(self.total)
        if self.cut.is_staged:
            self.term.write_grads(self.total, self.grad)

    def _add_param_grads(self, total: Tensor) -> None:
        functions, inputs, _ = total.shape
        # The products take the memory of the values, which are not needed any more.
        at_once = max(1, inputs * self.cut.rows_at_once // functions)
        for first in range(0, inputs, at_once):
            own = slice(first, min(first + at_once, inputs))
            part, grads = self.term.of_inputs(own), self.grad.of_inputs(own)
            shape = (own.stop - own.start, functions, functions)
            products = self.memory.values.empty(total, shape)
            part.multiply_functions(total[:, own], products)
            if all(param.shape[0] == 1 for param in part.params):
                products = products.sum(0, keepdim=True)
            found = part.basis.param_grads_of_weights(products, part.params)
            for to, grad in zip(grads.params, found, strict=True):
                to[: len(grad)] += grad


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
