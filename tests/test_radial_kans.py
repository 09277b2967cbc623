"""FastKAN, FasterKAN, RBF-KAN and ReLU-KAN: their grids, what starts frozen, and the faults of
published code that they do not have."""

import numpy as np
import pytest
import torch

import kan_impls
from kan_impls import upstream
from tests.helpers import FLOAT64, assert_close, random_like, randomize, run, run_ref
from tests.reference import gaussian_ref, radial_layer_ref
from tests.test_bad_input import assert_raises

KEYS = {
    "fast_kan": ("rbf.grid", "spline_linear.weight", "o ik"),
    "rbf_kan": ("rbf_linear.grid", "rbf_linear.spline_weight", "ik o"),
}
BOTH = ("", "fused_")
# As published: the whole network, and what is trained of it.
TRAINED = {"fast_kan": 10_015_001, "faster_kan": 10_014_000, "rbf_kan": 10_011_001}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("prefix", BOTH)
@pytest.mark.parametrize("ends", [(-3, 1), (0, 10)], ids=str)
def test_functions_are_as_wide_as_the_distance_of_two_centres(name, prefix, ends, device):
    ranges = {"grid_min": ends[0], "grid_max": ends[1], "num_grids": 5}
    layer = kan_impls.create_layer(
        prefix + name, 4, 3, **ranges, device=device, dtype=torch.float64
    )
    grid, *weights = KEYS[name]
    np.testing.assert_allclose(upstream.export(layer)[grid].cpu(), np.linspace(*ends, 5))
    width = (ends[1] - ends[0]) / 4
    reference = radial_layer_ref(gaussian_ref, lambda _: width, grid, *weights)
    if name == "fast_kan":
        layer.layernorm = None
    x, grad_y = 4 * random_like(layer, 9, 4), random_like(layer, 9, 3)
    expected = run_ref(reference, randomize(layer), x, grad_y)
    assert_close(run(layer, x, grad_y), expected, FLOAT64)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("prefix", BOTH)
def test_centres_start_frozen_and_can_be_trained(name, prefix):
    variant = kan_impls.get_variant(prefix + name)
    model = variant.model(variant.reference_widths, **variant.reference_config, device="meta")
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert trained == TRAINED[name]
    layer = kan_impls.create_layer(prefix + name, 3, 2)
    (centres,) = (value for key, value in layer.named_parameters() if key.endswith("grid"))
    layer(torch.ones(4, 3)).sum().backward()
    assert centres.grad is None
    centres.requires_grad_()
    layer(torch.rand(4, 3)).sum().backward()
    assert centres.grad.any()


@pytest.mark.parametrize("prefix", BOTH)
def test_the_gradient_of_faster_kan_does_not_depend_on_what_its_forward_never_uses(prefix, device):
    # The published backward pass multiplies the gradient of x by inv_denominator.
    passes = []
    for value in (0.5, 7.0):
        torch.manual_seed(0)
        layer = kan_impls.create_layer(
            f"{prefix}faster_kan", 4, 3, inv_denominator=value, device=device, dtype=torch.float64
        )
        assert upstream.export(layer)["rbf.inv_denominator"] == value
        torch.manual_seed(1)
        passes.append(run(layer, random_like(layer, 9, 4), random_like(layer, 9, 3)))
    assert_close(*passes, 0)


@pytest.mark.parametrize("prefix", BOTH)
def test_switches_far_from_their_centre_keep_their_digits(prefix, device):
    # As 1 - tanh^2 they would be 0 in float32 from a distance of 9, and the gradient with them.
    layer = kan_impls.create_layer(
        f"{prefix}faster_kan", 1, 1, num_grids=1, grid_min=0, use_layernorm=False, device=device
    )
    with torch.no_grad():
        layer.get_parameter(layer.names["weight"]).fill_(1)
    x = torch.tensor([[12.0], [-15.0]], device=device, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    at = x.detach().double()
    torch.testing.assert_close(y.double(), at.cosh() ** -2, rtol=1e-5, atol=0)
    expected = -2 * at.tanh() * at.cosh() ** -2
    torch.testing.assert_close(x.grad.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("prefix", BOTH)
def test_relu_kan_stores_its_weights_as_published(prefix):
    # The published forward pass reshapes (in, functions) to (functions, in).
    layer = kan_impls.create_layer(f"{prefix}relu_kan", 3, 2, grid_size=4, order=2)
    weight = torch.arange(36.0).view(2, 1, 6, 3)
    upstream.load(layer, {**upstream.export(layer), "equal_size_conv.weight": weight})
    assert torch.equal(layer.as_formula("weight"), weight.view(2, 3, 6))
    assert torch.equal(upstream.export(layer)["equal_size_conv.weight"], weight)


@pytest.mark.parametrize("prefix", ["", "fused_"])
def test_bumps_are_zero_as_far_as_numbers_reach(prefix):
    layer = kan_impls.create_layer(f"{prefix}relu_kan", 3, 2)
    x = torch.tensor([[1e38, -1e38, 0.5]], requires_grad=True)
    y = layer(x)
    y.sum().backward()
    found = [y, x.grad, *(parameter.grad for parameter in layer.parameters())]
    assert all(tensor.isfinite().all() for tensor in found)
    assert not x.grad[0, :2].any()


@pytest.mark.parametrize("prefix", BOTH)
def test_relu_kan_starts_with_bumps_of_height_one(prefix):
    layer = kan_impls.create_layer(f"{prefix}relu_kan", 2, 1, grid_size=4, order=2)
    middles = (layer.phase_low[:1] + layer.phase_height[:1]) / 2  # of the six functions
    phi = layer.basis.value(middles.mT.expand(6, 2), layer.phase_low, layer.phase_height)
    torch.testing.assert_close(phi[:, 0].diagonal(), torch.ones(6))


@pytest.mark.parametrize("name", ["fast_kan", "faster_kan"])
def test_a_layer_norm_of_one_input_is_refused(name):
    assert_raises(
        ValueError,
        lambda: kan_impls.create_layer(name, 1, 2),
        "in_features is 1 with use_layernorm=True; expected 2 or more, because",
    )
    kan_impls.create_layer(name, 1, 2, use_layernorm=False)


@pytest.mark.parametrize("name", ["fast_kan", "rbf_kan"])
def test_grids_that_are_none(name):
    assert_raises(
        ValueError,
        lambda: kan_impls.create_layer(name, 3, 2, num_grids=1),
        "num_grids is 1; expected 2 or more, because the functions are as wide",
    )
    for other in (name, "faster_kan"):
        assert_raises(
            ValueError,
            lambda other=other: kan_impls.create_layer(other, 3, 2, grid_min=1, grid_max=1),
            "(grid_min, grid_max) is (1.0, 1.0); expected two finite",
        )
