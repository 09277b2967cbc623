"""The formula of a KAN layer, once: a base branch plus a basis times weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def basis_linear(phi: Tensor, weight: Tensor) -> Tensor:
    """`y[b,o] = sum_i sum_k phi[b,i,k] * weight[o,i,k]`, as one matrix product.

    Args:
        phi: values of the basis, shape `(..., in_features, num_basis)`.
        weight: shape `(out_features, in_features, num_basis)`.

    Returns:
        Shape `(..., out_features)`.
    """
    return F.linear(phi.flatten(-2), weight.flatten(-2))


def silu_linear(x: Tensor, weight: Tensor) -> Tensor:
    """The base branch of the original KAN, `SiLU(x) @ weight.T` (arXiv 2404.19756)."""
    return F.linear(F.silu(x), weight)
