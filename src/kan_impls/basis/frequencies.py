"""Fourier series of trained frequencies: cos(f_1 x), sin(f_1 x), cos(f_2 x), ..., sin(f_G x).

Papers: Sitzmann et al., *Implicit Neural Representations with Periodic Activation Functions*,
arXiv 2006.09661; trained frequencies in a Kolmogorov-Arnold layer: SineKAN, arXiv 2407.04149.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kan_impls.basis.base import Block, Pointwise, register


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
        block: Block,
        slots: slice,
        grad_phi: Tensor,
    ) -> None:
        (x,), (grad,) = prepared, grads
        for slot, own in enumerate(grad_phi, slots.start):
            # cos(f x)' = -x sin(f x), sin(f x)' = x cos(f x)
            partner, sign = (slot - 1, 1) if slot % 2 else (slot + 1, -1)
            grad[:, slot // 2].add_((own * block.values[partner]).mul_(x).sum(1), alpha=sign)
