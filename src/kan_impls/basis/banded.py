"""Least-norm solutions of banded equations in time proportional to their number.

Method: Householder's QR decomposition of the transpose, confined to the band; Golub and Van Loan,
*Matrix Computations*, sections 5.2 and 5.6.
"""

from __future__ import annotations

import torch
from torch import Tensor


def least_norm_operator(matrix: Tensor, bandwidth: int) -> Tensor:
    """The pseudo-inverse of a wide matrix of full rank whose rows are banded.

    With the transpose `Q [R; 0]` it is `Q [R^-T; 0]`, and each reflection that Q is made of moves
    `bandwidth` rows.

    Args:
        matrix: shape `(m, n)`, m <= n; row j is 0 but for the columns j to j + bandwidth - 1.
        bandwidth: at most n - m + 1.

    Returns:
        Shape `(n, m)`.
    """
    count = matrix.shape[0]
    columns = matrix.T.contiguous()  # becomes R
    windows = [slice(j, j + bandwidth) for j in range(count)]
    normals = [_reflect_first(columns[window, window]) for window in windows]
    result = columns.new_zeros(matrix.T.shape)
    for j in range(count):  # R^-T, row by row
        above = slice(max(0, j - bandwidth + 1), j)
        result[j] = columns[above, j] @ -result[above]
        result[j, j] += 1
        result[j] /= columns[j, j]
    for window, normal in zip(reversed(windows), reversed(normals), strict=True):
        _reflect(result[window], normal)
    return result


def _reflect_first(part: Tensor) -> Tensor:
    """Reflect the rows of `part`, in place, so that its first column becomes a multiple of the
    first unit vector; the unit normal of the mirror."""
    normal = part[:, 0].clone()
    normal[0] += torch.linalg.vector_norm(normal).copysign(normal[0])
    normal /= torch.linalg.vector_norm(normal)
    _reflect(part, normal)
    return normal


def _reflect(rows: Tensor, normal: Tensor) -> None:
    rows.addr_(normal, normal @ rows, alpha=-2)
