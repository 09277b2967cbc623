"""The contract on one layer, as a function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kan_impls.contract.clause import Clause
from kan_impls.contract.clauses import CLAUSES
from kan_impls.contract.passes import Passes, assert_close, own_grads, to_numpy
from kan_impls.contract.subject import FLOAT64, KEPT_PER_FUNCTION, Subject

Reference = Callable[[Tensor], Tensor]


class ContractError(AssertionError):
    """A layer does not meet the contract; the message names each clause that fails, and why."""


def check_layer(
    layer: nn.Module,
    reference: Reference | None = None,
    *,
    in_features: int | None = None,
    out_features: int | None = None,
    saved_per_input: float | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Hold a layer, as it is and in eval mode, to the whole contract. The layer stays as it is.

    Args:
        layer: from `(..., in_features)` to `(..., out_features)`.
        reference: what the layer must compute, written in another way. It is called in float64. If
            it is a module, the gradients of parameters that have the same names are compared, too.
        in_features, out_features: sizes; by default the layer's attributes of these names.
        saved_per_input: how many numbers the layer may keep for backward for each number of x; by
            default 12 for each parameter of an edge.
        device: where.

    Raises:
        ContractError: it does not meet the contract.
        TypeError, ValueError: the layer is no module, or its sizes are not known.
    """
    subject = _subject(layer, reference, in_features, out_features, saved_per_input)
    clauses = CLAUSES if reference is None else (_against(reference), *CLAUSES)
    problems = [clause.problem(subject, torch.device(device)) for clause in clauses]
    found = [problem for problem in problems if problem]
    if found:
        raise ContractError(
            f"{len(found)} of {len(clauses)} clauses are not met:\n" + "\n".join(found)
        )


def _subject(
    layer: nn.Module,
    reference: Reference | None,
    in_features: int | None,
    out_features: int | None,
    saved_per_input: float | None,
) -> Subject:
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"check_layer got a {type(layer).__name__}; expected a torch.nn.Module: pass the "
            "layer, not its class or factory"
        )
    sizes = (
        _size(layer, "in_features", in_features),
        _size(layer, "out_features", out_features),
    )
    edges = sizes[0] * sizes[1]
    functions = max(1, round(sum(p.numel() for p in layer.parameters()) / edges))
    kept = KEPT_PER_FUNCTION * functions if saved_per_input is None else saved_per_input

    def build(device: torch.device, dtype: torch.dtype) -> nn.Module:
        return copy.deepcopy(layer).to(device, dtype)

    return Subject(
        type(layer).__name__,
        build,
        *sizes,
        saved_per_input=lambda: kept,
        prepare=nn.Module.eval,
    )


def _size(layer: nn.Module, name: str, given: int | None) -> int:
    size = getattr(layer, name, None) if given is None else given
    if not isinstance(size, int):
        raise ValueError(
            f"{type(layer).__name__} has no {name}; expected the size: pass {name}=..."
        )
    return size


def _against(reference: Reference) -> Clause:
    """The clause that the layer computes what the reference does."""

    def check(subject: Subject, device: torch.device) -> None:
        module = subject.layer(device)
        x, grad_y = subject.inputs(module, 9)
        actual = subject.run(module, x, grad_y)
        expected = _passes_of(reference, x, grad_y)
        shared = actual.grads.keys() & expected.grads.keys()
        assert_close(_only(shared, actual), _only(shared, expected), FLOAT64)

    return Clause(
        "output and gradients are those of the reference",
        check,
        "correct the layer, or the reference",
    )


def _passes_of(reference: Reference, x: Tensor, grad_y: Tensor) -> Passes:
    definition: Any = reference
    if isinstance(reference, nn.Module):
        definition = copy.deepcopy(reference).to(x)
    x = x.detach().requires_grad_()
    y = definition(x)
    y.backward(grad_y)
    grads = own_grads(definition) if isinstance(definition, nn.Module) else {}
    assert x.grad is not None, "the reference does not depend on x"
    return Passes(
        to_numpy(y), to_numpy(x.grad), {name: to_numpy(grad) for name, grad in grads.items()}
    )


def _only(names: set[str], passes: Passes) -> Passes:
    return passes._replace(grads={name: passes.grads[name] for name in sorted(names)})
