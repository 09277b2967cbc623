"""Running a module, and comparing it with an oracle."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from kan_impls import get_variant, upstream
from kan_impls.contract.passes import assert_close as assert_close
from kan_impls.contract.passes import relative_error as relative_error
from kan_impls.contract.passes import run as contract_run
from kan_impls.contract.passes import to_numpy as to_numpy
from kan_impls.contract.subject import FLOAT64 as FLOAT64
from kan_impls.contract.subject import REORDERED as REORDERED
from kan_impls.contract.subject import Subject
from kan_impls.contract.subject import random_like as random_like
from tests.reference import Array, Passes, Reference

published_grads = partial(upstream.export, grads=True)


def randomize(module: nn.Module) -> nn.Module:
    """Give every parameter normal values: initial biases are 0, and initial splines so
    small that an error in them would hide behind the base branch.

    Those that start frozen are trained. A BatchNorm takes its stored mean and variance, so that no
    row depends on another.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    for parameter in used_parameters(module).values():
        parameter.requires_grad_()
    return module.eval()


# What checkpoints have, and no formula uses: without a gradient.
UNUSED = ("rbf_inv_denominator", "weight1")


def used_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the function of the module depends on, by name."""
    named = module.named_parameters()
    return {name: value for name, value in named if name.rpartition(".")[2] not in UNUSED}


def rounding_bound(case, x, dtype):
    """What rounding explains, relative to the norm of the result.

    A sum of K terms of random sign loses about sqrt(K) roundings at worst (products add
    up in float32 even for bfloat16, so that there it is the operands that are rounded),
    the basis `amplification` more. A result is composed of up to four such sums or factors.
    """
    if dtype == torch.float64:
        return FLOAT64
    if dtype == torch.bfloat16:
        return 8 * 2**-9  # basis, scaled weight, product and result, each at most twice
    functions = get_variant(case.name).functions_per_input(case.config)
    depth = max(len(x), case.config["in_features"] * functions)
    largest = float(x.abs().max())
    return 4 * 2**-24 * (depth**0.5 + case.row.amplification(case.config, largest))


def build(case, device, dtype=torch.float64):
    """The case's layer with normal parameters."""
    return randomize(case.create(device=device, dtype=dtype))


def inputs(case, module, *leading, scale=0.8):
    """x and a cotangent; at the default scale one x in five is outside [-1, 1]."""
    x = scale * random_like(module, *leading, case.config["in_features"])
    return x, random_like(module, *leading, case.config["out_features"])


def subject_of(case) -> Subject:
    """The case as the contract knows it: with its oracle, and what its row states."""
    # Which no limit passes, because it divides by the deviation of the row.
    is_normed = getattr(case.create(device="meta"), "layernorm", None) is not None
    return Subject(
        case.name,
        case.create,
        case.config["in_features"],
        case.config["out_features"],
        saved_per_input=lambda: case.row.saved_per_input(case.config),
        reference=partial(run_ref, case.row.layer_ref),
        prepare=randomize,
        grads_of=published_grads,
        bound=lambda dtype, x: rounding_bound(case, x, dtype),
        norms=partial(norms_of_terms, case.row.layer_ref),
        has_limits=case.row.has_limits and not is_normed,
        unused=UNUSED,
    )


def published(module: nn.Module) -> dict[str, Array]:
    """Parameters and buffers under their published keys, for an oracle."""
    return {key: to_numpy(value) for key, value in upstream.export(module).items()}


def run(module: nn.Module, x: Tensor, grad_y: Tensor, forward=None) -> Passes:
    """Forward (by another callable than the module if given) and backward, as float64
    arrays under published keys."""
    return contract_run(module, x, grad_y, forward, published_grads)


def run_ref(reference: Reference, module: nn.Module, x: Tensor, grad_y: Tensor) -> Passes:
    """The oracle at the module's own (rounded) parameters."""
    return reference(to_numpy(x), published(module), to_numpy(grad_y))


def norms_of_terms(
    reference: Reference, module: nn.Module, x: Tensor, grad_y: Tensor
) -> dict[str, float]:
    """For each parameter, the root of the sum of the squared norms of what each row adds to
    its gradient. Rows can cancel, in a single number down to nothing, and then the
    rounding error stays behind."""
    squares: Counter[str] = Counter()
    for row in range(len(x)):
        grads = run_ref(reference, module, x[row : row + 1], grad_y[row : row + 1]).grads
        squares.update({key: float((grad**2).sum()) for key, grad in grads.items()})
    return {key: square**0.5 for key, square in squares.items()}


def assert_same_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The module's state_dict is bit for bit `state`."""
    assert module.state_dict().keys() == state.keys()
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key]), key


@contextlib.contextmanager
def assert_unchanged(module: nn.Module):
    """Nothing in the block changes the module's parameters and buffers."""
    before = {key: value.clone() for key, value in module.state_dict().items()}
    yield
    assert_same_state(module, before)
