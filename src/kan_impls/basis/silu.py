"""The base branch of the original KAN as a basis of one function, SiLU(x) = x sigmoid(x).

Paper: arXiv 2404.19756, equation 2.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch, add_slopes, register


@register
@dataclass(frozen=True)
class SiluBasis(Basis):
    """One function, SiLU. Domain: all real numbers."""

    num_basis = 1
    cuda = "Silu"

    def elements_held(self, with_slopes: bool) -> int:
        return 4 if with_slopes else 1

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        return F.silu(x).unsqueeze(-1)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        (x,) = prepared
        gate = x.sigmoid()
        torch.mul(x, gate, out=values[0])
        if not with_slopes:
            return None
        # gate + x gate (1 - gate), with sigmoid(-x) for 1 - gate: the difference would keep
        # no digit of it where gate is nearly 1, and x, however large, multiplies what is lost.
        return x.neg().sigmoid_().mul_(values[0]).add_(gate).unsqueeze(0)

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi)


# Made once: torch.compile cannot trace how a basis is made.
SILU = SiluBasis()
