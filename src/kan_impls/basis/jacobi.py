"""Jacobi polynomials of tanh(x): P_0^(a,b), ..., P_D^(a,b); those of Legendre are a = b = 0.

Source: NIST DLMF, section 18.9(i). Published layer: https://github.com/SpaceLearner/JacobiKAN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import register
from kan_impls.basis.recurrence import RecurrentBasis, Step
from kan_impls.checks import check_number

LOG_LARGEST = math.log(torch.finfo(torch.float32).max)


@register
@dataclass(frozen=True)
class JacobiBasis(RecurrentBasis):
    """The polynomials of degree 0 to `degree` that are orthogonal with the weight
    `(1 - t)^a (1 + t)^b`.

    Raises:
        ValueError: an exponent of -1 or less, whose weight has no integral, or one so large that
            float32 does not hold the polynomials.
    """

    degree: int
    a: float = 1.0
    b: float = 1.0

    standard = (({"degree": 3, "a": 1.0, "b": 1.0}, False, False),)

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            exponent = check_number(name, getattr(self, name))
            object.__setattr__(self, name, exponent)  # 1 and 1.0 are the same basis
            if not exponent > -1:
                raise ValueError(
                    f"{name} is {exponent}; expected a number above -1: Jacobi polynomials are "
                    "orthogonal there only"
                )
            # log |P_D| where it is largest, at t = 1 or -1: that of the binomial of D + a over D.
            if sum(math.log1p(exponent / k) for k in range(1, self.degree + 1)) > LOG_LARGEST:
                raise ValueError(
                    f"{name} is {exponent}; expected one with which a polynomial of degree "
                    f"{self.degree} stays within float32: take a smaller exponent or degree"
                )
        super().__post_init__()

    @property
    def cuda(self) -> str:
        return f"Jacobi<{self.degree}, {round(2 * self.a)}, {round(2 * self.b)}>"

    @property
    def obstacle(self) -> str | None:
        if (2 * self.a).is_integer() and (2 * self.b).is_integer():
            return super().obstacle
        return (
            f"the exponents are {self.a} and {self.b}, and the fused kernels know multiples of "
            "1/2: take backend='auto' or 'product', or such exponents"
        )

    def steps(self, *params: Tensor) -> Sequence[Step]:
        a, b = self.a, self.b
        found = [Step((a + b + 2) / 2, (a - b) / 2, 0)]
        for n in range(2, self.degree + 1):
            total = 2 * n + a + b
            least, less = 2 * n * (n + a + b), total - 2
            found.append(
                Step(
                    total * (total - 1) / least,
                    (total - 1) * (a * a - b * b) / (least * less),
                    2 * (n + a - 1) * (n + b - 1) * total / (least * less),
                )
            )
        return found
