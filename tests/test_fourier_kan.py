"""The initial values of the two Fourier layers."""

import pytest
import torch

import kan_impls
from tests.helpers import published

FOURIER = ("fourier_kan", "fused_fourier_kan")


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("name", FOURIER)
def test_initial_coefficients_have_the_published_deviation(device, name, smooth):
    layer = kan_impls.create_layer(
        name, 40, 60, grid_size=4, smooth_initialization=smooth, device=device
    )
    coeffs = published(layer)["fouriercoeffs"]
    for k in range(1, 5):
        deviation = 1 / (40**0.5 * (k**2 if smooth else 4**0.5))
        draws = coeffs[..., k - 1]
        # The deviation of n normal draws is within 5 / sqrt(2 n) of the true one except
        # with a probability of 6e-7, their mean within 5 / sqrt(n).
        assert draws.std() == pytest.approx(deviation, rel=5 / (2 * draws.size) ** 0.5)
        assert abs(draws.mean()) <= 5 * deviation / draws.size**0.5
    assert not published(layer)["bias"].any()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_both_start_as_the_same_function(device, dtype, smooth):
    options = {"smooth_initialization": smooth, "device": device, "dtype": dtype}
    states = []
    for name in FOURIER:
        torch.manual_seed(1)
        layer = kan_impls.create_layer(name, 5, 4, grid_size=3, **options)
        states.append(kan_impls.upstream.export(layer))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", FOURIER)
def test_reset_draws_anew(device, name):
    layer = kan_impls.create_layer(name, 5, 4, grid_size=3, device=device)
    before = published(layer)["fouriercoeffs"]
    with torch.no_grad():
        layer.bias.fill_(1)
    layer.reset_parameters()
    assert (published(layer)["fouriercoeffs"] != before).all()
    assert not published(layer)["bias"].any()
