"""A product by PyTorch's own operators: any transform and derivative, at the price of the basis in
memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kan_impls.basis.base import Basis
from kan_impls.fused.operands import Needs, Operands, terms_of


def forward(operands: Operands, basis: Basis) -> Tensor:
    """`kan_impls.fused.op.basis_product`; a trace of it runs without this package.

    Args:
        operands: x of any leading shape `(..., in_features)`.
    """
    x, dtype = operands.x, operands.weight.dtype
    wide = x.to(torch.promote_types(torch.promote_types(x.dtype, dtype), torch.float32))
    y: Any = 0 if operands.bias is None else operands.bias
    for term in terms_of(operands, basis):
        weight = term.weight if term.scale is None else term.weight * term.scale
        phi = term.basis.value(wide, *term.params).to(dtype)
        y = y + torch.einsum("...ik,kio->...o", phi, weight)
    return y


def backward(grad_y: Tensor, operands: Operands, basis: Basis, needs: Needs) -> list[Tensor | None]:
    """Autograd's own gradients of `forward`, in the places of the operands that need one; they can
    be differentiated where gradients are enabled, and `grad_y` may be a batch of cotangents."""
    again = torch.is_grad_enabled()
    pairs = zip(operands.flat, needs.flat, strict=True)
    wanted = [value for value, needed in pairs if needed and value is not None]
    with torch.enable_grad():
        y = forward(operands, basis)
    found = iter(torch.autograd.grad(y, wanted, grad_y, create_graph=again))
    return [next(found) if needed else None for needed in needs.flat]


def estimated_bytes(operands: Operands, basis: Basis) -> int:
    """Of the values of the basis and what is made on the way to them, maybe in float64 (an
    estimate)."""
    held = 4 * basis.num_basis + basis.elements_held(True)
    return operands.x.numel() * held * 8
