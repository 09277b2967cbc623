"""Running a module, and comparing it with an oracle."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from kan_impls import upstream
from tests.reference import Array, Passes, Reference


def randomize(module: nn.Module) -> nn.Module:
    """Give every parameter normal values: initial biases are 0, and initial splines so
    small that an error in them would hide behind the base branch."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    return module


def to_numpy(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()


def published(module: nn.Module) -> dict[str, Array]:
    """Parameters and buffers under their published keys, for an oracle."""
    return {key: to_numpy(value) for key, value in upstream.export(module).items()}


def random_like(module: nn.Module, *shape: int) -> Tensor:
    """Normal values in the module's dtype and on its device."""
    like = next(module.parameters())
    return torch.randn(*shape, dtype=torch.float64).to(like)


def run(module: nn.Module, x: Tensor, grad_y: Tensor) -> Passes:
    """Forward and backward, as float64 arrays under published keys."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(grad_y.to(y.dtype))
    grads = upstream.export(module, grads=True)
    return Passes(to_numpy(y), to_numpy(x.grad), {key: to_numpy(g) for key, g in grads.items()})


def run_ref(reference: Reference, module: nn.Module, x: Tensor, grad_y: Tensor) -> Passes:
    """The oracle at the module's own (rounded) parameters."""
    return reference(to_numpy(x), published(module), to_numpy(grad_y))


def relative_error(actual: Array, expected: Array) -> float:
    """Norm of the difference over the norm; 0 where both are empty or zero."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = np.linalg.norm(actual - expected)
    return float(difference / np.linalg.norm(expected)) if difference else 0.0


def errors(actual: Passes, expected: Passes) -> dict[str, float]:
    """The relative error of the output and of each gradient."""
    assert actual.grads.keys() == expected.grads.keys()
    return {
        "y": relative_error(actual.y, expected.y),
        "grad_x": relative_error(actual.grad_x, expected.grad_x),
        **{
            f"grad of {key}": relative_error(actual.grads[key], expected.grads[key])
            for key in expected.grads
        },
    }


def assert_close(actual: Passes, expected: Passes, bound: float) -> None:
    """Each relative error is at most `bound`; the failure names those that are not."""
    above = {key: error for key, error in errors(actual, expected).items() if not error <= bound}
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
