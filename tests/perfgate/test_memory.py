"""Peaks to the byte, and what is saved."""

import itertools
import warnings
from dataclasses import replace

import pytest
import torch

from kan_impls import get_variant
from perfgate.measure.memory import (
    free_bytes,
    measure_peaks,
    measure_saved_bytes,
)
from perfgate.network.case import Case
from perfgate.network.workload import check_memory, pass_of
from perfgate.workload import NotEnoughMemoryError

CPU = torch.device("cpu")
MB = 1_000_000


def small(name="fused_fourier_kan", batch=20):
    return Case("small", get_variant(name), batch, (30, 40, 2))


def test_peaks_of_forward_and_backward_are_told_apart():
    def forward():
        torch.empty(3 * MB, dtype=torch.uint8)  # gone again at once
        return torch.empty(1 * MB, dtype=torch.uint8)

    def backward(kept):
        torch.empty(5 * MB, dtype=torch.uint8)

    use = measure_peaks(CPU, forward, backward)
    assert use.forward_peak_bytes == 3 * MB
    assert use.backward_peak_bytes == 6 * MB


def test_what_was_allocated_before_does_not_count():
    held = [torch.empty(7 * MB, dtype=torch.uint8)]

    def forward():
        held.clear()
        return torch.empty(2 * MB, dtype=torch.uint8)

    assert measure_peaks(CPU, forward, lambda kept: None).forward_peak_bytes == 2 * MB


@pytest.mark.parametrize("name", ["mlp", "efficient_kan", "fourier_kan", "fused_fourier_kan"])
def test_repeats_agree_to_the_byte(name):
    workload = pass_of(small(name), "backward", CPU)
    first = workload.measure_memory()
    again = pass_of(small(name), "forward", CPU)
    assert first == workload.measure_memory() == again.measure_memory()


def test_4_kib_more_are_seen(monkeypatch):
    workload = pass_of(small(), "backward", CPU)
    before = workload.measure_memory()
    layer = type(workload.model.layers[0])
    original = layer.forward

    def wasteful(self, x):
        wasted = torch.empty(1024)
        result = original(self, x)
        del wasted
        return result

    monkeypatch.setattr(layer, "forward", wasteful)
    after = workload.measure_memory()
    assert after["forward_peak_bytes"] - before["forward_peak_bytes"] == 4096


def test_saved_bytes_of_the_fused_layer_are_its_hidden_input():
    # x and the parameters live anyway; what the second layer keeps is the first's output.
    workload = pass_of(small(), "backward", CPU)
    assert workload.measure_memory()["saved_bytes"] == 20 * 40 * 4


def test_saved_bytes_count_a_storage_once():
    x = torch.rand(100, requires_grad=True)
    y = x * 2
    saved = measure_saved_bytes(lambda: (y * y).sum() + (y[:50] * y[50:]).sum(), [x])
    assert saved == 400


def test_a_case_that_does_not_fit_is_refused_with_its_estimate():
    huge = Case("huge", get_variant("fourier_kan"), 100_000, (10_000, 1000, 1))
    with pytest.raises(NotEnoughMemoryError, match=r"needs an estimated [\d.]+ GB, but [\d.]+ GB"):
        check_memory(huge, CPU)
    check_memory(small(), CPU)


def fitted(widths, device=None):
    """A network whose weights are fitted when it is built, as those of published ones are."""
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layer = torch.nn.Linear(inputs, outputs, device=device)
        fit = torch.linalg.lstsq(torch.rand(9, inputs), torch.rand(9, outputs)).solution
        layer.weight = torch.nn.Parameter(fit.T.to(device))
        layers.append(layer)
    return torch.nn.Sequential(*layers)


def test_a_case_without_an_estimate_is_measured_and_this_is_said_once():
    variant = replace(get_variant("mlp"), name="fitted", model=fitted)
    case = Case("small", variant, 8, (4, 3, 1))
    with pytest.warns(UserWarning, match=r"^fitted is measured without an estimate .*lstsq"):
        check_memory(case, CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_memory(replace(case, batch=9), CPU)
    assert pass_of(case, "backward", CPU).measure_memory()["saved_bytes"] == 8 * 3 * 4


def test_free_memory_is_some(device):
    assert 0 < free_bytes(device) < 2**50
