"""Live parity with the published efficient_kan package, where it is installed."""

import importlib

import numpy as np
import pytest
import torch

import kan_impls
from tests.helpers import assert_close, randomize, relative_error, to_numpy
from tests.reference import Passes

# Both compute in float64, in an order of their own: as close as to the oracle.
BOUND = 1e-10

try:
    published = importlib.import_module("efficient_kan")
except ImportError as error:
    pytest.skip(
        f"the published efficient_kan is not installed ({error}): docs/measurements.md says how",
        allow_module_level=True,
    )


@pytest.fixture(params=[{}, {"grid_size": 8, "spline_order": 2, "grid_range": [-2, 2]}], ids=str)
def networks(request, device):
    """Theirs and ours with the same parameters."""
    theirs = published.KAN([7, 4, 5], **request.param).double().to(device)
    ours = kan_impls.create_model("efficient_kan", [7, 4, 5], **request.param, device=device)
    randomize(theirs)
    return theirs, share(theirs, ours.double())


@pytest.fixture(params=[True, False], ids=["scaler", "no scaler"])
def layers(request, device):
    """Theirs and ours with the same parameters."""
    options = {"enable_standalone_scale_spline": request.param}
    theirs = published.KANLinear(7, 5, **options).double().to(device)
    ours = kan_impls.create_layer("efficient_kan", 7, 5, **options, device=device)
    randomize(theirs)
    return theirs, share(theirs, ours.double())


def share(theirs, ours):
    kan_impls.upstream.load(ours, theirs.state_dict())
    return ours


def run(module, x, grad_y):
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(grad_y)
    grads = {name: to_numpy(p.grad) for name, p in module.named_parameters()}
    return Passes(to_numpy(y), to_numpy(x.grad), grads)


@pytest.mark.parametrize("scale", [0.5, 2.0])  # within the grid, and partly outside
def test_a_layer_has_the_same_output_and_gradients(layers, scale, device):
    assert_same_passes(*layers, scale, device)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_network_has_the_same_output_and_gradients(networks, scale, device):
    assert_same_passes(*networks, scale, device)


def assert_same_passes(theirs, ours, scale, device):
    x = scale * torch.randn(50, 7, dtype=torch.float64).to(device)
    grad_y = torch.randn(50, 5, dtype=torch.float64).to(device)
    assert_close(run(ours, x, grad_y), run(theirs, x, grad_y), BOUND)


def test_checkpoints_are_interchangeable(networks):
    theirs, ours = networks
    state = theirs.state_dict()
    ours.load_state_dict(state)
    theirs.load_state_dict(kan_impls.upstream.export(ours))
    for key, value in kan_impls.upstream.export(ours).items():
        assert torch.equal(value, state[key]), key


def test_the_penalty_is_the_same(networks):
    theirs, ours = networks
    expected = theirs.regularization_loss(0.5, 2.0).item()
    assert ours.regularization_loss(0.5, 2.0).item() == pytest.approx(expected, rel=1e-12)


def test_a_grid_update_moves_the_knots_to_the_same_places(layers, device):
    theirs, ours = layers
    x = torch.randn(60, 7, dtype=torch.float64).to(device)
    theirs.update_grid(x)
    ours.update_grid(x)
    np.testing.assert_allclose(to_numpy(ours.grid), to_numpy(theirs.grid), atol=1e-12)


def test_a_grid_update_refits_to_the_same_splines(device):
    # Without the scaler, which the published update applies twice.
    options = {"enable_standalone_scale_spline": False}
    theirs = randomize(published.KANLinear(7, 5, **options).double().to(device))
    ours = kan_impls.create_layer("efficient_kan", 7, 5, **options, device=device).double()
    share(theirs, ours)
    x = 0.5 * torch.randn(200, 7, dtype=torch.float64).to(device)
    theirs.update_grid(x)
    ours.update_grid(x)
    # Two ways to solve least squares, with condition numbers of up to 1e4.
    assert relative_error(to_numpy(ours(x)), to_numpy(theirs(x))) <= BOUND
