"""Functions of the distance from a centre: Gaussians, and the reflectional switch.

Papers: FastKAN, arXiv 2405.06721, for the Gaussians; BSRBF-KAN, arXiv 2406.11173, describes the
switch `sech^2(x - c)` of FasterKAN.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch, add_slopes, in_columns, register
from kan_impls.checks import check_interval


def write_centres(out: Tensor, low: float, high: float) -> None:
    """Write equally spaced ones, from low to high; shape `(num_grids,)`."""
    out.copy_(torch.linspace(low, high, len(out), dtype=torch.float64, device=out.device))


class RadialBasis(Basis):
    """One bump around each of `num_grids` centres, a function of `(x - centre) / width`.

    Domain: all real numbers; far from all centres the functions are 0. Parameter: `centres`,
    `num_grids` numbers for each set of inputs.
    """

    num_grids: int
    width: float
    bump: ClassVar[str]  # the struct of csrc/bases.cuh

    params = trained = ("centres",)

    @property
    def num_basis(self) -> int:
        return self.num_grids

    @property
    def param_sizes(self) -> tuple[int, ...]:
        return (self.num_grids,)

    @property
    def constants(self) -> tuple[float, ...]:
        """Widths in a unit."""
        return (1 / self.width,)

    @property
    def cuda(self) -> str:
        return f"Radial<{self.bump}, {self.num_grids}>"

    @abstractmethod
    def values_at(self, distance: Tensor) -> Tensor:
        """The definition, of distances in widths."""

    @staticmethod
    @abstractmethod
    def write_rates(distance: Tensor, out: Tensor) -> None:
        """Write -1/2 of the logarithmic derivatives by the distance; `out` may be the distance."""

    @staticmethod
    @abstractmethod
    def become_values(distance: Tensor) -> None:
        """`values_at`, in place; it need not suit autograd."""

    def elements_held(self, with_slopes: bool) -> int:
        return self.num_grids + 2 if with_slopes else 0  # the slopes, and a sum over them

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.values_at((x.unsqueeze(-1) - params[0].to(x.dtype)) / self.width)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        """`Basis.evaluate`; the slopes are to be multiplied by `-2 / width`."""
        (x,) = prepared
        torch.sub(x, in_columns(params[0], x), out=values).mul_(1 / self.width)
        slopes = None
        if with_slopes:
            slopes = scratch.empty(values, values.shape)
            self.write_rates(values, slopes)
        self.become_values(values)
        return None if slopes is None else slopes.mul_(values)

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi, -2 / self.width)

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        (x,) = prepared
        own = torch.empty_like(x)
        for k in range(self.num_grids):  # one after the other: in less memory
            torch.sub(x, params[0][:, k : k + 1].to(x.dtype), out=own).mul_(1 / self.width)
            self.write_rates(own, own)
            # The derivative by the centre is the opposite of that by x.
            own.mul_(values[k]).mul_(grad_phi[k])
            grads[0][:, k].add_(own.sum(1), alpha=2 / self.width)


@register
@dataclass(frozen=True)
class GaussianBasis(RadialBasis):
    """`exp(-z^2)` of the distance z in widths."""

    num_grids: int
    width: float

    bump = "Gaussian"
    standard = (({"num_grids": 9, "width": 0.5}, True, False),)

    @classmethod
    def over(cls, grid_min: float, grid_max: float, num_grids: int) -> GaussianBasis:
        """Those as wide as the distance of two of the equally spaced centres.

        Raises:
            ValueError: fewer than two centres, or ends that are no interval.
        """
        if num_grids < 2:
            raise ValueError(
                f"num_grids is {num_grids}; expected 2 or more, because the functions are as wide "
                "as the distance of two centres: pass more of them"
            )
        low, high = check_interval("(grid_min, grid_max)", (grid_min, grid_max))
        return cls(num_grids, (high - low) / (num_grids - 1))

    def misfit(self, *params: Tensor) -> str | None:
        """Equally spaced centres whose distance is not the width; those that were trained are not
        equally spaced."""
        for centres in params[0].double():
            low, high = centres[0].item(), centres[-1].item()
            step = (high - low) / (self.num_grids - 1)
            places = torch.linspace(low, high, self.num_grids, dtype=torch.float64)
            are_equal = (centres.cpu() - places).abs().max().item() <= abs(step) / 100
            if are_equal and abs(step - self.width) > self.width / 100:
                return (
                    f"the centres from {low:.6g} to {high:.6g} are {step:.3g} apart; expected "
                    f"{self.width:.3g}, the width of the functions by grid_min and grid_max: build "
                    f"the module with the grid of the checkpoint"
                )
        return None

    def values_at(self, distance: Tensor) -> Tensor:
        return distance.square().neg().exp()

    @staticmethod
    def write_rates(distance: Tensor, out: Tensor) -> None:
        out.copy_(distance)

    @staticmethod
    def become_values(distance: Tensor) -> None:
        distance.square_().neg_().exp_()


@register
@dataclass(frozen=True)
class SwitchBasis(RadialBasis):
    """`sech^2(z)` of the distance z in widths; as `1 - tanh^2(z)` it would lose its digits."""

    num_grids: int
    width: float

    bump = "Switch"
    standard = (({"num_grids": 10, "width": 1.0}, False, False),)

    def values_at(self, distance: Tensor) -> Tensor:
        # By sigmoids: where cosh overflows its derivative would be NaN.
        return 4 * (2 * distance).sigmoid() * (-2 * distance).sigmoid()

    @staticmethod
    def write_rates(distance: Tensor, out: Tensor) -> None:
        torch.tanh(distance, out=out)

    @staticmethod
    def become_values(distance: Tensor) -> None:
        distance.cosh_().reciprocal_().square_()
