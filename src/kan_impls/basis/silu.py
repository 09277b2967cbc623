"""The base branch of the original KAN as a basis of one function, SiLU(x) = x sigmoid(x).

Paper: arXiv 2404.19756, equation 2.10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kan_impls.basis.base import Basis, Block, Scratch, add_slopes, register


@register
@dataclass(frozen=True)
class SiluBasis(Basis):
    """One function, SiLU. Domain: all real numbers."""

    num_basis = 1
    cuda = "Silu"
    elements_per_input = 4

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        return F.silu(x).unsqueeze(-1)

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,)

    def blocks(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Iterator[Block]:
        (x,) = prepared
        gate = x.sigmoid()
        value = x * gate
        slopes = None
        if with_slopes:
            # gate + x gate (1 - gate), with sigmoid(-x) for 1 - gate: the difference would keep
            # no digit of it where gate is nearly 1, and x, however large, multiplies what is lost.
            slopes = x.neg().sigmoid_().mul_(value).add_(gate).unsqueeze(0)
        yield Block(slice(0, 1), value.unsqueeze(0), slopes)

    def add_input_grad(self, grad_x: Tensor, block: Block, slots: slice, grad_phi: Tensor) -> None:
        add_slopes(grad_x, block, slots, grad_phi)
