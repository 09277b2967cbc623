"""Extra work is red without a device and without a clock: copies, products, reads, passes."""

import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from kan_impls import create_layer
from kan_impls.fused import product
from perfgate.network.case import Case
from perfgate.store import device_free_baseline as baseline
from perfgate.store.device_free_baseline import Key
from perfgate.store.exact import Stored

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # what is measured is data of the benchmarks

from memory_cases import OWN, PASSES, measure  # noqa: E402

FUSED = ["fused_fourier_kan", "fused_efficient_kan"]


def case_of(name):
    variant = OWN[name]
    return Case("small", variant, 20, (100, 40, 2), variant.reference_config)


@cache
def sound(name):
    return measure(case_of(name))


def largest_parameter(layer):
    return max(layer.parameters(), key=lambda parameter: parameter.numel()).detach()


# Each takes a layer and its forward, and makes another forward. Every fault is the work's alone:
# what comes out is the same.


def extra_copy(layer, forward, x):
    return forward(layer, x.clone())


def extra_product(layer, forward, x):
    """A hundredth of the first layer's product: one of its hundred inputs."""
    y = forward(layer, x)
    return torch.addmm(y, x[:, :1], x.new_zeros(1, y.shape[1]))


def extra_read_of_the_weights(layer, forward, x):
    return forward(layer, x) + 0 * largest_parameter(layer).sum()


def extra_pass(layer, forward, x):
    return forward(layer, x) * 1


def extra_pass_in_place(layer, forward, x):
    y = forward(layer, x)
    y.data.mul_(1)
    return y


def extra_copy_of_the_gradient(layer, forward, x):
    y = forward(layer, x)
    if y.requires_grad:
        y.register_hook(torch.clone)
    return y


FAULTS = {
    extra_copy: ("forward_operators", "forward_bytes_read", "forward_bytes_written"),
    extra_product: ("forward_operators", "forward_flops", "forward_bytes_read"),
    extra_read_of_the_weights: ("forward_operators", "forward_bytes_read"),
    extra_pass: ("forward_operators", "forward_bytes_read", "forward_bytes_written"),
    extra_pass_in_place: ("forward_operators", "forward_bytes_read", "forward_bytes_written"),
    extra_copy_of_the_gradient: (
        "backward_operators",
        "backward_bytes_read",
        "backward_bytes_written",
    ),
}


def assert_red(name, kinds):
    """The gate names every one of these figures, of both passes, as grown."""
    key, now = Key("small", name), measure(case_of(name))
    found = baseline.differences(Stored("2.13", {key: sound(name)}), key, now)
    for pass_name in PASSES:
        for kind in kinds:
            start = f"{name} at small, {pass_name}: {kind} was "
            (sentence,) = [sentence for sentence in found if sentence.startswith(start)]
            assert "expected no growth: take it back" in sentence


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", OWN)
def test_extra_work_in_a_layer_is_red(name, fault, monkeypatch):
    sound(name)
    layer = type(create_layer(name, 3, 2))
    original = layer.forward
    monkeypatch.setattr(layer, "forward", lambda self, x: fault(self, original, x))
    assert_red(name, FAULTS[fault])


def test_the_extra_product_is_a_hundredth_of_the_first(monkeypatch):
    before = sound("fused_fourier_kan").passes["backward"]["forward_flops"]
    layer = type(create_layer("fused_fourier_kan", 3, 2))
    original = layer.forward
    monkeypatch.setattr(layer, "forward", lambda self, x: extra_product(self, original, x))
    after = measure(case_of("fused_fourier_kan")).passes["backward"]["forward_flops"]
    assert after - before == 2 * 20 * 1 * (40 + 2)
    assert (after - before) / before < 0.01


@pytest.mark.parametrize("name", FUSED)
def test_extra_work_inside_the_product_form_is_red(name, monkeypatch):
    sound(name)
    forward, backward = product.forward, product.backward

    def read_again(x, terms, *rest):
        return forward(x, terms, *rest) + 0 * terms[0].weight.sum()

    def multiply_again(grad_y, x, terms, *needs):
        torch.mm(x[:, :1].t(), grad_y)
        return backward(grad_y, x, terms, *needs)

    monkeypatch.setattr(product, "forward", read_again)
    monkeypatch.setattr(product, "backward", multiply_again)
    assert_red(name, ("forward_bytes_read", "backward_operators", "backward_flops"))


@pytest.mark.parametrize("name", FUSED)
def test_a_second_pass_over_the_weights_in_backward_is_red(name, monkeypatch):
    sound(name)
    backward = product.backward

    def sum_again(grad_y, x, terms, *needs):
        terms[0].weight.sum(0)
        return backward(grad_y, x, terms, *needs)

    monkeypatch.setattr(product, "backward", sum_again)
    assert_red(name, ("backward_operators", "backward_bytes_read"))
