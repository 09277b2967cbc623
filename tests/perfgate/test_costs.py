"""What operators cost, against arithmetic by hand."""

import pytest
import torch

from kan_impls import get_variant
from kan_impls.fused.cost import DECLARED
from perfgate.measure.costs import Cost, UndeclaredCostError, touched_bytes
from perfgate.measure.device_free import Passes, estimate_peak_bytes, track_passes
from perfgate.network.case import Case
from perfgate.network.workload import device_free_figures

FLOAT = 4


def cost_of(forward, *shapes, declared=None):
    """Of `forward` with fake tensors of these shapes."""

    def build():
        tensors = [torch.empty(shape) for shape in shapes]
        return Passes(lambda: forward(*tensors), lambda result: None)

    return track_passes(build, declared=declared or {}).forward


def moved(operators, read, written):
    """The cost of operators that are no products, in elements of float32."""
    return Cost(operators, 0, FLOAT * read, FLOAT * written)


@pytest.mark.parametrize(
    ("forward", "cost"),
    [
        (lambda x: x + 1, moved(1, 100, 100)),
        (lambda x: x.clone(), moved(1, 100, 100)),
        (lambda x: x.sum(), moved(1, 100, 1)),
        (lambda x: (x + 1).relu(), moved(2, 200, 200)),
        (lambda x: x * x, moved(1, 100, 100)),
        (lambda x: torch.cat([x, x[:5]]), moved(1, 150, 150)),
        (lambda x: x.add_(1), moved(1, 100, 100)),
        (lambda x: x.zero_(), moved(1, 0, 100)),
        (lambda x: x[:2].copy_(x[2:4]), moved(1, 20, 20)),
        (lambda x: torch.mul(x, 2, out=torch.empty(10, 10)), moved(1, 100, 100)),
        (lambda x: torch.aminmax(x[0]), moved(1, 10, 2)),
        (lambda x: x.mul_(x[0]), moved(1, 110, 100)),
        # Of what only lends its shape nothing is read.
        (torch.zeros_like, moved(1, 0, 100)),
        (torch.ones_like, moved(1, 0, 100)),
        (torch.rand_like, moved(1, 0, 100)),
        (lambda x: torch.full_like(x, 3.0), moved(1, 0, 100)),
        (lambda x: x.new_zeros(7), moved(1, 0, 7)),
        (lambda x: x.new_full((7,), 3.0), moved(1, 0, 7)),
    ],
)
def test_operands_are_read_and_results_written(forward, cost):
    assert cost_of(forward, (10, 10)) == cost


def test_views_and_allocations_cost_nothing():
    def forward(x):
        x.view(100).t().unsqueeze(0).expand(7, 100)[:, 3:].detach()
        x.flatten().unfold(0, 5, 1).squeeze_()
        x.unbind(), x.split(2), x.unsafe_split(2)
        torch.ops.aten._unsafe_view(x, (5, 20))
        return torch.empty_like(x), x.new_empty(3), torch.empty_strided((2, 2), (1, 2))

    assert cost_of(forward, (10, 10)) == Cost()


def test_a_broadcast_is_read_once():
    # Memory delivers the row once; a hundred thousand results are written.
    assert cost_of(lambda x: x.expand(1000, 100) + 1, (100,)) == moved(1, 100, 100_000)
    assert touched_bytes(torch.zeros(1).expand(10, 10)) == FLOAT
    assert touched_bytes(torch.zeros(1).expand(10, 0)) == 0
    assert touched_bytes(torch.zeros(10, 4)[:, ::2]) == 20 * FLOAT
    assert touched_bytes(torch.zeros(10).unfold(0, 5, 1)) == 10 * FLOAT  # six windows of five


@pytest.mark.parametrize(
    "forward",
    [
        lambda a, b, y: a @ b,
        lambda a, b, y: torch.mm(a, b, out=torch.empty(3, 5)),
        lambda a, b, y: torch.addmm(y, a, b),
        lambda a, b, y: y.addmm_(a, b),
        lambda a, b, y: y[None].baddbmm_(a[None], b[None]),
        lambda a, b, y: torch.einsum("mk,kn->nm", a, b),
        lambda a, b, y: torch.nn.functional.linear(a, b.t()),
        lambda a, b, y: torch.addbmm(y, a[None], b[None]),
        lambda a, b, y: [torch.mv(a, column) for column in b.unbind(1)],
        lambda a, b, y: [torch.addmv(y[:, 0], a, column) for column in b.unbind(1)],
        lambda a, b, y: [torch.dot(row, column) for row in a for column in b.unbind(1)],
        lambda a, b, y: [y.addr_(a[:, k], b[k]) for k in range(7)],
    ],
)
def test_every_way_to_take_a_product_takes_2mkn_flops(forward):
    assert cost_of(forward, (3, 7), (7, 5), (3, 5)).flops == 2 * 3 * 7 * 5


def test_what_a_product_overwrites_is_not_read():
    def add(beta):
        return cost_of(lambda a, b, y: y.addmm_(a, b, beta=beta), (3, 7), (7, 5), (3, 5))

    assert add(1).bytes_read - add(0).bytes_read == FLOAT * 3 * 5
    assert add(1).bytes_written == add(0).bytes_written == FLOAT * 3 * 5


def test_all_of_an_mlp_by_hand():
    case = Case("small", get_variant("mlp"), 20, (30, 40, 2))
    found = device_free_figures(case, "backward", declared=DECLARED)
    products = FLOAT * ((20 * 30 + 30 * 40 + 40) + (20 * 40 + 40 * 2 + 2))
    assert found.forward == Cost(
        operators=4,  # two affine maps, ReLU, sigmoid
        flops=case.flops("forward"),
        bytes_read=products + FLOAT * (20 * 40 + 20 * 2),
        bytes_written=FLOAT * 2 * (20 * 40 + 20 * 2),
    )
    assert found.backward.flops == case.flops("backward")


def test_forward_and_backward_are_told_apart():
    def build():
        x = torch.empty(100, requires_grad=True)
        return Passes(lambda: x.exp(), lambda y: y.backward(torch.empty(100)))

    found = track_passes(build)
    assert found.forward == moved(1, 100, 100)
    assert found.backward == moved(1, 200, 100)  # the gradient times the result


def test_a_mark_for_the_profiler_is_no_work():
    def forward(x):
        with torch.profiler.record_function("mark"):
            return x + 1

    assert cost_of(forward, (10,)) == moved(1, 10, 10)


@pytest.fixture
def opaque():
    library = torch.library.Library("kan_impls_test", "FRAGMENT")
    library.define("opaque(Tensor x) -> Tensor")
    library.impl("opaque", lambda x: x.new_empty(x.shape), "Meta")
    library.impl("opaque", lambda x: x + 1, "CPU")
    yield torch.ops.kan_impls_test.opaque
    library._destroy()


def test_an_opaque_operator_costs_what_it_declares(opaque):
    declared = {"kan_impls_test::opaque": lambda x: (2, 3 * x.numel(), 5, 7)}
    assert cost_of(opaque, (10,), declared=declared) == Cost(2, 30, 5, 7)


def test_an_opaque_operator_that_declares_nothing_is_an_error(opaque):
    with pytest.raises(UndeclaredCostError, match=r"kan_impls_test::opaque is opaque .* expected"):
        cost_of(opaque, (10,))
    assert estimate_peak_bytes(lambda: opaque(torch.empty(10))) == 2 * 40  # which counts no costs
