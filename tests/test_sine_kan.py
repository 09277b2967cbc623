"""SineKAN: initial values, and angles that stay exact."""

import numpy as np
import pytest
import torch

import kan_impls
from tests.helpers import published, relative_error, run, run_ref
from tests.reference import sine_kan_ref

each_form = pytest.mark.parametrize("name", ["sine_kan", "fused_sine_kan"])


@each_form
@pytest.mark.parametrize("is_first", [True, False])
def test_initial_values_are_the_published_ones(device, name, is_first):
    layer = kan_impls.create_layer(name, 40, 50, grid_size=4, is_first=is_first, device=device)
    values = published(layer)
    harmonics = np.arange(1, 5)
    np.testing.assert_allclose(
        values["freq"].ravel(), harmonics if is_first else harmonics / 5, rtol=1e-6
    )
    assert (values["bias"] == np.float32(1 / 50)).all()
    # One draw for each edge, which the harmonic divides.
    draws = values["amplitudes"] * harmonics * 50
    np.testing.assert_allclose(draws, np.broadcast_to(draws[..., :1], draws.shape), rtol=1e-5)
    draws, deviation = draws[..., 0], 0.4 if is_first else 3**-0.5
    # Of n draws, within 5 / sqrt(2 n) except with a probability of 6e-7.
    assert draws.std() == pytest.approx(deviation, rel=5 / (2 * draws.size) ** 0.5)
    assert is_first or np.abs(draws).max() <= 1


@each_form
def test_a_network_has_one_first_layer(device, name):
    model = kan_impls.create_model(name, [3, 4, 4, 2], grid_size=2, device=device)
    largest = [float(layer.as_published("frequencies").max()) for layer in model.layers]
    assert largest == pytest.approx([2, 2 / 3, 2 / 3])


@each_form
def test_angles_are_exact_where_the_published_ones_are_rounded(device, name):
    layer = kan_impls.create_layer(name, 3, 2, grid_size=4, is_first=True, device=device)
    x = torch.tensor([[250.1, 30.7, -999.3]], device=device)
    grad_y = torch.ones(1, 2, device=device)
    actual, expected = run(layer, x, grad_y), run_ref(sine_kan_ref, layer, x, grad_y)
    # Angles of up to 4000, in float32 rounded to 1.2e-4; a sum of 12 terms has some 3e-7.
    assert relative_error(actual.y, expected.y) <= 2e-6
    assert relative_error(actual.grad_x, expected.grad_x) <= 2e-6
