"""The clauses about use: what torch and its users do with a layer."""

from __future__ import annotations

import copy
import pickle
import warnings

import torch
from torch.autograd import forward_ad
from torch.jit._trace import TracerWarning

from kan_impls.contract.clause import BATCH, clause
from kan_impls.contract.passes import Array, assert_close, relative_error, to_numpy
from kan_impls.contract.subject import REORDERED, Subject, random_like


def _assert_reordered(actual: Array, expected: Array, what: str = "it") -> None:
    """The two differ by no more than sums in another order do."""
    error = relative_error(actual, expected)
    assert error <= REORDERED, f"{what} differs by {error:.1g}"


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
    _assert_reordered(to_numpy(grad_x), full.grad_x, "the gradient of x alone")


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
    _assert_reordered(to_numpy(found), to_numpy(expected))


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
            # That traces are of the past, and what their numbers are made of.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", TracerWarning)
            traced = torch.jit.trace(module, x)
        _assert_reordered(to_numpy(traced(more)), to_numpy(module(more)))


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
    "a program of torch.export is the layer at any batch",
    "use no value of a tensor in Python, and give operators of your own a fake implementation",
)
def exports_for_any_batch(subject: Subject, device: torch.device) -> None:
    module = subject.layer(device)
    x, _ = subject.inputs(module, BATCH)
    more, _ = subject.inputs(module, BATCH + 4)
    rows = torch.export.Dim("rows")
    program = torch.export.export(module, (x,), dynamic_shapes=({0: rows},))
    _assert_reordered(to_numpy(program.module()(more)), to_numpy(module(more)))


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
        for copied, own in zip(twin.parameters(), module.parameters(), strict=True):
            with torch.no_grad():
                copied.add_(1)
            shared = copied.numel() and torch.equal(copied, own)
            assert not shared, f"{way} shares its parameters"


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
