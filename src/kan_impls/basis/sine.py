"""Sines of trained frequencies: sin(f_1 x + p_1), ..., sin(f_G x + p_G).

Papers: Sitzmann et al., *Implicit Neural Representations with Periodic Activation Functions*,
arXiv 2006.09661; in a Kolmogorov-Arnold layer: SineKAN, arXiv 2407.04149.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kan_impls.basis.base import Pointwise, in_columns, register


@register
@dataclass(frozen=True)
class SineBasis(Pointwise):
    """The sine of `grid_size` frequencies, each with a phase.

    Domain: all real numbers. Parameters: `frequencies`, which may be trained, and `phases`,
    `grid_size` numbers for each set of inputs. In float32 an angle would be wrong by as many
    roundings as it has radians: it is taken in float64.
    """

    grid_size: int

    params = ("frequencies", "phases")
    trained = ("frequencies",)
    standard = (({"grid_size": 5}, False, False),)
    # Angles and sines in float64, and the latter as they are used; slopes and gradients beside.
    tensors_at_once = 7

    @property
    def num_basis(self) -> int:
        return self.grid_size

    @property
    def param_sizes(self) -> tuple[int, ...]:
        return (self.grid_size, self.grid_size)

    @property
    def cuda(self) -> str:
        return f"Sines<{self.grid_size}>"

    def functions(self, x: Tensor, *params: Tensor) -> Tensor:
        return _angle(x, *params).sin().to(x.dtype)

    def slopes(self, x: Tensor, *params: Tensor) -> Tensor:
        return self._cosines(x, *params).mul_(params[0])

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        (x,) = prepared
        by_phases = self._cosines(x, *(in_columns(param, x) for param in params)).mul_(grad_phi)
        grads[1].add_(by_phases.sum(2).t())
        grads[0].add_(by_phases.mul_(x).sum(2).t())

    def _cosines(self, x: Tensor, *params: Tensor) -> Tensor:
        return _angle(x, *params).cos_().to(x.dtype)


def _angle(x: Tensor, frequencies: Tensor, phases: Tensor) -> Tensor:
    return x.double() * frequencies.double() + phases.double()
