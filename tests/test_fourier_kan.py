"""The initial values of the two Fourier layers, and their angles far from zero."""

import pytest
import torch

import kan_impls
from tests.helpers import (
    assert_close,
    norms_of_terms,
    published,
    random_like,
    randomize,
    relative_error,
    run,
    run_ref,
    to_numpy,
)
from tests.reference import fourier_kan_ref

# float32: four times the roundings of 2**-24 of a sum of 320 terms, and of a harmonic.
BOUND = 4 * 2**-24 * (18 + 8)

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


@pytest.mark.parametrize("magnitude", [1e3, 9e7])
def test_angles_far_from_zero_are_exact(device, magnitude):
    """In 9e7 times a harmonic an angle has more digits than float32 can reduce."""
    if device.type == "cuda" and magnitude > 1e6:
        pytest.skip("the kernels reduce angles k x of at most 1e8 exactly, see angles.cuh")
    layer = randomize(kan_impls.create_layer("fused_fourier_kan", 4, 64, grid_size=40))
    layer = layer.to(device)
    x, grad_y = magnitude * random_like(layer, 64, 4), random_like(layer, 64, 64)
    x = x.clamp(-magnitude, magnitude)
    expected = run_ref(fourier_kan_ref, layer, x, grad_y)
    norms = norms_of_terms(fourier_kan_ref, layer, x, grad_y)
    assert_close(run(layer, x, grad_y), expected, BOUND, norms)


def test_transforms_take_exact_angles(device):
    layer = randomize(kan_impls.create_layer("fused_fourier_kan", 4, 5, grid_size=20)).to(device)
    x = 1e4 * random_like(layer, 16, 4)
    y = to_numpy(layer(x))
    assert relative_error(to_numpy(torch.func.vmap(layer)(x)), y) <= BOUND
    z = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(layer(z).sum(), z)
    (twice,) = torch.autograd.grad(layer(z).sum(), z, create_graph=True)
    assert relative_error(to_numpy(twice), to_numpy(plain)) <= 20 * BOUND  # slopes of up to 20
