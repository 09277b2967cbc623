"""Group-rational KAN: `y_o = bias_o + sum_i w_oi P(x_i) / Q(x_i)`, with trained P and Q.

P(x) = a_0 + a_1 x + ... + a_5 x^5 is shared by all inputs, and
Q(x) = 1 + |b_1 x| + ... + |b_4 x^4| by the inputs of a group. Paper: the Kolmogorov-Arnold
Transformer, arXiv 2409.10594; what is there an activation and the linear map after it is one layer
here. Published implementation: https://github.com/Adamdad/rational_kat_cu, whose parameter names
and shapes are kept under `act`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kan_impls.basis.base import Pointwise, in_columns, register
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec

# The least-squares fit of SiLU on [-8, 8], off by at most 0.0013. (The identity, as which the
# paper's first layers start, has b = 0, where |b| has no slope: those b are never trained.)
NUMERATOR = (3.13347e-4, 0.501068, 0.249645, 0.0509811, 4.96453e-3, 1.90341e-4)
DENOMINATOR = (2.76399e-3, 0.100831, 1.82253e-4, 3.70609e-4)
# 1 / E[F(x)^2] of this F under the normal distribution: weights of variance GAIN / in_features keep
# the variance (section 4.3 of the paper).
GAIN = 2.8108

P_ORDER, Q_ORDER = len(NUMERATOR) - 1, len(DENOMINATOR)


@register
@dataclass(frozen=True)
class RationalBasis(Pointwise):
    """One function, a quotient of polynomials whose denominator has no zero.

    Domain: all real numbers. Parameters: `numerator`, 6 numbers, and `denominator`, 4, for each
    set of inputs, both trained. Beyond 1 both polynomials are those of 1/x: no power overflows.
    """

    num_basis = 1
    params = ("numerator", "denominator")
    trained = ("numerator", "denominator")
    standard = (({}, False, False),)
    tensors_at_once = 12

    @property
    def param_sizes(self) -> tuple[int, ...]:
        return (P_ORDER + 1, Q_ORDER)

    @property
    def cuda(self) -> str:
        return "Rational"

    def functions(self, x: Tensor, *params: Tensor) -> Tensor:
        return _Quotient(x, *params).value.unsqueeze(0)

    def slopes(self, x: Tensor, *params: Tensor) -> Tensor:
        return _Quotient(x, *params).slope().unsqueeze(0)

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        (x,) = prepared
        at = _Quotient(x, *(in_columns(param, x) for param in params))
        scaled = grad_phi[0] * at.factor / at.below
        grads[0].add_(at.moments(scaled, P_ORDER, at.t))
        by_powers = at.moments(scaled.mul_(at.above).div_(at.below), Q_ORDER, at.t.abs())
        grads[1].addcmul_(params[1].sign(), by_powers[:, 1:], value=-1)


class _Quotient:
    """P / Q at x: `factor * above / below`, polynomials of `t`, which is x, or 1/x beyond 1."""

    def __init__(self, x: Tensor, numerator: Tensor, denominator: Tensor) -> None:
        self.is_far = x.abs() > 1
        self.factor = torch.where(self.is_far, x, 1)
        self.t = torch.where(self.is_far, self.factor.reciprocal(), x)
        self.p = self._in_order([*numerator])
        self.q = self._in_order([torch.ones_like(denominator[0]), *denominator.abs()])
        self.above, self.below = _horner(self.p, self.t), _horner(self.q, self.t.abs())
        self.value = self.factor * self.above / self.below

    def moments(self, factors: Tensor, order: int, t: Tensor) -> Tensor:
        """Sums over rows of `factors x^j`, over x^order beyond 1, for j = 0 to `order`: shape
        `(inputs, order + 1)`."""
        near, far = factors.masked_fill(self.is_far, 0), factors.masked_fill(~self.is_far, 0)
        found = factors.new_zeros(order + 1, factors.shape[0])
        for j in range(order + 1):
            found[j] += near.sum(1)
            found[order - j] += far.sum(1)
            near.mul_(t)
            far.mul_(t)
        return found.t()

    def slope(self) -> Tensor:
        """The derivative by x."""
        ratio = self.above / self.below
        by_p, by_q = _horner_slope(self.p, self.t), _horner_slope(self.q, self.t.abs())
        by_t = (by_p - ratio * by_q * self.t.sign()) / self.below
        return torch.where(self.is_far, ratio - self.t * by_t, by_t)

    def _in_order(self, coefficients: list[Tensor]) -> list[Tensor]:
        """The coefficients of the powers of `t`."""
        both = zip(coefficients, reversed(coefficients), strict=True)
        return [torch.where(self.is_far, far, near) for near, far in both]


def _horner(coefficients: Sequence[Tensor], t: Tensor) -> Tensor:
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * t + coefficient
    return result


def _horner_slope(coefficients: Sequence[Tensor], t: Tensor) -> Tensor:
    return _horner([j * each for j, each in enumerate(coefficients)][1:], t)


def draw(layer: KANLayer) -> None:
    """SiLU, and weights that keep the variance; a bias of 0."""
    deviation = math.sqrt(GAIN / layer.in_features)
    layer.start("weight", lambda value: nn.init.normal_(value, std=deviation))
    layer.start("numerator", lambda value: value.copy_(value.new_tensor(NUMERATOR)))
    layer.start("denominator", lambda value: value.copy_(value.new_tensor(DENOMINATOR)))
    if layer.stored("bias") is not None:
        layer.start("bias", nn.init.zeros_)


SPEC = Spec(
    formula="b + sum_i w_oi P(x_i) / Q(x_i)",
    paper="arXiv 2409.10594",
    basis=RationalBasis,
    weight=Stored("fc.weight", "o (i k)", fused="k i o"),
    bias=Stored("fc.bias", "o", fused="o", option="bias"),
    params={
        "numerator": Stored("act.weight_numerator", "1 n", fused="1 n"),
        "denominator": Stored("act.weight_denominator", "s m", fused="s m"),
    },
    init=draw,
    options={"num_groups": 8, "bias": True},
    groups="num_groups",
    reference_widths=(1000, 10_000, 1),
)

VARIANTS = both_forms("rational_kan", SPEC)
