"""Running a module, and comparing it with an oracle."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from kan_impls import get_variant, upstream
from tests.reference import Array, Passes, Reference

# The figure: sums of some hundred terms of 1.1e-16 each, with room to spare.
FLOAT64 = 1e-10


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


def to_numpy(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()


def published(module: nn.Module) -> dict[str, Array]:
    """Parameters and buffers under their published keys, for an oracle."""
    return {key: to_numpy(value) for key, value in upstream.export(module).items()}


def random_like(module: nn.Module, *shape: int) -> Tensor:
    """Normal values in the module's dtype and on its device."""
    like = next(module.parameters())
    return torch.randn(*shape, dtype=torch.float64).to(like)


def run(module: nn.Module, x: Tensor, grad_y: Tensor, forward=None) -> Passes:
    """Forward (by another callable than the module if given) and backward, as float64
    arrays under published keys."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = (module if forward is None else forward)(x)
    y.backward(grad_y.to(y.dtype))
    grads = upstream.export(module, grads=True)
    return Passes(to_numpy(y), to_numpy(x.grad), {key: to_numpy(g) for key, g in grads.items()})


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


def relative_error(actual: Array, expected: Array, at_least: float = 0) -> float:
    """Norm of the difference over the norm, or over `at_least` if that is more; 0 where
    both are empty or zero."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = np.linalg.norm(actual - expected)
    return float(difference / max(np.linalg.norm(expected), at_least)) if difference else 0.0


LEAST_NORM = 1e-30


def assert_close(
    actual: Passes, expected: Passes, bound: float, norms: Mapping[str, float] | None = None
) -> None:
    """The relative errors of the output and of each gradient are at most `bound`; the
    failure names those that are not. Optional are the `norms_of_terms`.

    A norm below `LEAST_NORM` counts as that: float32 and bfloat16 hold no number below 1e-38 with
    all its digits, and an error within the bound of a smaller norm might be one.
    """
    assert actual.grads.keys() == expected.grads.keys()
    found = {
        "y": relative_error(actual.y, expected.y, LEAST_NORM),
        "grad_x": relative_error(actual.grad_x, expected.grad_x, LEAST_NORM),
    }
    for key, grad in expected.grads.items():
        at_least = max(norms[key] if norms else 0, LEAST_NORM)
        found[f"grad of {key}"] = relative_error(actual.grads[key], grad, at_least)
    above = {key: error for key, error in found.items() if not error <= bound}
    assert not above, f"relative errors above {bound:.2g}: {above}"


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
