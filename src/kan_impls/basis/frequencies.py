"""Fourier series of trained frequencies: cos(f_1 x), sin(f_1 x), cos(f_2 x), ..., sin(f_G x).

Papers: Sitzmann et al., *Implicit Neural Representations with Periodic Activation Functions*,
arXiv 2006.09661; trained frequencies in a Kolmogorov-Arnold layer: SineKAN, arXiv 2407.04149.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Pointwise, register


@register
@dataclass(frozen=True)
class FrequencyBasis(Pointwise):
    """The cosine and the sine of `grid_size` frequencies, frequency by frequency.

    Domain: all real numbers. Parameter: `frequencies`, `grid_size` numbers for each set of inputs.
    """

    grid_size: int

    params = trained = ("frequencies",)
    standard = (({"grid_size": 5}, False, False),)

    @property
    def num_basis(self) -> int:
        return 2 * self.grid_size

    @property
    def param_sizes(self) -> tuple[int, ...]:
        return (self.grid_size,)

    @property
    def cuda(self) -> str:
        return f"Frequencies<{self.grid_size}>"

    def functions(self, x: Tensor, *params: Tensor) -> Tensor:
        angle = x * params[0]
        return torch.stack((angle.cos(), angle.sin()), 1).flatten(0, 1)

    def slopes(self, x: Tensor, *params: Tensor) -> Tensor:
        angle = x * params[0]
        return (
            torch.stack((angle.sin().neg_(), angle.cos()), 1)
            .mul_(params[0].unsqueeze(1))
            .flatten(0, 1)
        )

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        (x,) = prepared
        # cos(f x)' = -x sin(f x), sin(f x)' = x cos(f x)
        own = (grad_phi[1::2] * values[0::2]).addcmul_(grad_phi[0::2], values[1::2], value=-1)
        grads[0].add_(own.mul_(x).sum(2).t())
