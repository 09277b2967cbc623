"""Layers of polynomials of tanh(x): initial values, and published faults that they do not have."""

import weakref

import numpy as np
import pytest
import torch

import kan_impls
from kan_impls.basis.chebyshev import ChebyshevBasis
from kan_impls.basis.jacobi import JacobiBasis
from tests.cases import ROWS, jacobi_layer_ref
from tests.helpers import FLOAT64, assert_close, published, randomize, run, run_ref, to_numpy

# The published key of the coefficients, shape (in, out, degree + 1).
COEFFICIENTS = {
    "cheby_kan": "cheby_coeffs",
    "jacobi_kan": "jacobi_coeffs",
    "legendre_kan": "jacobi_coeffs",
}

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


@pytest.mark.parametrize("name", ["jacobi_kan", "fused_jacobi_kan"])
@pytest.mark.parametrize(("a", "b"), [(0.5, -0.75), (-0.5, -0.5)])
def test_any_exponents_have_their_polynomials_in_float64(device, name, a, b):
    # The published jacobi_kan makes its polynomials in float32, whatever the dtype of x.
    options = {"degree": 6, "a": a, "b": b, "dtype": torch.float64, "device": device}
    layer = randomize(kan_impls.create_layer(name, 3, 2, **options))
    x = torch.randn(5, 3, dtype=torch.float64).to(device)
    grad_y = torch.randn(5, 2, dtype=torch.float64).to(device)
    assert_close(run(layer, x, grad_y), run_ref(jacobi_layer_ref(a, b), layer, x, grad_y), FLOAT64)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (-1.0, 0.0, "a is -1.0; expected a number above -1"),
        (0.0, float("nan"), "b is nan; expected a finite number"),
    ],
)
def test_exponents_without_a_weight_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        kan_impls.create_layer("jacobi_kan", 3, 2, a=a, b=b)


def test_the_kernels_say_what_they_do_not_know():
    assert "multiples of 1/2" in JacobiBasis(3, 0.3, 0.0).obstacle
    assert "the degree is 10" in JacobiBasis(10, 0.0, 0.0).obstacle
    assert "the degree is 17" in ChebyshevBasis(17).obstacle
    assert JacobiBasis(9, 0.5, 0.0).obstacle is None
    assert ChebyshevBasis(16).obstacle is None


@pytest.mark.parametrize("name", ["gram_kan", "fused_gram_kan"])
def test_gram_kan_keeps_no_inputs_alive(device, name):
    # The published layer caches the polynomials of the last 256 inputs.
    layer = kan_impls.create_layer(name, 3, 2, device=device)
    x = torch.ones(4, 3, device=device)
    alive = weakref.ref(x)
    with torch.no_grad():
        layer(x)
    del x
    assert alive() is None
