"""The product form: all functions of some inputs at some rows, then one library matrix product.

Nothing of the basis outlives its cell. How cells are cut is `kan_impls.fused.cells`' to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kan_impls.basis.base import Scratch
from kan_impls.fused.cells import Cells, Pass, cells_of
from kan_impls.fused.term import Term, TermGrad


class _Memory:
    """What the cells of a pass share."""

    def __init__(self) -> None:
        self.basis = Scratch()
        self.values = Scratch()
        self.grad_values = Scratch()
        self.weights = Scratch()
        self.total = Scratch()  # the gradient of the weights


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
    cells, memory = cells_of(x, terms, Pass(y=True)), _Memory()
    for rows in cells.rows():
        total = _accumulator(y[rows])
        if bias is not None:
            total.copy_(bias.expand_as(total))
        is_empty = bias is None
        for inputs in cells.inputs():
            weights = _Weights(terms, inputs)
            if cells.is_staged:
                weights.copy(memory.weights)
            columns = cells.columns(x[rows, inputs])
            values = memory.values.empty(columns, (cells.num_functions, *columns.shape))
            for number, (slots, term) in enumerate(weights.terms()):
                for piece in cells.pieces(number, len(columns)):
                    term_of = term.of_inputs(piece)
                    term_of.basis.evaluate(
                        columns[piece], term_of.params, values[slots, piece], memory.basis
                    )
            for slots, matrix in weights.matrices():
                left = values[slots].flatten(0, 1).t()
                _add_product(total, left, matrix, beta=0 if is_empty else 1)
                is_empty = False
        if total.dtype != y.dtype:
            y[rows] = total
    return y


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
    wanted = Pass(
        grad_values=needs_grad_x or any(grad.params for grad in grads),
        grad_weights=any(weight or scale for weight, scale, _ in needs_grads),
    )
    if wanted == Pass():
        return grad_x, grads
    cells, memory = cells_of(x, terms, wanted), _Memory()
    for inputs in cells.inputs():
        part = _Part(terms, grads, inputs, wanted, cells, memory)
        for rows in cells.rows():
            columns = cells.columns(x[rows, inputs])
            total_x = None if grad_x is None else torch.zeros_like(columns)
            part.add_rows(columns, grad_y[rows].contiguous(), total_x, is_first=rows.start == 0)
            if grad_x is not None and total_x is not None:
                grad_x[rows, inputs] = total_x.t()
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


class _Weights:
    """The weights of some inputs, as operands of products over the functions of all terms.

    Staged weights are copied, with their scales, so that one product takes all terms. Others
    are taken where they are, those of all inputs by a product for each term.
    """

    def __init__(self, terms: Sequence[Term], inputs: slice) -> None:
        self._terms = [term.of_inputs(inputs) for term in terms]
        ends = [0]
        for term in terms:
            ends.append(ends[-1] + term.weight.shape[0])
        self.slots = [slice(*pair) for pair in pairwise(ends)]
        self._copy: Tensor | None = None

    def copy(self, memory: Scratch) -> None:
        """Stage them."""
        like = self._terms[0].weight
        self._copy = memory.empty(like, (self.slots[-1].stop, *like.shape[1:]))
        for slots, term in self.terms():
            term.write_weights(self._copy[slots])

    def terms(self) -> Iterator[tuple[slice, Term]]:
        """Each term with its places among the functions."""
        return zip(self.slots, self._terms, strict=True)

    def matrices(self) -> Iterator[tuple[slice, Tensor]]:
        """Matrices of shape `(functions * inputs, out_features)`, with their functions."""
        if self._copy is not None:
            yield slice(0, len(self._copy)), self._copy.flatten(0, 1)
        else:
            for slots, term in self.terms():
                yield slots, term.weight.flatten(0, 1)


class _Part:
    """The backward pass, for some of the inputs."""

    def __init__(
        self,
        terms: Sequence[Term],
        grads: Sequence[TermGrad],
        inputs: slice,
        wanted: Pass,
        cells: Cells,
        memory: _Memory,
    ) -> None:
        self.wanted, self.cells, self.memory = wanted, cells, memory
        self.grads = [grad.of_inputs(inputs) for grad in grads]
        self.has_params = any(grad.params for grad in grads)
        self.weights = _Weights(terms, inputs)
        if cells.is_staged and wanted.grad_values:
            self.weights.copy(memory.weights)
        self.totals = self._totals()

    def _totals(self) -> list[tuple[slice, Tensor]]:
        """Where the products for the gradients of the weights go, with their functions."""
        wanted = [
            (slots, grad)
            for (slots, _), grad in zip(self.weights.terms(), self.grads, strict=True)
            if grad.weight is not None or grad.scale is not None
        ]
        if not self.cells.is_staged:
            return [(slots, grad.weight) for slots, grad in wanted if grad.weight is not None]
        if not wanted:
            return []
        # One product for those that are needed: of all terms, or of one.
        every = slice(wanted[0][0].start, wanted[-1][0].stop)
        _, first = next(self.weights.terms())
        like = first.weight
        wide = torch.promote_types(like.dtype, torch.float32)
        shape = (every.stop - every.start, *like.shape[1:])
        return [(every, self.memory.total.empty(like, shape, wide))]

    def add_rows(
        self, columns: Tensor, grad_y: Tensor, grad_x: Tensor | None, is_first: bool
    ) -> None:
        """Add what some rows contribute to `grad_x`, shape `(inputs, rows)`, and to the
        gradient of the weights, which the first rows overwrite."""
        shape = (self.cells.num_functions, *columns.shape)
        values = self.memory.values.empty(columns, shape)
        grad_values = self._grad_values(grad_y, shape) if self.wanted.grad_values else None
        of_terms = zip(self.weights.terms(), self.grads, strict=True)
        for number, ((slots, term), grad) in enumerate(of_terms):
            for piece in self.cells.pieces(number, len(columns)):
                own = term.of_inputs(piece)
                at, x = values[slots, piece], columns[piece]
                slopes = own.basis.evaluate(
                    x, own.params, at, self.memory.basis, with_slopes=grad_x is not None
                )
                if grad_values is None:
                    continue
                if grad.params:
                    params = [param[piece] for param in grad.params]
                    own.basis.add_param_grads(params, x, at, grad_values[slots, piece])
                if grad_x is not None:
                    own.basis.add_input_grad(grad_x[piece], at, slopes, grad_values[slots, piece])
        if grad_x is not None and self._is_factored(grad_y):
            grad_x.mul_(grad_y.t())
        for slots, total in self.totals:
            # With beta 0 the memory need not be cleared first. `view` makes no copy, which would
            # be lost.
            target, left = total.view(-1, total.shape[2]), values[slots].flatten(0, 1)
            _add_product(target, left, grad_y, beta=0 if is_first else 1)

    def _grad_values(self, grad_y: Tensor, shape: Sequence[int]) -> Tensor:
        """The gradients with respect to the values, shape `(functions, inputs, rows)`; with one
        output `(functions, inputs, 1)`, without the cotangent, which is one factor per row."""
        if self._is_factored(grad_y):
            return torch.cat([m.view(-1, shape[1], 1) for _, m in self.weights.matrices()])
        grad = self.memory.grad_values.empty(grad_y, shape)
        for slots, matrix in self.weights.matrices():
            torch.mm(matrix, grad_y.t(), out=grad[slots].flatten(0, 1))
        return grad

    def _is_factored(self, grad_y: Tensor) -> bool:
        return grad_y.shape[1] == 1 and not self.has_params

    def finish(self, is_empty: bool) -> None:
        """Turn the sums over all rows into the gradients."""
        if is_empty:
            for _, total in self.totals:
                total.zero_()
        if not self.cells.is_staged or not self.totals:
            return
        ((every, total),) = self.totals
        for (slots, term), grad in zip(self.weights.terms(), self.grads, strict=True):
            if every.start <= slots.start < every.stop:
                own = total[slots.start - every.start : slots.stop - every.start]
                term.write_grads(own, grad)


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
