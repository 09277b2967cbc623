"""What a forward and a backward pass give, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]

# Norms below count as this one: float32 and bfloat16 hold no number below 1e-38 with all its
# digits, and an error within the bound of a smaller norm might be one.
LEAST_NORM = 1e-30


class Passes(NamedTuple):
    """The output, the gradient of x, and those of the parameters by name."""

    y: Array
    grad_x: Array
    grads: dict[str, Array]


def to_numpy(tensor: Tensor) -> Array:
    """The values in float64, on the CPU."""
    values: Array = tensor.detach().double().cpu().numpy()
    return values


def own_grads(module: nn.Module) -> dict[str, Tensor]:
    """The gradients of the parameters that have one, by name."""
    named = module.named_parameters()
    return {name: value.grad for name, value in named if value.grad is not None}


def run(
    module: nn.Module,
    x: Tensor,
    grad_y: Tensor,
    forward: Callable[[Tensor], Tensor] | None = None,
    grads_of: Callable[[nn.Module], dict[str, Tensor]] = own_grads,
) -> Passes:
    """Forward and backward.

    Args:
        module: whose parameters get gradients.
        x: the input.
        grad_y: the gradient of the output.
        forward: what is called in place of the module.
        grads_of: the gradients of the module, by the names that they are compared by.
    """
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = (module if forward is None else forward)(x)
    y.backward(grad_y.to(y.dtype))
    grads = {name: to_numpy(grad) for name, grad in grads_of(module).items()}
    grad_x = np.zeros(tuple(x.shape)) if x.grad is None else to_numpy(x.grad)
    return Passes(to_numpy(y), grad_x, grads)


def relative_error(actual: Array, expected: Array, at_least: float = 0) -> float:
    """Norm of the difference over the norm, or over `at_least` if that is more; 0 where
    both are empty or zero."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}; expected {expected.shape}"
    difference = np.linalg.norm(actual - expected)
    return float(difference / max(np.linalg.norm(expected), at_least)) if difference else 0.0


def errors(
    actual: Passes, expected: Passes, norms: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The relative errors of the output and of each gradient, by what they are of.

    Args:
        actual, expected: of the same gradients.
        norms: of a gradient, the norm that its error is relative to if that is more than its own.
    """
    assert actual.grads.keys() == expected.grads.keys(), (
        f"gradients of {sorted(actual.grads)}; expected those of {sorted(expected.grads)}"
    )
    found = {
        "y": relative_error(actual.y, expected.y, LEAST_NORM),
        "grad_x": relative_error(actual.grad_x, expected.grad_x, LEAST_NORM),
    }
    for name, grad in expected.grads.items():
        at_least = max(norms[name] if norms else 0, LEAST_NORM)
        found[f"grad of {name}"] = relative_error(actual.grads[name], grad, at_least)
    return found


def assert_close(
    actual: Passes, expected: Passes, bound: float, norms: Mapping[str, float] | None = None
) -> None:
    """The relative errors of the output and of each gradient are at most `bound`; the
    failure names those that are not. `norms` are as of `errors`."""
    found = errors(actual, expected, norms)
    above = {name: float(f"{error:.2g}") for name, error in found.items() if not error <= bound}
    assert not above, f"relative errors above {bound:.2g}: {above}"
