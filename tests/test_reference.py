"""The oracles themselves, against SciPy, NumPy and finite differences."""

import itertools

import numpy as np
import pytest
from scipy.interpolate import BSpline

from tests.cases import MODEL_WIDTHS, ROWS
from tests.reference import (
    adapted_knots_ref,
    basis_matrix_ref,
    bspline_derivative_ref,
    bspline_ref,
    efficient_kan_ref,
    fourier_kan_ref,
    regularization_ref,
)

# The oracles and what they are compared with each take some ten roundings of 1.1e-16.
FLOAT64 = 1e-13


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("order", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("uniform", [True, False])
def test_splines_and_derivatives_are_those_of_scipy(rng, order, uniform):
    knots = np.arange(-order, 6.0 + order)
    if not uniform:
        knots = np.sort(rng.normal(size=knots.size))
    x = rng.uniform(knots[0] - 1, knots[-1] + 1, size=40)
    for i in range(knots.size - order - 1):
        element = BSpline.basis_element(knots[i : i + order + 2], extrapolate=False)
        expected = np.nan_to_num(element(x))
        actual = [bspline_ref(i, order, knots, value) for value in x]
        np.testing.assert_allclose(actual, expected, rtol=FLOAT64, atol=FLOAT64)
        expected = np.nan_to_num(element.derivative()(x))
        actual = [bspline_derivative_ref(i, order, knots, value) for value in x]
        # Narrow random intervals make derivatives of some 1e3: relative to the largest.
        atol = FLOAT64 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=FLOAT64, atol=atol)


def test_repeated_knots_follow_the_convention_of_scipy():
    knots = np.array([-2.0, -1, 0, 1, 1, 1, 2, 3, 4])
    x = np.linspace(0.05, 1.95, 20)  # between the third knot from either end
    for i in range(knots.size - 3):
        one = np.eye(knots.size - 3)[i]
        expected = BSpline(knots, one, 2)(x)
        actual = [bspline_ref(i, 2, knots, value) for value in x]
        np.testing.assert_allclose(actual, expected, rtol=FLOAT64, atol=FLOAT64)


def test_efficient_kan_is_scipys_spline_plus_silu(rng):
    knots = np.tile(np.linspace(-2.2, 2.2, 12), (2, 1))
    parameters = {
        "base_weight": rng.normal(size=(1, 2)),
        "spline_weight": rng.normal(size=(1, 2, 8)),
        "spline_scaler": rng.normal(size=(1, 2)),
        "grid": knots,
    }
    x = rng.uniform(-1, 1, size=(10, 2))
    expected = np.zeros(10)
    for i in range(2):
        silu = x[:, i] / (1 + np.exp(-x[:, i]))
        spline = BSpline(knots[i], parameters["spline_weight"][0, i], 3)(x[:, i])
        expected += parameters["base_weight"][0, i] * silu
        expected += parameters["spline_scaler"][0, i] * spline
    y = efficient_kan_ref(x, parameters, np.zeros((10, 1))).y
    np.testing.assert_allclose(y[:, 0], expected, rtol=FLOAT64, atol=FLOAT64)


def test_fourier_kan_is_numpys_inverse_transform(rng):
    # With samples at 2 pi n / N the layer is an inverse discrete Fourier transform.
    grid_size, count = 5, 16
    coeffs = rng.normal(size=(2, 1, 1, grid_size))
    x = 2 * np.pi * np.arange(count)[:, None] / count
    spectrum = np.zeros(count // 2 + 1, dtype=complex)
    spectrum[0] = 0.7 * count
    spectrum[1 : grid_size + 1] = (coeffs[0, 0, 0] - 1j * coeffs[1, 0, 0]) * count / 2
    parameters = {"fouriercoeffs": coeffs, "bias": np.array([[0.7]])}
    y = fourier_kan_ref(x, parameters, np.zeros((count, 1))).y
    np.testing.assert_allclose(y[:, 0], np.fft.irfft(spectrum), rtol=FLOAT64, atol=10 * FLOAT64)


def test_the_range_of_the_defaults_sums_to_what_the_docstring_says():
    knots = np.linspace(-2.2, 2.2, 12)[None]
    at = np.array([[0.3], [1.5], [2.3]])
    sums = basis_matrix_ref(at, knots, 3).sum(-1)[:, 0]
    np.testing.assert_allclose(sums[[0, 2]], [1, 0], atol=FLOAT64)
    assert round(sums[1], 2) == 0.68


def _parameters(rng, name):
    """Normal parameters of a network of MODEL_WIDTHS, shaped as variants.md states."""
    if name == "mlp":
        first, hidden, last = MODEL_WIDTHS
        shapes = {
            "layer1.weight": (hidden, first),
            "layer1.bias": (hidden,),
            "layer2.weight": (last, hidden),
            "layer2.bias": (last,),
        }
        return {key: rng.normal(size=shape) for key, shape in shapes.items()}
    parameters = {}
    for n, (i, o) in enumerate(itertools.pairwise(MODEL_WIDTHS)):
        if name == "efficient_kan":
            parameters[f"layers.{n}.base_weight"] = rng.normal(size=(o, i))
            parameters[f"layers.{n}.spline_weight"] = rng.normal(size=(o, i, 8))
            parameters[f"layers.{n}.spline_scaler"] = rng.normal(size=(o, i))
            parameters[f"layers.{n}.grid"] = np.tile(np.linspace(-2.2, 2.2, 12), (i, 1))
        else:
            parameters[f"layers.{n}.fouriercoeffs"] = rng.normal(size=(2, o, i, 3))
            parameters[f"layers.{n}.bias"] = rng.normal(size=(1, o))
    return parameters


@pytest.mark.parametrize("name", ["mlp", "efficient_kan", "fourier_kan"])
def test_gradients_are_finite_differences_of_the_output(rng, name):
    reference = ROWS[name].network_ref
    parameters = _parameters(rng, name)
    x, grad_y = rng.uniform(-1, 1, size=(4, MODEL_WIDTHS[0])), rng.normal(size=(4, 3))
    passes = reference(x, parameters, grad_y)

    def loss(direction, step):
        moved = {key: value + step * direction.get(key, 0) for key, value in parameters.items()}
        return (grad_y * reference(x + step * direction["x"], moved, grad_y).y).sum()

    for key, grad in {"x": passes.grad_x, **passes.grads}.items():
        direction = {"x": np.zeros_like(x)}
        direction[key] = rng.normal(size=grad.shape)
        # Step 1e-5: the central difference errs by its square times a third derivative of
        # up to 1e3, and by 1e-16 / 1e-5 times values of up to 1e2.
        slope = (loss(direction, 1e-5) - loss(direction, -1e-5)) / 2e-5
        np.testing.assert_allclose((grad * direction[key]).sum(), slope, rtol=1e-6, atol=1e-6)


def test_adapted_knots_of_equally_spaced_samples_are_uniform():
    # Order statistics of equally spaced samples are the uniform knots without margin.
    knots = adapted_knots_ref(np.linspace(-3, 2, 11), 5, 2, grid_eps=0.3, margin=0.5)
    inner = 0.3 * np.linspace(-3.5, 2.5, 6) + 0.7 * np.linspace(-3, 2, 6)
    np.testing.assert_allclose(knots[2:-2], inner, atol=FLOAT64)
    np.testing.assert_allclose(np.diff(knots)[[0, 1, -2, -1]], 6 / 5, atol=FLOAT64)


def test_entropy_of_equal_splines_is_the_logarithm_of_their_number():
    weight = np.full((2, 3, 4), -0.5)
    assert regularization_ref(weight, 2.0, 0.0) == pytest.approx(2 * 3.0)
    assert regularization_ref(weight, 0.0, 5.0) == pytest.approx(5 * np.log(6))
