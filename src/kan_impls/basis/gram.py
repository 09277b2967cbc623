"""Polynomials of tanh(x) by the recurrence of Gram's, whose coefficients are trained.

From 1 and t = tanh(x) on, `P_k = t P_(k-1) - c_k w_(k-1) P_(k-2)` with trained w and
`c_k = (2k-1) (k-1)^2 (4 (k-1)^2 - 1) / k^2`. Gram's own polynomials, orthogonal on equally spaced
points, divide by `4 (k-1)^2 - 1` where the published layer multiplies: weights w take either to the
same functions.

Published layer: https://github.com/Khochawongwat/GRAMKAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import in_columns, register
from kan_impls.basis.recurrence import RecurrentBasis, Step


@register
@dataclass(frozen=True)
class GramBasis(RecurrentBasis):
    """The polynomials of degree 0 to `degree`.

    Parameter: `recurrence`, `degree + 1` numbers w for each set of inputs, of which the functions
    take those from 1 to `degree - 1`.
    """

    degree: int

    params = trained = ("recurrence",)
    spans_param_grads = True
    standard = (({"degree": 3}, True, False),)

    @property
    def param_sizes(self) -> tuple[int, ...]:
        return (self.degree + 1,)

    @property
    def cuda(self) -> str:
        return f"Gram<{self.degree}>"

    def steps(self, *params: Tensor) -> Sequence[Step]:
        (weights,) = params
        later = (Step(1.0, 0.0, factor(k) * weights[k - 1]) for k in range(2, self.degree + 1))
        return [Step(1.0, 0.0, 0.0), *later]

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        (x,) = prepared
        t, weights = x.tanh(), in_columns(params[0], x)
        # The recurrence backwards: what reaches P_k comes from P_(k+1) and P_(k+2).
        one_up, two_up = torch.zeros_like(t), torch.zeros_like(t)
        for k in range(self.degree, 1, -1):
            if k + 2 <= self.degree:
                two_up.mul_(weights[k + 1]).mul_(-factor(k + 2))
            one_up, two_up = two_up.addcmul_(t, one_up).add_(grad_phi[k]), one_up
            grads[0][:, k - 1].sub_((one_up * values[k - 2]).sum(1), alpha=factor(k))

    def param_grads_of_weights(
        self, products: Tensor, params: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        weights = params[0].to(products.dtype)
        back = products.new_zeros(len(weights), self.num_basis + 1)
        for k in range(2, self.degree + 1):
            back[:, k - 1] = factor(k) * weights[:, k - 1]
        # `add_param_grads` again, with the product of what reaches P_k and each P_l, of lower
        # degree: t P_l = P_(l+1) + back_l P_(l-1).
        grad = products.new_zeros(len(products), self.degree + 1)
        one_up, two_up = torch.zeros_like(grad), torch.zeros_like(grad)
        for k in range(self.degree, 1, -1):
            own = products[:, k, : k - 1] - back[:, k + 1, None] * two_up[:, : k - 1]
            own += one_up[:, 1:k]
            own[:, 1:] += back[:, 1 : k - 1] * one_up[:, : k - 2]
            one_up, two_up = own, one_up
            grad[:, k - 1] = -factor(k) * own[:, k - 2]
        return [grad]


def factor(degree: int) -> float:
    """What multiplies the trained weight in the step to this degree, 2 or more."""
    n = degree - 1
    return (2 * degree - 1) * n**2 * (4 * n**2 - 1) / degree**2
