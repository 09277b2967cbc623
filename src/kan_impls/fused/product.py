"""The product form: some functions of the basis, then one library matrix product.

Nothing of the basis outlives its block, and rows are taken in chunks, so that the
workspace is at most `WORKSPACE_BYTES` at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kan_impls.basis.fourier import FourierBasis
from kan_impls.fused.pages import advise_huge_pages

# Large enough for some 300 rows of 1000 inputs, where the products run at full speed; small
# enough to stay in a large cache. A single row may need more: 80 bytes per input and 12 per
# output. 16-bit weights whose gradient takes several chunks add one float32 copy of it.
WORKSPACE_BYTES = 16 * 2**20

# Weights in one product, and the most rows of them. Smaller products would show their
# overhead; with much larger ones the basis and its gradient would not stay in the cache.
PRODUCT_WEIGHTS = 2**20
PRODUCT_DEPTH = 4096


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, basis: FourierBasis) -> Tensor:
    """`y[b,o] = bias[o] + sum_ik phi_k(x[b,i]) weight[k,i,o]`.

    Args:
        x: shape `(batch, in_features)`, any floating dtype.
        weight: shape `(num_basis, in_features, out_features)`.
        bias: shape `(out_features,)`, or None.

    Returns:
        Shape `(batch, out_features)`, in the dtype of `weight`.
    """
    y = weight.new_empty(x.shape[0], weight.shape[2])
    for rows, wide_x, buffer in _chunks(x, weight, basis):
        total = _accumulator(y[rows])
        if bias is None:
            total.zero_()
        else:
            total.copy_(bias.expand_as(total))
        for piece in _pieces(basis, wide_x, buffer, weight):
            _add_product(total, piece.phi, piece.of(weight))
        if total.dtype != y.dtype:
            y[rows] = total
    return y


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    basis: FourierBasis,
    needs_grad_x: bool,
    needs_grad_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `forward` with respect to x and weight, each None if not needed.

    The basis is evaluated again, from x.
    """
    grad_x = torch.empty_like(x) if needs_grad_x else None
    grad_weight = advise_huge_pages(torch.empty_like(weight)) if needs_grad_weight else None
    total_weight = grad_weight
    for rows, wide_x, buffer in _chunks(x, weight, basis):
        first_chunk = rows.start == 0
        if grad_weight is not None and first_chunk and rows.stop < x.shape[0]:
            total_weight = _accumulator(grad_weight)
        grad_rows = grad_y[rows].contiguous()
        total_x = torch.zeros_like(wide_x)
        for piece in _pieces(basis, wide_x, buffer, weight):
            if total_weight is not None:
                # With beta 0 the memory need not be cleared first.
                beta = 0 if first_chunk else 1
                _add_product(piece.of(total_weight), piece.phi.t(), grad_rows, beta)
            if grad_x is not None:
                grad_phi = grad_rows @ piece.of(weight).t()
                for slot, grad in zip(piece.slots, grad_phi.split(x.shape[1], 1), strict=True):
                    basis.add_input_grad(total_x, piece.first, piece.block, slot, grad)
        if grad_x is not None:
            grad_x[rows] = total_x
    if grad_weight is not None:
        if x.shape[0] == 0:
            grad_weight.zero_()
        elif total_weight is not grad_weight:
            grad_weight.copy_(total_weight)
    return grad_x, grad_weight


class _Piece(NamedTuple):
    """The functions of one product: `slots` of a block that begins at function `first`."""

    block: Tensor
    first: int
    slots: range

    @property
    def phi(self) -> Tensor:
        """Their values, shape `(rows, functions * in_features)`."""
        return self.block[:, self.slots.start : self.slots.stop].flatten(1)

    def of(self, weight: Tensor) -> Tensor:
        """Their part of the weights, shape `(functions * in_features, out_features)`."""
        start, stop = self.first + self.slots.start, self.first + self.slots.stop
        return weight[start:stop].flatten(0, 1)


def _pieces(
    basis: FourierBasis, x: Tensor, buffer: Tensor, weight: Tensor
) -> Iterator[_Piece]:
    per_product = _functions_per_product(weight)
    for first, block in basis.blocks(x, buffer):
        size = block.shape[1]
        for start in range(0, size, per_product):
            yield _Piece(block, first, range(start, min(start + per_product, size)))


def _functions_per_product(weight: Tensor) -> int:
    _, in_features, out_features = weight.shape
    wanted = PRODUCT_WEIGHTS // (in_features * out_features)
    return max(1, min(wanted, PRODUCT_DEPTH // in_features))


def _chunks(
    x: Tensor, weight: Tensor, basis: FourierBasis
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield chunks of rows: their slice, their x in at least float32, and a basis buffer."""
    batch, in_features = x.shape
    wide = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    # Two harmonics, so that one can be made from the other, or what one product takes.
    per_product = _functions_per_product(weight)
    block = min(max(4, per_product + per_product % 2), basis.num_basis)
    # Per row: the block, and one product's functions as gradient and in 16 bits; 12 of x's
    # size for the recurrence, its exact restart and grad_x; 3 of y's size.
    per_row = wide.itemsize * (
        in_features * (block + 2 * min(per_product, block) + 12) + 3 * weight.shape[2]
    )
    size = min(batch, max(1, WORKSPACE_BYTES // per_row))
    if per_product == 1:  # each function contiguous: the faster element-wise
        buffer = x.new_empty((block, size, in_features), dtype=wide).transpose(0, 1)
    else:  # each row contiguous: the functions of a product side by side
        buffer = x.new_empty((size, block, in_features), dtype=wide)
    for start in range(0, batch, max(1, size)):
        stop = min(start + size, batch)
        yield slice(start, stop), x[start:stop].to(wide).contiguous(), buffer[: stop - start]


def _accumulator(result: Tensor) -> Tensor:
    """Where a sum of several products is formed: `result` itself, or float32 for 16 bits."""
    if result.dtype.itemsize >= 4:
        return result
    return torch.empty_like(result, dtype=torch.float32)


def _add_product(total: Tensor, left: Tensor, right: Tensor, beta: float = 1) -> None:
    """`total = beta * total + left @ right`, the product taken in the dtype of `right`."""
    left = left.to(right.dtype)
    if total.dtype == right.dtype:
        total.addmm_(left, right, beta=beta)
    elif beta:
        total.add_(left @ right)
    else:
        total.copy_(left @ right)
