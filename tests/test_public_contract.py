"""The contract for anybody's layer: each fault is found by the clause that is about it."""

import pytest
import torch
from torch import nn

from kan_impls import registry
from kan_impls.brought import as_variant
from kan_impls.contract import ContractError, check, check_layer, habits, numerics
from kan_impls.contract.clauses import CLAUSES
from kan_impls.contract.subject import subjects_of

CPU = torch.device("cpu")


class Sound(nn.Linear):
    """SiLU and a product."""

    def forward(self, x):
        return super().forward(x * torch.sigmoid(x))


class Product(torch.autograd.Function):
    """x @ w.T, whose gradients a test spoils."""

    @staticmethod
    def forward(ctx, x, weight, spoil):
        ctx.save_for_backward(x, weight)
        ctx.spoil = spoil
        return x @ weight.t()

    @staticmethod
    def backward(ctx, grad_y):
        x, weight = ctx.saved_tensors
        return (*ctx.spoil(grad_y @ weight, grad_y.t() @ x, x, grad_y), None)


def spoilt(spoil):
    """A layer whose gradients `spoil` makes of the true ones, x and the output's gradient."""

    class Layer(nn.Linear):
        def forward(self, x):
            flat = x.reshape(-1, x.shape[-1])
            y = Product.apply(flat, self.weight, spoil)
            return y.reshape(*x.shape[:-1], -1)

    return Layer


def after(change):
    """A layer that changes x before the product."""

    class Layer(nn.Linear):
        def forward(self, x):
            return super().forward(change(x))

    return Layer


class Remembers(nn.Linear):
    last = 0

    def forward(self, x):
        y = super().forward(x + self.last)
        self.last = 0.1
        return y


class Unpicklable(Sound):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.activate = lambda x: x


class OfEdges(nn.Linear):
    """Tensors of shape (batch, out, in)."""

    def forward(self, x):
        return torch.tanh(x.unsqueeze(-2) * self.weight).sum(-1)


class Wide(nn.Linear):
    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features + 1)


class ByWanted(nn.Linear):
    """A gradient that depends on which others are wanted."""

    def forward(self, x):
        return super().forward(x) * (1 if self.bias.requires_grad else 2)


# The difference of large numbers, as truncated powers make it.
CANCELS = after(lambda x: (x + 3000) ** 3 - 3000**3 - 27e6 * x)

FAULTS = [
    (numerics.can_be_called, Wide),
    (numerics.keeps_the_dtype, after(lambda x: x.float().sin().to(torch.float32))),
    (
        numerics.derivatives_are_finite_differences,
        spoilt(lambda grad_x, grad_w, x, grad_y: (1.1 * grad_x, grad_w)),
    ),
    (
        numerics.derivatives_are_finite_differences,
        spoilt(lambda grad_x, grad_w, x, grad_y: (grad_x, grad_w.flip(0))),
    ),
    # As threads that write without waiting for each other, from some number of rows on.
    (
        numerics.gradients_add_up_over_rows,
        spoilt(lambda grad_x, grad_w, x, grad_y: (grad_x, grad_y[:32].t() @ x[:32])),
    ),
    (numerics.float32_agrees, CANCELS),
    (numerics.bfloat16_agrees, after(lambda x: (x + 100) - 100)),
    (numerics.any_leading_shape_is_a_batch, after(lambda x: x.t().contiguous().t())),
    (numerics.any_leading_shape_is_a_batch, after(lambda x: x.flatten(1))),
    (numerics.empty_batch, after(lambda x: x - x.max())),
    (numerics.strides_do_not_matter, after(lambda x: x.view(-1).view(x.shape))),
    (  # an address without a look at the strides
        numerics.strides_do_not_matter,
        spoilt(
            lambda grad_x, grad_w, x, grad_y: (
                grad_x,
                torch.as_strided(grad_y, grad_y.shape, (grad_y.shape[1], 1)).t() @ x
                if grad_y.untyped_storage().nbytes() >= 8 * grad_y.numel()
                else 0 * grad_w,
            )
        ),
    ),
    (numerics.is_finite_far_outside, after(lambda x: torch.acos(torch.tanh(x)))),
    (numerics.non_finite_input_spoils_its_row, after(torch.nan_to_num)),
    (numerics.non_finite_input_spoils_its_row, after(lambda x: x - x.mean(0))),
    (numerics.saves_no_more_than_stated, OfEdges),
    (habits.unwanted_gradients_change_nothing, ByWanted),
    (habits.forward_mode, spoilt(lambda grad_x, grad_w, x, grad_y: (grad_x, grad_w))),
    (habits.trace_is_the_layer, after(lambda x: x * float(len(x)))),
    (habits.compiles_for_any_batch, after(lambda x: x if x.sum() > 0 else 2 * x)),
    (habits.exports_for_any_batch, after(lambda x: x * float(len(x)))),
    (  # a product of bfloat16 and float32 in the backward pass
        habits.autocast_keeps_dtypes,
        spoilt(lambda grad_x, grad_w, x, grad_y: (grad_x, grad_w)),
    ),
    (habits.copies_are_the_same_layer, Unpicklable),
    (habits.repeats_to_the_bit, Remembers),
    (habits.repeats_to_the_bit, after(lambda x: x + 0.01 * torch.randn_like(x))),
]


@pytest.mark.parametrize(
    ("clause", "factory"), FAULTS, ids=lambda part: getattr(part, "name", part.__class__.__name__)
)
def test_a_fault_is_found_by_its_clause(clause, factory):
    *_, subject = subjects_of(as_variant("theirs", factory))
    problem = clause.problem(subject, CPU)
    assert problem is not None
    assert problem.startswith(f"theirs-13x37: expected that {clause.name}; ")
    assert "What to do: " in problem


def test_every_clause_has_a_fault():
    assert {clause for clause, _ in FAULTS} == set(CLAUSES)


# What takes seconds, sound layers of our own meet in test_contract.py.
QUICK = [clause for clause in CLAUSES if clause is not habits.compiles_for_any_batch]


@pytest.mark.parametrize("clause", QUICK, ids=str)
def test_a_sound_layer_meets_every_clause(clause):
    for subject in subjects_of(as_variant("theirs", Sound)):
        assert clause.problem(subject, CPU) is None


def test_a_wrong_derivative_is_named():
    wrong = spoilt(lambda grad_x, grad_w, x, grad_y: (grad_x, 2 * grad_w))
    for subject in subjects_of(as_variant("theirs", wrong)):
        problem = numerics.derivatives_are_finite_differences.problem(subject, CPU)
        assert "the first derivative by weight is another one" in problem


@pytest.fixture
def only_strides(monkeypatch):
    """`check_layer` with a single clause of the contract: all take ten seconds."""
    monkeypatch.setattr(check, "CLAUSES", (numerics.strides_do_not_matter,))


def test_check_layer_names_each_clause_that_fails(only_strides):
    check_layer(Sound(3, 2))
    with pytest.raises(ContractError, match=r"^1 of 1 clauses are not met:\nLayer-3x2: .*stride"):
        check_layer(after(lambda x: x.view(-1).view(x.shape))(3, 2))


def test_check_layer_compares_with_a_reference(only_strides):
    layer = Sound(3, 2).train()
    check_layer(layer, lambda x: (x / (1 + (-x).exp())) @ layer.weight.double().t() + layer.bias)
    assert layer.training
    assert layer.weight.dtype == torch.float32
    other = Sound(3, 2)
    with pytest.raises(ContractError, match="those of the reference; relative errors above 1e-10"):
        check_layer(layer, other)
    other.load_state_dict(layer.state_dict())
    other.register_parameter("more", nn.Parameter(torch.zeros(1)))
    check_layer(layer, other)


def test_check_layer_says_what_it_needs(only_strides):
    with pytest.raises(TypeError, match="got a type; expected a torch"):
        check_layer(Sound)
    with pytest.raises(ValueError, match="Sequential has no in_features; expected the size: pass"):
        check_layer(nn.Sequential(nn.Linear(3, 2)))
    check_layer(nn.Sequential(nn.Linear(3, 2)), in_features=3, out_features=2)


def test_what_it_may_keep_can_be_stated(monkeypatch):
    monkeypatch.setattr(check, "CLAUSES", (numerics.saves_no_more_than_stated,))
    check_layer(Sound(3, 2), saved_per_input=3)
    with pytest.raises(ContractError, match="3,072 bytes for backward; 0 are allowed, 0 numbers"):
        check_layer(Sound(3, 2), saved_per_input=0)


LAYER = """
from torch import nn

class Mine(nn.Linear):
    pass

def broken(in_features, out_features):
    raise RuntimeError("out of luck")
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """The public command, in a folder with a layer and nothing else."""
    monkeypatch.setattr(registry, "_brought", [])
    pytester.makepyfile(layer=LAYER)
    usual = ["-p", "kan_impls_pytest", "-p", "no:cacheprovider", "--pyargs", "kan_impls.contract"]
    yield lambda *arguments: pytester.runpytest_inprocess(*usual, *arguments)
    registry._table.cache_clear()


def test_the_command_tests_what_is_brought(run):
    found = run("--variant=layer.py:Mine", "--variant=layer.py:broken", "-k", "called or stride")
    found.assert_outcomes(passed=4, failed=2, skipped=2)
    found.stdout.fnmatch_lines(["*broken-3x2: expected that it can be built*out of luck*"])


def test_the_command_without_a_layer_says_what_to_name(run):
    found = run()
    assert found.ret == pytest.ExitCode.INTERRUPTED
    found.stdout.fnmatch_lines(["*came without an implementation; expected --variant path/file*"])
    found = run("--variant=layer.py:Yours")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines(["*--variant: layer.py has no 'Yours'*"])
