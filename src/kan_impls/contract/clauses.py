"""The clauses of the contract: each takes a subject and raises an AssertionError that says what is
wrong with it.

Every one draws its own inputs, so that none depends on another.
"""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.autograd.gradcheck import GradcheckError

from kan_impls.contract.passes import Passes, assert_close, relative_error, to_numpy
from kan_impls.contract.subject import REORDERED, Subject, random_like
from perfgate.measure.memory import measure_saved_bytes

BATCH = 9

Check = Callable[[Subject, torch.device], None]


@dataclass(frozen=True)
class Clause:
    """One demand of the contract.

    Args:
        name: the demand in words.
        check: raises where it is not met.
        remedy: what to do then.
    """

    name: str
    check: Check
    remedy: str

    def problem(self, subject: Subject, device: torch.device) -> str | None:
        """What is wrong with a subject, in words; None if nothing is."""
        torch.manual_seed(0)
        try:
            self.check(subject, device)
        except Exception as error:  # whatever somebody's layer raises
            found = str(error).strip() or "it is not met"
            if not isinstance(error, AssertionError):
                found = f"the layer raised {type(error).__name__}: {found}"
            return f"{subject}: expected that {self.name}; {found}. What to do: {self.remedy}."
        return None


CLAUSES: list[Clause] = []


def clause(name: str, remedy: str) -> Callable[[Check], Check]:
    """Makes a function a clause."""

    def add(check: Check) -> Check:
        CLAUSES.append(Clause(name, check, remedy))
        return check

    return add


# The first: without it no other can be met.
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


@clause(
    "gradients that nobody asks for do not change the others",
    "look at ctx.needs_input_grad for each gradient by itself",
)
def unwanted_gradients_change_nothing(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    x, grad_y = subject.inputs(module, BATCH)
    full = subject.run(module, x, grad_y)
    used = subject.used(module)
    for name, parameter in used.items():
        others = [p for p in used.values() if p is not parameter]
        wanted = torch.autograd.grad(module(x.detach()), parameter, grad_y)[0]
        module.zero_grad()
        for other in others:
            other.requires_grad_(False)
        alone = torch.autograd.grad(module(x.detach()), parameter, grad_y)[0]
        for other in others:
            other.requires_grad_(True)
        assert torch.equal(alone, wanted), f"the gradient of {name} alone is another one"
    module.requires_grad_(False)
    x.requires_grad_()
    grad_x = torch.autograd.grad(module(x), x, grad_y)[0]
    error = relative_error(to_numpy(grad_x), full.grad_x)
    assert error <= REORDERED, f"the gradient of x alone differs by {error:.1g}"


@clause(
    "forward-mode derivatives are those of torch.func",
    "give the autograd.Function a jvp, or build it of torch's operators",
)
def forward_mode(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    x, _ = subject.inputs(module, BATCH)
    tangent = random_like(module, *x.shape)
    expected = torch.func.jvp(module, (x,), (tangent,))[1]
    with forward_ad.dual_level():
        y = module(forward_ad.make_dual(x, tangent))
        found = forward_ad.unpack_dual(y).tangent
        again = forward_ad.unpack_dual(module(x)).primal
        assert torch.equal(module(x), again), "a tangent outlives its input"
    error = relative_error(to_numpy(found), to_numpy(expected))
    assert error <= REORDERED, f"it differs by {error:.1g}"


@clause(
    "a trace is the layer at any batch",
    "let no number of rows be a constant of the computation",
)
def trace_is_the_layer(subject: Subject, device: torch.device) -> None:
    for grad_mode in (torch.no_grad, torch.enable_grad):
        module = subject.layer(device)
        x, _ = subject.inputs(module, BATCH)
        more, _ = subject.inputs(module, BATCH + 4)
        with grad_mode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.trace", DeprecationWarning)
            traced = torch.jit.trace(module, x)
        error = relative_error(to_numpy(traced(more)), to_numpy(module(more)))
        assert error <= REORDERED, f"it differs by {error:.1g}"


@clause(
    "it compiles without a graph break, for any batch",
    "use no value of a tensor in Python, and register kernels by torch.library.custom_op",
)
def compiles_for_any_batch(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    torch.compiler.reset()
    # No code generation: what is tested are the shapes that tracing derives.
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (BATCH, 4):
        x, grad_y = subject.inputs(module, batch)
        actual = subject.run(module, x, grad_y, compiled)
        assert_close(actual, subject.run(module, x, grad_y), REORDERED)


@clause(
    "autocast to 16 bits keeps the dtypes of gradients",
    "cast inside the layer by what autocast says, and nowhere else",
)
def autocast_keeps_dtypes(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device, torch.float32)
    x, grad_y = subject.inputs(module, BATCH)
    expected = subject.reference(module, x, grad_y)

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            y: torch.Tensor = module(x)
            return y

    actual = subject.run(module, x, grad_y, forward)
    grads = [p.grad for p in subject.used(module).values() if p.grad is not None]
    wrong = {grad.dtype for grad in grads} - {torch.float32}
    assert not wrong, f"gradients of float32 parameters are {wrong}"
    assert_close(actual, expected, subject.bound(torch.bfloat16, x))


@clause(
    "copies are the same layer, and share nothing with it",
    "keep all state in parameters and buffers, and nothing that cannot be pickled",
)
def copies_are_the_same_layer(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    x, _ = subject.inputs(module, BATCH)
    state = module.state_dict()
    restored = subject.build(device=device, dtype=torch.float64).train(module.training)
    restored.load_state_dict(state)
    copies = {
        "load_state_dict": restored,
        "copy.deepcopy": copy.deepcopy(module),
        "pickle": pickle.loads(pickle.dumps(module)),
    }
    for way, twin in copies.items():
        held = twin.state_dict()
        assert held.keys() == state.keys(), f"{way} has other keys"
        assert all(torch.equal(held[key], state[key]) for key in state), f"{way} has other values"
        assert torch.equal(twin(x), module(x)), f"{way} gives another output"
        assert repr(twin) == repr(module), f"{way} prints otherwise"
        for parameter in twin.parameters():
            with torch.no_grad():
                parameter.add_(1)
            break
        first, own = next(twin.parameters(), None), next(module.parameters(), None)
        assert first is None or not torch.equal(first, own), f"{way} shares its parameters"


@clause(
    "inference mode and a second run give the same bits, and leave x as it is",
    "write into no input, keep nothing of the last call, and draw no random numbers in eval mode",
)
def repeats_to_the_bit(subject: Subject, device: torch.device) -> None:
    for dtype in (torch.float64, torch.float32):
        module = subject.layer(device, dtype)
        x, _ = subject.inputs(module, BATCH)
        before = x.clone()
        with torch.inference_mode():
            y = module(x)
        assert torch.equal(y, module(x)), "the second output is another one"
        assert torch.equal(x, before), "x has other values afterwards"
