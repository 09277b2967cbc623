"""The product form: a block of the basis, then one library matrix product.

Nothing of the basis outlives its block, and rows are taken in chunks, so that the
workspace is at most `WORKSPACE_BYTES` at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kan_impls.basis.fourier import FourierBasis

# Large enough for some 300 rows of 1000 inputs, where the products run at full speed; small
# enough to stay in a large cache. A single row may need more: 64 bytes per input and 8 per
# output. 16-bit weights whose gradient takes several chunks add one float32 copy of it.
WORKSPACE_BYTES = 16 * 2**20

# Depth of one product below which the overhead per product would show.
MIN_DEPTH = 2048


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
        for functions, phi in basis.blocks(wide_x, buffer):
            _add_product(total, phi.flatten(1), weight[functions].flatten(0, 1))
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
    grad_weight = torch.empty_like(weight) if needs_grad_weight else None
    total_weight = None
    for rows, wide_x, buffer in _chunks(x, weight, basis):
        grad_rows = grad_y[rows].contiguous()
        first = rows.start == 0
        if grad_weight is not None and first:
            single_chunk = rows.stop >= x.shape[0]
            total_weight = grad_weight if single_chunk else _accumulator(grad_weight)
        total_x = torch.zeros_like(wide_x) if needs_grad_x else None
        for functions, phi in basis.blocks(wide_x, buffer):
            if total_weight is not None:
                # beta 0 ignores what is there, so that the memory need not be cleared first.
                _add_product(
                    total_weight[functions].flatten(0, 1),
                    phi.flatten(1).t(),
                    grad_rows,
                    beta=0 if first else 1,
                )
            if total_x is not None:
                grad_phi = (grad_rows @ weight[functions].flatten(0, 1).t()).view(phi.shape)
                basis.add_input_grad(total_x, functions, phi, grad_phi.to(total_x.dtype))
        if grad_x is not None:
            grad_x[rows] = total_x
    if grad_weight is not None:
        if total_weight is None:  # no rows at all
            grad_weight.zero_()
        elif total_weight is not grad_weight:
            grad_weight.copy_(total_weight)
    return grad_x, grad_weight


def _chunks(
    x: Tensor, weight: Tensor, basis: FourierBasis
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield chunks of rows: their slice, their x in at least float32, and a basis buffer."""
    batch, in_features = x.shape
    wide = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    block = min(max(4, -(-MIN_DEPTH // in_features)), basis.num_basis)
    block += block % 2
    # Per row: block and gradient block (and their 16-bit copies), 8 more of x's size for
    # the recurrence, the exact restart and grad_x, and 2 of y's size.
    per_row = wide.itemsize * (in_features * (3 * block + 8) + 2 * weight.shape[2])
    size = min(batch, max(1, WORKSPACE_BYTES // per_row))
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
    if total.dtype == right.dtype:
        total.addmm_(left.to(right.dtype), right, beta=beta)
    elif beta:
        total.add_(left.to(right.dtype) @ right)
    else:
        total.copy_(left.to(right.dtype) @ right)
