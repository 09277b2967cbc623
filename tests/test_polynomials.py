"""Layers of polynomials of tanh(x): initial values, and published faults that they do not have."""

import numpy as np
import pytest
import torch

import kan_impls
from tests.cases import ROWS
from tests.helpers import published, randomize, run, run_ref, to_numpy

# The published key of the coefficients, shape (in, out, degree + 1).
COEFFICIENTS = {"cheby_kan": "cheby_coeffs"}

each_form = pytest.mark.parametrize(
    "name", [form + name for name in COEFFICIENTS for form in ("", "fused_")]
)


@each_form
def test_initial_coefficients_have_the_published_deviation(device, name):
    layer = kan_impls.create_layer(name, 40, 60, degree=3, device=device)
    draws = published(layer)[COEFFICIENTS[name.removeprefix("fused_")]]
    deviation = 1 / (40 * 4)
    # The deviation of n normal draws is within 5 / sqrt(2 n) of the true one except with a
    # probability of 6e-7, their mean within 5 / sqrt(n).
    assert draws.std() == pytest.approx(deviation, rel=5 / (2 * draws.size) ** 0.5)
    assert abs(draws.mean()) <= 5 * deviation / draws.size**0.5


@each_form
def test_the_gradient_is_right_where_tanh_rounds_to_1(device, name):
    # The published cheby_kan takes the arc cosine of tanh(x): its derivative there is infinite.
    layer = randomize(kan_impls.create_layer(name, 1, 1, device=device))
    x = torch.tensor([[8.0], [9.5], [-9.5], [20.0], [-30.0]], device=device)
    assert x.tanh().abs().max() == 1
    grad_y = torch.ones_like(x)
    actual = run(layer, x, grad_y).grad_x
    expected = run_ref(ROWS[name].layer_ref, layer, x, grad_y).grad_x
    np.testing.assert_allclose(actual, expected, rtol=1e-5)  # some roundings for each degree


@each_form
def test_derivatives_are_finite_at_any_x(device, name):
    layer = randomize(kan_impls.create_layer(name, 1, 1, device=device))
    x = torch.tensor([[0.0], [9.0], [-45.0], [90.0], [-1e4], [1e30], [float("inf")]])
    x = x.to(device).requires_grad_()
    (first,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert not to_numpy(first[3:]).any()  # below the least float32
