"""Properties that hold for any shape and any parameters."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kan_impls
from kan_impls.basis.bspline import BSplineBasis
from tests.cases import cases
from tests.helpers import randomize, relative_error, to_numpy

# The same examples in every run, and no deadline: neither chance nor the machine's speed
# may decide about a test.
settings.register_profile("kan_impls", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("kan_impls")

# Some hundred roundings of 1.1e-16, in sums whose norm the terms do not exceed by much.
ROUNDING = 1e-12

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 6)
FOURIER = ("fourier_kan", "fused_fourier_kan")


def normal(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@st.composite
def splines(draw):
    """A basis, its knots (uniform or not) and one interval per feature."""
    order = draw(st.integers(1, 5))
    grid_size = draw(st.integers(order, 12))
    basis = BSplineBasis(grid_size, order)
    low = draw(st.floats(-100, 100))
    width = draw(st.floats(1e-2, 100))
    knots = basis.uniform_knots((low, low + width))[None].repeat(2, 1)
    if draw(st.booleans()):
        steps = torch.rand(
            2,
            knots.shape[1],
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(draw(seeds)),
        )
        knots = low + (0.05 + steps).cumsum(-1) * (width / knots.shape[1])
    return basis, knots


@given(splines(), seeds)
def test_splines_sum_to_one_on_the_range(device, spline, seed):
    basis, knots = spline
    low, high = knots[:, basis.spline_order], knots[:, -1 - basis.spline_order]
    at = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    phi = basis.value((low + at * (high - low)).to(device), knots.to(device))
    assert phi.shape == (20, 2, basis.num_basis)
    # A position on knots near 100 is rounded to 1e-14, of intervals down to 1e-3 / 12.
    np.testing.assert_allclose(to_numpy(phi.sum(-1)), 1, rtol=1e-9)
    assert (phi >= -1e-12).all()


@given(splines(), seeds)
def test_splines_are_zero_outside_their_support(device, spline, seed):
    basis, knots = spline
    low, high = knots[:, 0], knots[:, -1]
    at = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = low + (1.4 * at - 0.2) * (high - low)
    phi = basis.value(x.to(device), knots.to(device)).cpu()
    x = x.unsqueeze(-1)
    outside = (x < knots[:, : basis.num_basis]) | (x >= knots[:, -basis.num_basis :])
    assert outside.sum(-1).min() >= basis.num_basis - basis.spline_order - 1
    assert (phi[outside] == 0).all()


@given(sizes, sizes, st.integers(1, 20), st.integers(0, 5), st.booleans(), seeds)
def test_both_fourier_implementations_are_one_function(device, i, o, grid_size, batch, bias, seed):
    x, grad_y = (normal(seed + n, batch, width).to(device) for n, width in enumerate((i, o)))
    options = {"grid_size": grid_size, "bias": bias, "dtype": torch.float64, "device": device}
    direct, fused = (kan_impls.create_layer(name, i, o, **options) for name in FOURIER)
    torch.manual_seed(seed)
    kan_impls.upstream.load(fused, kan_impls.upstream.export(randomize(direct)))
    results = []
    for layer in (direct, fused):
        layer_x = x.clone().requires_grad_()
        y = layer(layer_x)
        y.backward(grad_y)
        grads = kan_impls.upstream.export(layer, grads=True)
        results.append({"y": y, "grad_x": layer_x.grad, **grads})
    for key, expected in results[0].items():
        # Absolute, by the number of terms: the norm of one output may be next to nothing.
        bound = ROUNDING * grid_size**2 * max(i, o, batch, 1)
        assert (results[1][key] - expected).abs().max().item() <= bound if expected.numel() else 1


@given(st.sampled_from(FOURIER), st.integers(1, 20), st.integers(-50, 50), seeds)
def test_fourier_layers_have_period_two_pi(device, name, grid_size, turns, seed):
    layer = kan_impls.create_layer(name, 3, 2, grid_size=grid_size, dtype=torch.float64)
    layer.to(device)
    x = normal(seed, 5, 3).to(device)
    there = layer(x + 2 * math.pi * turns)
    # x + 2 pi n is rounded to half a unit at 2 pi n + |x|, and harmonic k takes k times that
    # error; 2 pi itself is known to 2.5e-16.
    error = grid_size * (abs(2 * math.pi * turns) + 10) * 2.3e-16
    scale = to_numpy(kan_impls.upstream.export(layer)["fouriercoeffs"].abs().sum((0, 2, 3)))
    assert (np.abs(to_numpy(there - layer(x))) <= 2 * error * scale).all()


@given(st.sampled_from(FOURIER), st.integers(1, 20), st.floats(-3, 3), seeds)
def test_fourier_layers_are_linear_in_the_coefficients(device, name, grid_size, factor, seed):
    options = {"grid_size": grid_size, "dtype": torch.float64, "device": device}
    torch.manual_seed(seed)
    first, second, mixed = (
        randomize(kan_impls.create_layer(name, 3, 2, **options)) for _ in range(3)
    )
    with torch.no_grad():
        pairs = zip(mixed.parameters(), first.parameters(), second.parameters(), strict=True)
        for target, a, b in pairs:
            target.copy_(a + factor * b)
    x = normal(seed, 5, 3).to(device)
    expected = to_numpy(first(x) + factor * second(x))
    assert relative_error(to_numpy(mixed(x)), expected) <= ROUNDING * grid_size


@given(st.sampled_from(cases()), st.integers(1, 8), seeds)
def test_rows_are_independent(device, case, batch, seed):
    torch.manual_seed(seed)
    layer = randomize(case.create(dtype=torch.float64, device=device))
    x = normal(seed, batch, case.config["in_features"]).to(device)
    y = to_numpy(layer(x))
    order = torch.randperm(batch)
    split = batch // 2
    permuted = to_numpy(layer(x[order]))
    halves = np.concatenate([to_numpy(layer(part)) for part in (x[:split], x[split:])])
    # Absolute, by the norm of the batch: a single output may be next to nothing.
    bound = ROUNDING * max(1, np.abs(y).max())
    np.testing.assert_allclose(permuted, y[order.numpy()], rtol=0, atol=bound)
    np.testing.assert_allclose(halves, y, rtol=0, atol=bound)
