"""ReLU-KAN: squared products of two ReLUs, bumps between a start and an end that are trained.

`y_o = b_o + sum_ik w_oik (r relu(e_ik - x_i) relu(x_i - s_ik))^2`, `r = 4 g^2 / (order + 1)^2`

Paper: arXiv 2406.02075. Published implementation: https://github.com/quiqi/relu_kan, whose
parameter names, shapes and initialisation are kept. Its bumps start on a grid of [0, 1]. It takes
inputs of shape (batch, in_features, 1) alone, this one any leading shape. Its weights have the
shape (out, 1, functions, in) of a convolution, but are meant input by input: it reshapes a tensor
(in, functions) to (functions, in) without a transposition. Checkpoints are read and written so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch, add_slopes, in_columns, register
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


@register
@dataclass(frozen=True)
class ReluBasis(Basis):
    """`(r relu(end - x) relu(x - start))^2` for `grid_size + order` starts and ends.

    Domain: all real numbers; a function is 0 outside its start and end, and everywhere if the end
    comes first. Parameters: `starts` and `ends`, `num_basis` numbers each for each set of inputs.
    """

    grid_size: int
    order: int

    params = trained = ("starts", "ends")
    standard = (({"grid_size": 5, "order": 5}, False, False),)

    @property
    def num_basis(self) -> int:
        return self.grid_size + self.order

    @property
    def param_sizes(self) -> tuple[int, ...]:
        return self.num_basis, self.num_basis

    def tested_params(self, normal: Sequence[Any]) -> Sequence[Any]:
        """Ends behind their starts, nearly all: the other functions are 0."""
        starts, ends = normal
        return starts - 2, ends + 2

    @property
    def factor(self) -> float:
        """r, with which the initial functions have the maximum 1."""
        return 4 * self.grid_size**2 / (self.order + 1) ** 2

    @property
    def constants(self) -> tuple[float, ...]:
        return (self.factor,)

    @property
    def cuda(self) -> str:
        return f"ReluBumps<{self.num_basis}>"

    def elements_held(self, with_slopes: bool) -> int:
        # Distances from the ends, and for the slopes differences of distances, and some sums.
        return 2 * self.num_basis + 3 if with_slopes else self.num_basis

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        starts, ends = (param.to(x.dtype) for param in params)
        x = x.unsqueeze(-1)
        return (self.factor * ((x - starts).relu() * (ends - x).relu())).square()

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        """`Basis.evaluate`; the slopes are to be multiplied by twice the factor."""
        (x,) = prepared
        left, *differences = scratch.empty(x, (1 + with_slopes, *values.shape)).unbind()
        starts, ends = (in_columns(param, x) for param in params)
        torch.sub(x, starts, out=values).relu_()
        torch.sub(ends, x, out=left).relu_()
        if with_slopes:
            torch.sub(left, values, out=differences[0])
        values.mul_(left).mul_(self.factor)
        slopes = differences[0].mul_(values) if with_slopes else None
        values.square_()
        return slopes

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi, 2 * self.factor)

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        (x,), scale = prepared, 2 * self.factor**2
        for k in range(self.num_basis):  # one after the other: in less memory
            start, end = (param[:, k : k + 1].to(x.dtype) for param in params)
            since, left = (x - start).relu_(), (end - x).relu_()
            both = (since * left).mul_(grad_phi[k])
            grads[0][:, k].add_(left.mul_(both).sum(1), alpha=-scale)
            grads[1][:, k].add_(since.mul_(both).sum(1), alpha=scale)


def draw(layer: KANLayer) -> None:
    """Starts from `-order / grid_size` on, a step of `1 / grid_size` apart, ends `order + 1` steps
    later; weights and bias as those of a convolution."""
    size, order = layer.options["grid_size"], layer.options["order"]
    layer.start_uniform((layer.in_features * (size + order)) ** -0.5, "weight", "bias")
    steps = torch.arange(-order, size, dtype=torch.float64)
    layer.start("starts", lambda value: value.copy_(steps / size))
    layer.start("ends", lambda value: value.copy_((steps + order + 1) / size))


SPEC = Spec(
    formula="b + sum_ik w_oik (r relu(e_ik - x_i) relu(x_i - s_ik))^2",
    paper="arXiv 2406.02075",
    basis=ReluBasis,
    weight=Stored("equal_size_conv.weight", "o (i k)", fused="k i o", shape="o 1 k i"),
    bias=Stored("equal_size_conv.bias", "o", fused="o"),
    params={
        "starts": Stored("phase_low", "i k", fused="i k"),
        "ends": Stored("phase_height", "i k", fused="i k"),
    },
    init=draw,
    options={"grid_size": 5, "order": 3},
    size="grid_size",
    reference_config={"grid_size": 5, "order": 5},
)

VARIANTS = both_forms("relu_kan", SPEC)
