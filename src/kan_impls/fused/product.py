"""The product form: some harmonics of the basis, then one library matrix product.

Nothing of the basis outlives its block, and rows are taken in chunks, so that the
workspace is at most `WORKSPACE_BYTES` at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kan_impls.basis.fourier import FourierBasis

# Large enough for some 200 rows of 1000 inputs, where the products run at full speed; small
# enough to stay in a large cache. A single row may need more: 250 bytes per input and 16 per
# output. 16-bit weights whose gradient takes several chunks add one float32 copy of it.
WORKSPACE_BYTES = 16 * 2**20

# Weights in one product, and the most rows of them. Smaller products would show their
# overhead; with much larger ones the gradient of the basis would not stay in the cache.
PRODUCT_WEIGHTS = 2**20
PRODUCT_DEPTH = 4096


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, basis: FourierBasis) -> Tensor:
    """The forward pass of `kan_impls.fused.op.fourier_product`, on rows.

    Args:
        x: shape `(batch, in_features)`, any floating dtype.
        weight: shape `(grid_size, in_features, 2, out_features)`.
        bias: shape `(out_features,)`, or None.

    Returns:
        Shape `(batch, out_features)`, in the dtype of `weight`.
    """
    y = weight.new_empty(x.shape[0], weight.shape[3])
    for rows, wide_x in _chunks(x, weight, basis):
        total = _accumulator(y[rows])
        if bias is None:
            total.zero_()
        else:
            total.copy_(bias.expand_as(total))
        for harmonics, block in basis.blocks(wide_x, _by_row(weight)):
            for part, phi in _products(harmonics, block, weight):
                _add_product(total, phi, weight[part].flatten(0, 2))
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
    total_weight = grad_weight
    for rows, wide_x in _chunks(x, weight, basis):
        first_chunk = rows.start == 0
        if grad_weight is not None and first_chunk and rows.stop < x.shape[0]:
            total_weight = _accumulator(grad_weight)
        grad_rows = grad_y[rows].contiguous()
        # One sum for the cosines and one for the sines of each input.
        total_x = wide_x.new_zeros(wide_x.shape[0], 2 * wide_x.shape[1])
        for harmonics, block in basis.blocks(wide_x, _by_row(weight)):
            if total_weight is not None:
                for part, phi in _products(harmonics, block, weight):
                    # With beta 0 the memory need not be cleared first.
                    target = total_weight[part].flatten(0, 2)
                    _add_product(target, phi.t(), grad_rows, beta=0 if first_chunk else 1)
            if grad_x is not None:
                derivative = basis.differentiate_(harmonics, block)
                for part, phi in _products(harmonics, derivative, weight):
                    grad_phi = grad_rows @ weight[part].flatten(0, 2).t()
                    for own, slope in zip(
                        grad_phi.split(total_x.shape[1], 1),
                        phi.split(total_x.shape[1], 1),
                        strict=True,
                    ):
                        total_x.addcmul_(own, slope)
        if grad_x is not None:
            grad_x[rows] = total_x[:, 0::2] + total_x[:, 1::2]
    if grad_weight is not None:
        if x.shape[0] == 0:
            grad_weight.zero_()
        elif total_weight is not None and total_weight is not grad_weight:
            grad_weight.copy_(total_weight)
    return grad_x, grad_weight


def _products(harmonics: slice, block: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the parts of a block that make one product each: their harmonics, and their
    values of shape `(rows, harmonics * in_features * 2)`."""
    step = _harmonics_per_product(weight)
    for start in range(0, block.shape[0], step):
        values = block[start : start + step]
        first = harmonics.start + start
        yield slice(first, first + values.shape[0]), values.transpose(0, 1).flatten(1)


def _harmonics_per_product(weight: Tensor) -> int:
    _, in_features, _, out_features = weight.shape
    depth = 2 * in_features
    return max(1, min(PRODUCT_WEIGHTS // (depth * out_features), PRODUCT_DEPTH // depth))


def _by_row(weight: Tensor) -> bool:
    # A product of several harmonics needs each row's values side by side; where each has its
    # own product, values that lie harmonic by harmonic are faster to compute.
    return _harmonics_per_product(weight) > 1


def _chunks(x: Tensor, weight: Tensor, basis: FourierBasis) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of rows, of nearly equal size: their slice, and their x in at least float32."""
    batch, in_features = x.shape
    wide = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    # Per row and input: x and total_x; the powers, and the block where it is another; its
    # gradient, and both in 16 bits, for the harmonics of one product; sine, cosine and angle of
    # the exact restart in float64. Per row and output: grad_y, and a sum and a product of 16 bits.
    block = 2 * basis.block_size
    product = 2 * min(_harmonics_per_product(weight), basis.block_size)
    several = 1 + (basis.grid_size > basis.block_size)
    per_input = 6 + several * block + 2 * product + 10
    per_row = wide.itemsize * (in_features * per_input + 3 * weight.shape[3])
    most = max(1, WORKSPACE_BYTES // per_row)
    size = -(-batch // max(1, -(-batch // most)))
    for start in range(0, batch, max(1, size)):
        rows = slice(start, min(start + size, batch))
        yield rows, x[rows].to(wide).contiguous()


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
