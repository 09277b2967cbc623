"""What the product form takes on a GPU: its workspace, and the launches of a pass."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.sine import SineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import cells, choosing, dispatch, product, workspace
from kan_impls.fused.evaluated import EvaluatedBasis
from kan_impls.fused.forms import Product
from kan_impls.fused.operands import Needs, Operands

MIB, GIB = 2**20, 2**30

# Data sheets: bytes of memory, bytes in a second; and what the product form takes.
GPUS = {
    "RTX A5000": (24 * GIB, 768e9, 384),
    "A100-40": (40 * GIB, 1555e9, 640),
    "H100": (80 * GIB, 3350e9, 1280),
}


@pytest.mark.parametrize("gpu", GPUS)
def test_the_workspace_is_hundreds_of_mib(gpu):
    memory, bandwidth, expected = GPUS[gpu]
    assert workspace._suggested(memory, memory, bandwidth) == expected * MIB


def test_the_workspace_hides_launches_and_leaves_memory_free():
    # Little memory that is fast: 20 launches of 4 µs at 3.35 TB/s are 268 MB.
    assert workspace._suggested(10 * GIB, 10 * GIB, 3350e9) == pytest.approx(268e6)
    # A quarter of what is free, and some bytes in any case.
    assert workspace._suggested(80 * GIB, 2 * GIB, 3350e9) == 512 * MIB
    assert workspace._suggested(80 * GIB, 0, 3350e9) == MIB


def test_what_a_gpu_says_of_itself(monkeypatch):
    properties = SimpleNamespace(
        total_memory=80 * GIB, L2_cache_size=50 * MIB, memory_clock_rate=2_619_000
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (1 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: 2 * GIB)
    workspace.of_gpu.cache_clear()
    # 1 GiB of the driver and 1 GiB that torch keeps for nobody: a quarter.
    sizes = [size.most // MIB for size in workspace.candidates(0)]
    workspace.of_gpu.cache_clear()
    assert sizes == [512, 128, 25]
    assert workspace._bytes_per_second(properties) == workspace.LEAST_BYTES_PER_SECOND
    properties.memory_bus_width = 5120
    assert workspace._bytes_per_second(properties) == pytest.approx(3352e9, rel=1e-3)


# Operators that launch nothing.
FREE = (
    *("alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "squeeze"),
    *("t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view", "_reshape_alias"),
    *("empty", "empty_like", "empty_strided", "new_empty", "device", "promote_types"),
)


class Launches(TorchDispatchMode):
    """Counts the operators that launch a kernel, and launches of this package's own."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function.__name__.partition(".")[0] not in FREE
        return function(*arguments, **(options or {}))


# Of the reference: the basis, and whether there are base branch and scales.
LAYERS = {
    "fourier": (FourierBasis(5), False, False),
    "splines": (UniformBSplineBasis.over(-1, 1, 5, 3), True, True),
    "frequencies": (SineBasis(5), False, False),
}


def operands_of(basis, has_base, has_scale, batch):
    edges = torch.empty(1000, 1000)
    return Operands(
        torch.empty(batch, 1000),
        torch.empty(basis.num_basis, 1000, 1000),
        scale=edges if has_scale else None,
        base_weight=edges if has_base else None,
        bias=torch.empty(1000),
        params=[torch.empty(1000, size) for size in basis.param_sizes],
    )


def launches_and_cells(monkeypatch, kind, batch, is_evaluated):
    """Of forward and backward at 1000 x 1000 on an H100 of 80 GB: launches, the cells of all terms,
    and those of the term that has most."""
    memory, bandwidth, _ = GPUS["H100"]
    large = workspace.of_launches(workspace._suggested(memory, memory, bandwidth))
    monkeypatch.setattr(cells, "workspace_of", lambda device: large)
    basis, counter, cut, found = LAYERS[kind][0], Launches(), [], []

    def cells_of(*arguments):
        cut.extend(cells.cells_of(*arguments))
        return cut

    def launch(*_, **__):
        counter.count += 1

    monkeypatch.setattr(product, "cells_of", cells_of)
    monkeypatch.setattr(EvaluatedBasis, "_launch", launch)
    with FakeTensorMode():
        operands = operands_of(*LAYERS[kind], batch)
        grad_y = torch.empty(batch, 1000)
        terms = choosing.terms_in(Product(is_evaluated=is_evaluated), operands, basis)
        trained = [bool(basis.trained)] * len(operands.params)
        needs = Needs.of([True, *(t is not None for t in operands.flat[1:5]), *trained])
        for run in (
            lambda: product.forward(operands.x, terms, operands.bias),
            lambda: dispatch._product_backward(grad_y, operands, terms, needs, None),
        ):
            counter.count = 0
            cut.clear()
            with torch.no_grad(), counter:
                run()
            numbers = [len([*own.rows()]) * len([*own.inputs()]) for own in cut]
            found.append((counter.count, sum(numbers), max(numbers)))
    return found


# Launches of forward and backward, where kernels evaluate the basis: docs/kernels.md states them.
LAUNCHES = {
    ("fourier", 36_864): (12, 36),
    ("fourier", 65_536): (12, 36),
    ("splines", 36_864): (24, 47),
    ("splines", 65_536): (24, 54),
    ("frequencies", 36_864): (32, 183),
    ("frequencies", 65_536): (36, 203),
}

# Of splines at 65,536 rows, where PyTorch's operators do.
BY_OPERATORS = (243, 471)

# Beside the cells: the sum that is the gradient of the bias, and zeros for that of parameters.
ONCE = 2


@pytest.mark.parametrize(("kind", "batch"), LAUNCHES, ids=str)
def test_a_pass_takes_few_launches(monkeypatch, kind, batch):
    found = launches_and_cells(monkeypatch, kind, batch, is_evaluated=True)
    # Gradients of parameters are PyTorch's operators: for a sine those of angles in float64.
    most_of_cell = 21 if LAYERS[kind][0].trained else 12
    for launches, all_cells, most in found:
        assert launches <= most_of_cell * all_cells + ONCE
        assert most <= 16
    assert tuple(launches for launches, *_ in found) == LAUNCHES[kind, batch]


def test_pytorchs_operators_take_several_times_as_many(monkeypatch):
    by_operators = launches_and_cells(monkeypatch, "splines", 65_536, is_evaluated=False)
    found = tuple(launches for launches, *_ in by_operators)
    assert found == BY_OPERATORS
    forward, backward = LAUNCHES["splines", 65_536]
    assert found[0] > 10 * forward
    assert found[1] > 8 * backward
