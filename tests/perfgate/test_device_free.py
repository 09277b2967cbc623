"""Memory without a device: equal to what the profiler measures, and planted faults are seen."""

import dataclasses
import gc
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kan_impls import create_layer, get_variant, list_variants
from kan_impls.fused import cpu, product
from kan_impls.fused.cost import DECLARED
from perfgate.judge.growth_law import deviations
from perfgate.measure.device_free import (
    Passes,
    TooManyOperatorsError,
    _written_argument,
    estimate_peak_bytes,
    track_passes,
)
from perfgate.measure.memory import measure_peaks
from perfgate.network.case import Case
from perfgate.network.workload import (
    NoEstimateError,
    device_free_figures,
    estimate_bytes,
    pass_of,
)
from perfgate.store import device_free_baseline as baseline
from perfgate.store.device_free_baseline import Key
from perfgate.store.exact import Stored

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # the laws and the cases are data of the benchmarks

from memory_cases import LAWS, OWN, PASSES, layer_figures, measure  # noqa: E402

CPU = torch.device("cpu")
FLOAT = 4

# Copying a transposed matrix of this many elements or more, a CPU kernel takes a buffer of so many.
COPY_BUFFER = 60 * 60


@pytest.fixture(autouse=True)
def _operators_alone(monkeypatch):
    """Without a device the fused layers are the product form of PyTorch's operators."""
    monkeypatch.setattr(cpu, "compiled", lambda operands, basis: None)


def small(name, batch=20, widths=(30, 40, 2)):
    variant = get_variant(name)
    return Case("small", variant, batch, widths, variant.reference_config)


def unseen_bytes(case, pass_name):
    """What the profiler measures beyond the device-free bytes, kind by kind."""
    measured = pass_of(case, pass_name, CPU).measure_memory()
    tracked = device_free_figures(case, pass_name, declared=DECLARED).bytes._asdict()
    assert measured.keys() == tracked.keys()
    return {kind: measured[kind] - tracked[kind] for kind in measured}


def loss_scratch(case):
    """The CPU kernel of the loss forms all squares, and shrinks that tensor to their mean in
    place: it lives on with the memory of all, where the device-free one has that of one."""
    return FLOAT * (case.batch * case.widths[-1] - 1)


# An operator of a tensor and a number makes a tensor of the number, in float64, and in float32.
NUMBERS = 8 + FLOAT


def numbers(name):
    """Bytes of such tensors that may go unseen, in forward and in backward."""
    if name.removeprefix("fused_") in ("mlp", "efficient_kan", "fourier_kan"):
        return (0,), (0, NUMBERS)
    several = range(40 * NUMBERS)  # a recurrence holds some of each step
    return several, several


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("name", list_variants())
@pytest.mark.parametrize("shape", [(20, (30, 40, 2)), (7, (5, 4, 3)), (3, (70, 90))], ids=str)
def test_the_bytes_are_those_of_the_profiler(name, shape, pass_name):
    case = small(name, *shape)
    unseen = unseen_bytes(case, pass_name)
    assert unseen["saved_bytes"] == 0
    forward, backward = numbers(name)
    assert unseen["forward_peak_bytes"] in forward
    assert unseen["backward_peak_bytes"] - loss_scratch(case) in backward


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("name", list_variants())
def test_only_scratch_of_a_copy_is_not_seen_where_matrices_are_larger(name, pass_name):
    case = small(name, 64, (100, 50, 1))
    unseen = unseen_bytes(case, pass_name)
    assert unseen["saved_bytes"] == 0
    forward, backward = numbers(name)
    assert unseen["forward_peak_bytes"] in forward
    scratch = unseen["backward_peak_bytes"] - loss_scratch(case)
    assert scratch in (*backward, FLOAT * COPY_BUFFER)


def published_fourier_layer():
    """The direct layer as it was published: harmonics in integers, cosines and sines at once."""
    x = torch.rand(100, 1000)
    coefficients = torch.rand(2, 1000, 1000, 5, requires_grad=True)
    bias = torch.rand(1, 1000, requires_grad=True)

    def forward():
        harmonics = torch.arange(1, 6)
        points = x.view(100, 1, 1000, 1)
        cos, sin = (harmonics * points).cos(), (harmonics * points).sin()
        y = (cos * coefficients[0:1]).sum((-2, -1)) + (sin * coefficients[1:2]).sum((-2, -1))
        return (y + bias).sum()

    return Passes(forward, lambda loss: loss.backward(), [x, coefficients, bias])


def test_the_published_figures_of_the_direct_fourier_layer():
    # What the profiler measures as well: batch 100, 1000 -> 1000, 5 harmonics, and the sum of the
    # outputs as the loss.
    found = track_passes(published_fourier_layer).bytes
    assert found.forward_peak_bytes == 2_004_800_040
    assert found.backward_peak_bytes == 2_062_004_008
    assert found.saved_bytes == 2 * 100 * 1000 * 5 * FLOAT


def test_nothing_is_allocated():
    # Eighty-eight terabytes, thousands of times the memory of this machine.
    huge = Case("huge", get_variant("fourier_kan"), 65_536, (8192, 8192))
    product_of_the_basis = 65_536 * 8192 * 8192 * 5 * FLOAT
    assert (
        device_free_figures(huge, "backward", declared=DECLARED).bytes.forward_peak_bytes
        > product_of_the_basis
    )


def test_the_estimate_allocates_nothing():
    huge = Case("huge", get_variant("fourier_kan"), 100_000, (10_000, 1000, 1))
    assert estimate_bytes(huge) > 1e13


def test_a_layer_that_asks_for_values_has_no_estimate_and_says_why():
    def model(widths, device=None):
        return nn.Linear(*widths) if torch.ones(1).item() else None

    asking = dataclasses.replace(get_variant("mlp"), model=model)
    with pytest.raises(NoEstimateError, match=r"^DataDependentOutputException: .*scalar") as caught:
        estimate_bytes(Case("small", asking, 3, (2, 1)))
    assert "\n" not in str(caught.value)


def test_the_estimate_is_what_the_profiler_measures():
    # The direct Fourier layer materialises; its two products decide the peak.
    layer = create_layer("fourier_kan", 100, 50)
    x = torch.rand(64, 100)
    with torch.no_grad():
        measured = measure_peaks(CPU, lambda: layer(x), lambda y: None).forward_peak_bytes

        def build_and_run():
            create_layer("fourier_kan", 100, 50)(torch.rand(64, 100))

        estimated = estimate_peak_bytes(build_and_run)
    product = 64 * 50 * 100 * 5 * 4
    parameters_and_input = (2 * 50 * 100 * 5 + 50 + 64 * 100) * 4
    assert product < measured < 1.1 * product
    assert estimated == pytest.approx(measured + parameters_and_input, rel=0.01)


def bytes_of(forward):
    return track_passes(lambda: Passes(forward, lambda result: None)).bytes.forward_peak_bytes


def test_a_view_and_writing_in_place_make_no_storage():
    def forward():
        a = torch.empty(1000)
        a[10:].add_(1).relu_()
        torch.mul(a, a, out=a)
        return a.view(10, 100).t()

    assert bytes_of(forward) == 4000


def test_what_an_operator_writes_to_is_found():
    aten = torch.ops.aten
    assert _written_argument(aten.add_.Tensor) == (0, "self")
    assert _written_argument(aten.pow.Tensor_Scalar_out) == (2, "out")
    for other in (aten.add.Tensor, aten.view.default, aten.unsqueeze_.default, aten.max.dim_max):
        assert _written_argument(other) is None


def test_an_output_that_is_enlarged_is_seen():
    def forward():
        out = torch.empty(0)
        return torch.add(torch.empty(1000), 1, out=out)

    assert bytes_of(forward) == 8000


def test_the_collector_of_cycles_changes_no_figure():
    def forward():
        for _ in range(3):
            cycle = [torch.empty(1000)]
            cycle.append(cycle)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert bytes_of(forward) == 3 * 4000
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)


def test_too_many_operators_are_an_error_and_not_minutes():
    with pytest.raises(TooManyOperatorsError, match=r"more than 100 operators; expected .*choose"):
        device_free_figures(small("fused_efficient_kan"), "backward", 100, DECLARED)


class Wasteful(nn.Module):
    """A network that holds 4 KiB more during its forward pass."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        wasted = torch.empty(1024)
        y = self.network(x)
        del wasted  # only now, so that it counts at the peak
        return y


@pytest.mark.parametrize("name", OWN)
def test_4_kib_more_in_forward_are_red(name):
    key, case = Key("small", name), small(name)
    stored = Stored("2.13", {key: measure(case)})
    model = case.variant.model
    worse = dataclasses.replace(
        case.variant, model=lambda widths, **config: Wasteful(model(widths, **config))
    )
    changed = baseline.differences(stored, key, measure(dataclasses.replace(case, variant=worse)))
    assert len(changed) == 2, changed  # the backward peak comes later
    for sentence, pass_name in zip(changed, PASSES, strict=True):
        assert sentence.startswith(f"{name} at small, {pass_name}: forward_peak_bytes was ")
        assert "(+4,096 B); expected no growth" in sentence
        assert sentence.endswith("--accept-memory")


def materialise(monkeypatch):
    """The fused layers' product form makes all products of basis and weights at once."""
    original = product.forward

    def forward(x, terms, *rest):
        weight = terms[0].weight
        everything = torch.empty(x.shape[0], weight.shape[2], x.shape[1], weight.shape[0])
        y = original(x, terms, *rest)
        del everything
        return y

    monkeypatch.setattr(product, "forward", forward)


@pytest.mark.parametrize("name", ["fused_fourier_kan", "fused_efficient_kan"])
def test_a_materialised_product_in_a_fused_layer_is_red(name, monkeypatch):
    key, case = Key("small", name), small(name)
    stored = Stored("2.13", {key: measure(case)})
    materialise(monkeypatch)
    assert any("forward_peak_bytes" in s for s in baseline.differences(stored, key, measure(case)))
    wrong = deviations(name, LAWS[name], lambda sizes: layer_figures(OWN[name], sizes))
    assert any("forward bytes grow as width^" in sentence for sentence in wrong)
    assert any("forward bytes grow as grid^" in sentence for sentence in wrong)
