"""The clauses about numbers: what a layer computes, at any input, and what it keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch.autograd.gradcheck import GradcheckError

from kan_impls.contract.clause import BATCH, clause
from kan_impls.contract.passes import Passes, assert_close
from kan_impls.contract.subject import REORDERED, Subject
from perfgate.measure.memory import measure_saved_bytes


@clause(
    "it can be built and called, and its output has the shape (batch, out_features)",
    "build a torch.nn.Module from (in_features, out_features) that returns such a tensor",
)
def can_be_called(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device, torch.float32)
    y = module(subject.inputs(module, BATCH)[0])
    assert isinstance(y, torch.Tensor), f"it returned a {type(y).__name__}"
    expected = (BATCH, subject.out_features)
    assert tuple(y.shape) == expected, f"it returned {tuple(y.shape)}; expected {expected}"


@clause(
    "the output has the dtype of x",
    "make no tensor of a fixed dtype on the way",
)
def keeps_the_dtype(subject: Subject, device: torch.device) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        module = subject.layer(device, dtype)
        y = module(subject.inputs(module, BATCH)[0])
        assert y.dtype == dtype, f"it returned {y.dtype} for an x of {dtype}"


@clause(
    "first and second derivatives are those of finite differences",
    "correct the backward pass, or let autograd derive it",
)
def derivatives_are_finite_differences(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    named = subject.used(module)
    x, _ = subject.inputs(module, 2)

    def function(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.func.functional_call(
            module, dict(zip(named, parameters, strict=True)), x
        )
        return y

    arguments = (x.requires_grad_(), *(p.detach().requires_grad_() for p in named.values()))
    # Larger layers along one random direction: their whole Jacobian would take a minute.
    is_small = subject.in_features * subject.out_features <= 10
    names = ["x", *named, "the output's gradient"]
    for order, check in (
        ("first", torch.autograd.gradcheck),
        ("second", torch.autograd.gradgradcheck),
    ):
        try:
            check(function, arguments, fast_mode=not is_small)
        except GradcheckError as error:
            raise AssertionError(_wrong_derivative(order, str(error), names)) from error


def _wrong_derivative(order: str, said: str, names: Sequence[str]) -> str:
    """What torch says of a derivative, in the names of the layer."""
    number = re.search(r"with respect to input (\d+)", said)
    if number is None:
        return f"of the {order} derivatives torch says: {said.strip().partition(chr(10))[0]}"
    return f"the {order} derivative by {names[int(number[1])]} is another one"


@clause(
    "the gradients of a batch are the sums of those of its rows",
    "sum over all rows, without a race between threads",
)
def gradients_add_up_over_rows(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    x, grad_y = subject.inputs(module, 4 * BATCH)
    rows = [subject.run(module, x[i : i + 1], grad_y[i : i + 1]) for i in range(len(x))]
    grads = {name: sum(row.grads[name] for row in rows) for name in rows[0].grads}
    summed = Passes(
        np.concatenate([row.y for row in rows]),
        np.concatenate([row.grad_x for row in rows]),
        {name: np.asarray(grad) for name, grad in grads.items()},
    )
    # A gradient is a sum over all rows, each of which brings roundings of its own.
    assert_close(subject.run(module, x, grad_y), summed, 10 * REORDERED)


@clause(
    "output and gradients in float32 are those in float64 but for rounding",
    "avoid differences of large numbers, and compute what must be exact in float64",
)
def float32_agrees(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device, torch.float32)
    x, grad_y = subject.inputs(module, BATCH)
    expected = subject.reference(module, x, grad_y)
    norms = subject.norms(module, x, grad_y)
    actual = subject.run(module, x, grad_y)
    assert_close(actual, expected, subject.bound(torch.float32, x), norms)


@clause(
    "output and gradients in bfloat16 are those in float64 but for rounding",
    "evaluate the basis in float32",
)
def bfloat16_agrees(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device, torch.bfloat16)
    x, grad_y = subject.inputs(module, BATCH)
    expected = subject.reference(module, x, grad_y)
    assert_close(subject.run(module, x, grad_y), expected, subject.bound(torch.bfloat16, x))


@clause(
    "any leading shape is a batch",
    "take x of shape (..., in_features), flattened by x.reshape(-1, in_features) where need be",
)
def any_leading_shape_is_a_batch(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    for leading in ((), (1,), (2, 3), (2, 1, 2), (2, 0, 3)):
        x, grad_y = subject.inputs(module, *leading)
        actual = subject.run(module, x, grad_y)
        flat = x.reshape(-1, x.shape[-1]), grad_y.reshape(-1, grad_y.shape[-1])
        expected = subject.run(module, *flat)
        assert actual.y.shape == grad_y.shape, f"it returned {actual.y.shape} for {tuple(x.shape)}"
        shaped = Passes(
            expected.y.reshape(grad_y.shape), expected.grad_x.reshape(x.shape), expected.grads
        )
        assert_close(actual, shaped, REORDERED)


@clause(
    "an empty batch gives an empty output and gradients of 0",
    "divide by no number of rows, and let no kernel start without work",
)
def empty_batch(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    full = subject.run(module, *subject.inputs(module, BATCH))
    actual = subject.run(module, *subject.inputs(module, 0))
    assert actual.y.shape == (0, subject.out_features), f"the output is {actual.y.shape}"
    assert actual.grad_x.shape == (0, subject.in_features), f"that of x is {actual.grad_x.shape}"
    assert actual.grads.keys() == full.grads.keys(), "other parameters have a gradient"
    wrong = [name for name, grad in actual.grads.items() if np.any(grad)]
    assert not wrong, f"gradients that are not 0: {wrong}"


@clause(
    "strides of x and of the output's gradient do not matter",
    "call contiguous() before a kernel takes addresses, and reshape where view fails",
)
def strides_do_not_matter(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    for of in ("x", "the output's gradient"):
        for stride in ("0", "2", "transposed"):
            x, grad_y = subject.inputs(module, BATCH)
            given = {"x": x, "the output's gradient": grad_y}
            if stride == "0":  # what `.sum()` sends back
                given[of] = given[of][:1, :1].clone().expand_as(given[of])
            plain = subject.run(module, *(value.clone().contiguous() for value in given.values()))
            if stride == "2":
                given[of] = given[of].repeat_interleave(2, dim=1)[:, ::2]
            elif stride == "transposed":
                given[of] = given[of].t().contiguous().t()
            try:
                assert_close(subject.run(module, *given.values()), plain, REORDERED)
            except Exception as error:
                raise AssertionError(f"with a stride of {stride} in {of}: {error}") from error


@clause(
    "output and gradients are finite however large x is",
    "evaluate by a form that stays finite, such as a recurrence in place of an arc cosine",
)
def is_finite_far_outside(subject: Subject, device: torch.device) -> None:
    for dtype in (torch.float64, torch.float32):
        for scale in (30.0, 1e4):
            module = subject.layer(device, dtype)
            actual = subject.run(module, *subject.inputs(module, BATCH, scale=scale))
            values = {"y": actual.y, "grad_x": actual.grad_x, **actual.grads}
            wrong = [name for name, value in values.items() if not np.isfinite(value).all()]
            assert not wrong, f"at |x| of {scale:g} in {dtype} these are NaN or infinite: {wrong}"


@clause(
    "a NaN or infinite input spoils its row and no other",
    "mix no rows, and do not let a comparison or a mask hide a NaN",
)
def non_finite_input_spoils_its_row(subject: Subject, device: torch.device) -> None:
    for value in (float("nan"), float("inf"), float("-inf")):
        module = subject.layer(device, torch.float32)
        x, grad_y = subject.inputs(module, BATCH)
        clean = subject.run(module, x, grad_y)
        x[4, -1] = value
        spoilt = subject.run(module, x, grad_y)
        if subject.has_limits and not np.isnan(value):
            x[4, -1] = np.sign(value) * 1e30
            limit = subject.run(module, x, grad_y)
            assert np.isfinite(limit.y[4]).all(), f"at {x[4, -1]:g} the output is not finite"
            assert np.array_equal(spoilt.y[4], limit.y[4]), f"no limit of y at {value}"
            assert np.array_equal(spoilt.grad_x[4], limit.grad_x[4]), f"no limit of grad_x: {value}"
        elif np.isnan(value) or subject.has_limits is not None:
            assert not np.isfinite(spoilt.y[4]).any(), f"{value} gave the output {spoilt.y[4]}"
        others = np.arange(BATCH) != 4
        for of in ("y", "grad_x"):
            same = np.array_equal(getattr(spoilt, of)[others], getattr(clean, of)[others])
            assert same, f"{value} in one row changed {of} of others"


@clause(
    "no more is kept for backward than stated",
    "keep x alone and evaluate again, or keep no tensor of shape (batch, out, in)",
)
def saves_no_more_than_stated(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    x, _ = subject.inputs(module, 64)
    x.requires_grad_()
    saved = measure_saved_bytes(lambda: module(x), (x, *module.parameters(), *module.buffers()))
    # Besides it, the product of weights and scales, which the batch does not enlarge.
    weights = sum(parameter.numel() for parameter in module.parameters())
    per_input = subject.saved_per_input()
    allowed = 8 * (per_input * x.numel() + (weights if per_input else 0))
    assert saved <= allowed, (
        f"a batch of {len(x)} keeps {saved:,} bytes for backward; {allowed:,.0f} are allowed, "
        f"{per_input:g} numbers for each of x"
    )
