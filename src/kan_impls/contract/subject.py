"""What the contract knows of a layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kan_impls.contract.passes import Passes, own_grads, run
from kan_impls.variant import Variant

# What is kept for backward, in numbers for each function of an input: splines of order 3 by the
# recurrence under autograd keep 11.
KEPT_PER_FUNCTION = 12

# By how much a basis may enlarge the rounding of its input, where its author does not say.
# Truncated powers at a grid of 50 do so by 3e4, and lose the digits that are lost there.
AMPLIFICATION = 1000

# A sum in another order, or a product of another shape: some roundings of 1.1e-16.
REORDERED = 1e-13
# Sums of some hundred terms of 1.1e-16 each, with room to spare.
FLOAT64 = 1e-10

# Sizes that no block of a kernel divides; in the second one a tensor of shape (batch, out, in) is
# three times what a function of an input may keep.
SIZES = ((3, 2), (13, 37))

Grads = Callable[[nn.Module], dict[str, Tensor]]
Build = Callable[..., nn.Module]


def in_float64(module: nn.Module, x: Tensor, grad_y: Tensor) -> Passes:
    """What the module's own formula gives where all of it is evaluated in float64."""
    return run(copy.deepcopy(module).double(), x.double(), grad_y.double())


@dataclass(frozen=True)
class Subject:
    """A layer at one size, and what is known of it.

    Args:
        name: what reports call it.
        build: `build(device=..., dtype=...)` makes it.
        in_features, out_features: its sizes.
        saved_per_input: numbers that it may keep for backward, for each number of x.
        reference: what its passes are compared with.
        prepare: brings a new layer to the values that it is tested at.
        grads_of: its gradients by the names that the reference uses.
        bound: of dtype and x, what rounding explains of a difference to the reference; relative.
        norms: of the module, x and grad_y, what errors of gradients are relative to, see `errors`.
        has_limits: whether the output has a limit where an input goes to infinity; None if nobody
            says.
        unused: names of parameters that the function does not depend on.
    """

    name: str
    build: Build
    in_features: int
    out_features: int
    saved_per_input: Callable[[], float]
    reference: Callable[[nn.Module, Tensor, Tensor], Passes] = in_float64
    prepare: Callable[[nn.Module], nn.Module] = lambda module: stirred(module).eval()
    grads_of: Grads = own_grads
    bound: Callable[[torch.dtype, Tensor], float] = field(
        default=lambda dtype, x: usual_bound(dtype, x)
    )
    norms: Callable[[nn.Module, Tensor, Tensor], Mapping[str, float] | None] = (
        lambda module, x, grad_y: None
    )
    has_limits: bool | None = None
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{self.in_features}x{self.out_features}"

    def layer(self, device: torch.device, dtype: torch.dtype = torch.float64) -> nn.Module:
        """A new layer, ready to be tested."""
        return self.prepare(self.build(device=device, dtype=dtype))

    def inputs(self, module: nn.Module, *leading: int, scale: float = 0.8) -> tuple[Tensor, Tensor]:
        """x and the gradient of the output; at the default scale one x in five is outside
        [-1, 1]."""
        x = scale * random_like(module, *leading, self.in_features)
        return x, random_like(module, *leading, self.out_features)

    def run(self, module: nn.Module, x: Tensor, grad_y: Tensor, forward: Any = None) -> Passes:
        """Forward and backward, by another callable than the module if given."""
        return run(module, x, grad_y, forward, self.grads_of)

    def used(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The trained parameters that the function depends on, by name."""
        return {
            name: value
            for name, value in module.named_parameters()
            if value.requires_grad and name.rpartition(".")[2] not in self.unused
        }


def usual_bound(dtype: torch.dtype, x: Tensor) -> float:
    """What rounding explains, relative to the norm, of a layer that nobody states more of."""
    if dtype == torch.float64:
        return FLOAT64
    if dtype == torch.bfloat16:
        return 32 * 2**-9  # every operation of a basis rounds, each to 2^-9
    return 4 * 2**-24 * AMPLIFICATION


def random_like(module: nn.Module, *shape: int) -> Tensor:
    """Normal values in the module's dtype and on its device; float32 on a CPU if it has none."""
    like = next(module.parameters(), torch.zeros(()))
    return torch.randn(*shape, dtype=torch.float64).to(like)


def stirred(module: nn.Module) -> nn.Module:
    """Change every trained parameter by some 10%, and those that are 0 by 0.1: start values can be
    such that an error does not show.

    Signs stay, because a width or a scale may have to be positive.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                noise = 0.1 * torch.randn(parameter.shape, dtype=torch.float64).to(parameter)
                value = parameter.detach()
                parameter.copy_(
                    torch.where(value == 0, noise, value * (1 + noise.clamp(-0.5, 0.5)))
                )
    return module


def subjects_of(variant: Variant) -> list[Subject]:
    """A variant that somebody brought, at both of `SIZES`.

    One that says that it is fused keeps nothing but its input for backward.
    """

    def build(in_features: int, out_features: int, **where: Any) -> nn.Module:
        torch.manual_seed(0)
        return variant.layer(in_features, out_features, **variant.reference_config, **where)

    def kept() -> float:
        if variant.is_fused:
            return 0
        return KEPT_PER_FUNCTION * variant.functions_per_input(variant.reference_config)

    return [
        Subject(
            variant.name,
            lambda sizes=sizes, **where: build(*sizes, **where),
            *sizes,
            saved_per_input=kept,
        )
        for sizes in SIZES
    ]
