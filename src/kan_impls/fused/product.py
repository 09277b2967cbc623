"""The product form: some functions of the basis, then one library matrix product.

Nothing of the basis outlives its block, and rows are taken in chunks, so that the
workspace stays within `WORKSPACE_BYTES` at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kan_impls.basis.fourier import FourierBasis

# Large enough for some 150 rows of 1000 inputs and 5 harmonics, where the products run at full
# speed; small enough to stay in a large cache. A single row may need more: 400 bytes per input
# and 24 per output. 16-bit weights whose gradient takes several chunks add one float32 copy of
# it, and a product as it is and in float32.
WORKSPACE_BYTES = 16 * 2**20

# Elements of the gradient of the basis that are made at once: half a megabyte stays in the
# second-level cache until it is used.
GRAD_ELEMENTS = 2**17


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, basis: FourierBasis) -> Tensor:
    """`y[b,o] = bias[o] + sum_ki phi_k(x[b,i]) weight[k,i,o]`.

    Args:
        x: shape `(batch, in_features)`, any floating dtype.
        weight: shape `(num_basis, in_features, out_features)`.
        bias: shape `(out_features,)`, or None.

    Returns:
        Shape `(batch, out_features)`, in the dtype of `weight`.
    """
    y = weight.new_empty(x.shape[0], weight.shape[2])
    for rows in _chunks(x, weight, basis):
        total = _accumulator(y[rows])
        if bias is None:
            total.zero_()
        else:
            total.copy_(bias.expand_as(total))
        _add_forward(total, _columns(x[rows], weight), weight, basis)
        if total.dtype != y.dtype:
            y[rows] = total
    return y


def _add_forward(total: Tensor, columns: Tensor, weight: Tensor, basis: FourierBasis) -> None:
    """Add the products of one chunk to `total`, shape `(rows, out_features)`."""
    for functions, phi in basis.blocks(columns):
        _add_product(total, phi.flatten(0, 1).t(), weight[functions].flatten(0, 1))


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
    total_weight = grad_weight
    for rows in _chunks(x, weight, basis):
        if grad_weight is not None and rows.start == 0 and rows.stop < x.shape[0]:
            total_weight = _accumulator(grad_weight)
        columns = _columns(x[rows], weight)
        total_x = torch.zeros_like(columns) if needs_grad_x else None
        _add_backward(
            total_x, total_weight, grad_y[rows].contiguous(), columns, weight, basis,
            is_first=rows.start == 0,
        )  # fmt: skip
        if grad_x is not None and total_x is not None:
            grad_x[rows] = total_x.t()
    if grad_weight is not None:
        if x.shape[0] == 0:
            grad_weight.zero_()
        elif total_weight is not None and total_weight is not grad_weight:
            grad_weight.copy_(total_weight)
    return grad_x, grad_weight


def _add_backward(
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_y: Tensor,
    columns: Tensor,
    weight: Tensor,
    basis: FourierBasis,
    is_first: bool,
) -> None:
    """Add the contribution of one chunk to `grad_x`, shape `(in_features, rows)`, and to
    `grad_weight`, which the first chunk overwrites."""
    for functions, phi in basis.blocks(columns):
        if grad_x is not None:
            _add_input_grad(grad_x, functions, phi, grad_y, weight, basis)
        if grad_weight is not None:
            # With beta 0 the memory need not be cleared first.
            target = grad_weight[functions].flatten(0, 1)
            _add_product(target, phi.flatten(0, 1), grad_y, beta=0 if is_first else 1)


def _add_input_grad(
    grad_x: Tensor,
    functions: slice,
    phi: Tensor,
    grad_y: Tensor,
    weight: Tensor,
    basis: FourierBasis,
) -> None:
    """Add the contribution of one block to the gradient of x, shape `(in_features, rows)`."""
    if weight.shape[2] == 1:
        # The cotangent is then one factor per row: applied last, it is applied once.
        slope = torch.zeros_like(grad_x)
        for slot, own in enumerate(weight[functions].to(grad_x.dtype)):
            basis.add_input_grad(slope, functions.start + slot, phi, slot, own)
        grad_x.addcmul_(slope, grad_y.t().to(grad_x.dtype))
        return
    step = min(phi.shape[0], max(1, GRAD_ELEMENTS // max(1, grad_x.numel())))
    buffer = weight.new_empty(step, *grad_x.shape)
    for start in range(0, phi.shape[0], step):
        grad_phi = buffer[: phi.shape[0] - start]
        first = functions.start + start
        part = weight[first : first + grad_phi.shape[0]].flatten(0, 1)
        torch.mm(part, grad_y.t(), out=grad_phi.flatten(0, 1))
        for slot, own in enumerate(grad_phi, start):
            basis.add_input_grad(grad_x, functions.start + slot, phi, slot, own)


def _wide_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)


def _columns(x: Tensor, weight: Tensor) -> Tensor:
    """x as columns, shape `(in_features, rows)`, in at least float32.

    In columns the values of a function are one contiguous matrix, and those of a block one
    contiguous operand of a product.
    """
    return x.t().contiguous().to(_wide_dtype(x, weight))


def _chunks(x: Tensor, weight: Tensor, basis: FourierBasis) -> Iterator[slice]:
    """Yield slices of rows, nearly equal in size, that keep the workspace within its limit."""
    batch, in_features = x.shape
    itemsize = _wide_dtype(x, weight).itemsize
    # Per row and input: x as columns, twice while it changes its dtype, and its gradient; the
    # powers, and the block where it is another; a 16-bit copy of the block; the gradient of a
    # function; ten for the angle, cosine and sine of exact powers in float64. Per row and
    # output: grad_y, and a sum and a product in 16 bits.
    blocks = 1 + (basis.num_basis > basis.block_size) + (weight.dtype.itemsize < 4)
    per_input = 3 + blocks * basis.block_size + 1 + 10
    per_row = itemsize * (in_features * per_input + 3 * weight.shape[2])
    most = max(1, (WORKSPACE_BYTES - GRAD_ELEMENTS * itemsize) // per_row)
    size = -(-batch // max(1, -(-batch // most)))
    for start in range(0, batch, max(1, size)):
        yield slice(start, min(start + size, batch))


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
