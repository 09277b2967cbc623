"""What efficient_kan, plain and fused, has beyond the contract: start, grid, regularisation."""

import numpy as np
import pytest
import torch

import kan_impls
from kan_impls import splines
from tests.helpers import (
    FLOAT64,
    assert_close,
    assert_unchanged,
    published,
    random_like,
    randomize,
    relative_error,
    run,
    run_ref,
    to_numpy,
)
from tests.reference import (
    adapted_knots_ref,
    basis_matrix_ref,
    efficient_kan_ref,
    regularization_ref,
)

# Knots are sums of three or four numbers below 10: some roundings of 1e-16.
KNOTS = 1e-14


@pytest.fixture(params=["efficient_kan", "fused_efficient_kan"])
def name(request):
    return request.param


def build(name, device, dtype=torch.float64, **config):
    layer = kan_impls.create_layer(name, 3, 4, device=device, dtype=dtype, **config)
    return randomize(layer)


def test_initial_splines_are_noise_at_the_knots(name, device):
    layer = kan_impls.create_layer(
        name, 30, 20, scale_noise=0.2, dtype=torch.float64, device=device
    )
    inner = np.linspace(-1, 1, 6)
    phi = basis_matrix_ref(inner[:, None], published(layer)["grid"][:1], 3)
    noise = np.einsum("nk,oik->oin", phi[:, 0], published(layer)["spline_weight"])
    # Uniform on +-scale / (2 grid_size): with 3600 draws the ends are reached within 1%
    # except with a probability of 1e-15. The fit is exact up to rounding.
    assert 0.99 * 0.02 <= np.abs(noise).max() <= 0.02 + 1e-12
    assert abs(noise.mean()) <= 5 * 0.02 / np.sqrt(3 * 3600)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_at_a_knot_the_interval_to_its_right_counts(name, device, order):
    layer = build(name, device, spline_order=order)
    x = layer.grid.t().clone()  # every knot, those outside the range included
    grad_y = random_like(layer, len(x), 4)
    actual, expected = run(layer, x, grad_y), run_ref(efficient_kan_ref, layer, x, grad_y)
    if name == "fused_efficient_kan" and order == 1:
        # Splines of order 1 have a kink there, and rounding the position in units of cells
        # decides which side's slope it is.
        actual = actual._replace(grad_x=expected.grad_x)
    assert_close(actual, expected, FLOAT64)


def test_initial_base_and_scaler_are_kaiming_uniform(name, device):
    layer = kan_impls.create_layer(name, 50, 40, scale_base=2.0, device=device)
    for parameter, scale in ((layer.base_weight, 2.0), (layer.spline_scaler, 1.0)):
        bound = np.sqrt(6 / (1 + 5 * scale**2) / 50)
        # With 2000 draws the end is reached within 1% except with a probability of 2e-9.
        assert 0.99 * bound <= parameter.abs().max().item() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("count", [1, 2, 7, 101])
@pytest.mark.parametrize(
    "config", [{}, {"grid_size": 4, "spline_order": 2, "grid_eps": 0.5}], ids=str
)
def test_new_knots_are_the_blend_of_uniform_and_adaptive(name, device, count, config):
    layer = build(name, device, **config)
    x = random_like(layer, count, 3)
    layer.update_grid(x, margin=0.05)
    for feature in range(3):
        expected = adapted_knots_ref(
            to_numpy(x)[:, feature],
            layer.basis.grid_size,
            layer.basis.spline_order,
            layer.options["grid_eps"],
            margin=0.05,
        )
        np.testing.assert_allclose(to_numpy(layer.grid)[feature], expected, atol=KNOTS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_new_knots_are_sorted_and_cover_the_samples(name, device, dtype):
    layer = build(name, device, dtype)
    x = 3 + 5 * random_like(layer, 64, 3)
    layer.update_grid(x)
    assert (layer.grid.diff(dim=1) > 0).all()
    order = layer.basis.spline_order
    assert (layer.grid[:, order] <= x.min(0).values).all()
    assert (layer.grid[:, -1 - order] >= x.max(0).values).all()
    # On the whole new range the splines sum to 1, up to roundings of knots near 20 that
    # are some 0.1 apart.
    phi = layer.basis.value(x.double(), layer.grid.double())
    np.testing.assert_allclose(to_numpy(phi.sum(-1)), 1, rtol=1e-12)


@pytest.mark.parametrize("chunk_bytes", [1, splines.FIT_BYTES])
@pytest.mark.parametrize("standalone_scale", [True, False])
def test_update_keeps_a_cubic_polynomial(name, device, monkeypatch, chunk_bytes, standalone_scale):
    monkeypatch.setattr(splines, "FIT_BYTES", chunk_bytes)
    layer = build(name, device, enable_standalone_scale_spline=standalone_scale)
    # Every space of cubic splines contains the cubic polynomials, so that these are
    # representable on the old knots and on the new.
    at = np.linspace(-0.99, 0.99, 50)
    phi = basis_matrix_ref(at[:, None], published(layer)["grid"][:1], 3)[:, 0]
    for feature, polynomial in enumerate(([1, 0, -2, 0.5], [0, 3, 1, 1], [-2, 1, 0, 0])):
        coefficients = np.linalg.lstsq(phi, np.polyval(polynomial, at), rcond=None)[0]
        with torch.no_grad():
            weight = layer.as_published("weight")
            weight[:, feature] = torch.from_numpy(coefficients)
    x = torch.rand(200, 3, dtype=torch.float64).to(device) * 1.9 - 0.95
    between = torch.linspace(-0.9, 0.9, 37, dtype=torch.float64).to(device)[:, None].expand(-1, 3)
    before, before_between = to_numpy(layer(x)), to_numpy(layer(between))
    old_grid = layer.grid.clone()
    layer.update_grid(x)
    assert (layer.grid - old_grid).abs().max() > 0.01
    # Two least-squares fits with condition numbers of up to 1e3.
    assert relative_error(to_numpy(layer(x)), before) <= 1e-11
    assert relative_error(to_numpy(layer(between)), before_between) <= 1e-11


def test_update_gives_the_best_approximation_of_any_spline(name, device):
    layer = build(name, device)
    x = 0.5 * random_like(layer, 80, 3)
    x[:, 1] += 0.7  # partly outside the old range
    old = published(layer)
    layer.update_grid(x)
    new = published(layer)
    for feature in range(3):
        column = to_numpy(x)[:, feature : feature + 1]
        phi_old, phi_new = (
            basis_matrix_ref(column, state["grid"][feature : feature + 1], 3)[:, 0]
            for state in (old, new)
        )
        values = phi_old @ old["spline_weight"][:, feature].T
        best = phi_new @ np.linalg.lstsq(phi_new, values, rcond=None)[0]
        # Two ways to solve least squares, with condition numbers of up to 1e4.
        assert relative_error(phi_new @ new["spline_weight"][:, feature].T, best) <= 1e-10
    np.testing.assert_array_equal(new["spline_scaler"], old["spline_scaler"])
    np.testing.assert_array_equal(new["base_weight"], old["base_weight"])


@pytest.mark.parametrize("margin", [0.01, 0.0])
@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_repeated_samples_give_no_nan(name, device, distinct, margin):
    layer = build(name, device)
    x = random_like(layer, distinct, 3).repeat(20, 1)
    before = to_numpy(layer(x))
    layer.update_grid(x, margin)
    y = layer(x.requires_grad_())
    y.sum().backward()
    for tensor in (y, x.grad, *layer.parameters(), layer.grid):
        assert tensor.isfinite().all()
    assert (layer.grid.diff(dim=1) >= 0).all()
    if margin:
        # There are more splines than samples, and so a fit without error.
        assert relative_error(to_numpy(y), before) <= 1e-9


def test_samples_whose_knots_the_dtype_cannot_hold_are_refused(name, device):
    layer = build(name, device, torch.float32)
    x = torch.tensor([[-3e38, 0, 1], [3e38, 1, 2]], device=device)
    with (
        assert_unchanged(layer),
        pytest.raises(ValueError, match=r"beyond torch\.float32; exp"),
    ):
        layer.update_grid(x)


def test_a_reset_is_a_fresh_layer(name, device):
    fresh, used = build(name, device), build(name, device)
    used.update_grid(random_like(used, 50, 3))
    torch.manual_seed(1)
    used.reset_parameters()
    torch.manual_seed(1)
    fresh.reset_parameters()
    for key, value in fresh.state_dict().items():
        assert torch.equal(used.state_dict()[key], value), key
    x, grad_y = random_like(used, 9, 3), random_like(used, 9, 4)
    assert_close(run(used, x, grad_y), run(fresh, x, grad_y), 0)


@pytest.mark.parametrize(("grid_size", "order"), [(5, 3), (1, 1), (2, 3), (5, 9), (300, 3)])
def test_the_initial_fit_is_that_of_least_norm(name, device, grid_size, order):
    basis = kan_impls.create_layer(name, 1, 1, grid_size=grid_size, spline_order=order).basis
    knots = basis.uniform_knots((-2.0, 0.5))
    expected = basis.fit_operator(knots[order:-order, None], knots[None])[0]
    # Two ways to solve, with condition numbers of up to 1e3.
    torch.testing.assert_close(basis.interpolation_operator(knots), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("leading", [(60,), (3, 4, 5)], ids=str)
def test_update_takes_any_leading_shape(name, device, leading):
    layer, twin = build(name, device), build(name, device)
    twin.load_state_dict(layer.state_dict())
    x = random_like(layer, 60, 3)
    layer.update_grid(x)
    twin.update_grid(x.view(*leading, 3))
    assert torch.equal(layer.grid, twin.grid)
    assert torch.equal(layer.spline_weight, twin.spline_weight)


def test_update_of_a_network_follows_the_samples_through_it(name, device):
    model = randomize(kan_impls.create_model(name, [3, 4, 2], device=device, dtype=torch.float64))
    twin = randomize(kan_impls.create_model(name, [3, 4, 2], device=device, dtype=torch.float64))
    twin.load_state_dict(model.state_dict())
    x = random_like(model, 60, 3)
    model.update_grid(x)
    twin.layers[0].update_grid(x)
    twin.layers[1].update_grid(twin.layers[0](x))
    for key, value in twin.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize("bad", ["none", "nan", "inf"])
def test_bad_samples_are_refused_and_change_nothing(name, device, bad):
    layer = build(name, device)
    x = random_like(layer, 0 if bad == "none" else 9, 3)
    if bad != "none":
        x[4, 1] = float(bad)
    with assert_unchanged(layer), pytest.raises(ValueError, match=r"expected one or more samples"):
        layer.update_grid(x)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 0.0), (0.0, 2.0)])
def test_regularization_is_the_formula(name, device, weights):
    layer = build(name, device)
    with torch.no_grad():
        layer.spline_weight[1, 2] = 0
    expected = regularization_ref(published(layer)["spline_weight"], *weights)
    assert layer.regularization_loss(*weights).item() == pytest.approx(expected, rel=1e-13)


def test_regularization_of_a_network_is_the_sum(name, device):
    model = kan_impls.create_model(name, [3, 4, 2], device=device, dtype=torch.float64)
    expected = sum(
        regularization_ref(published(layer)["spline_weight"], 0.5, 2.0) for layer in model.layers
    )
    assert model.regularization_loss(0.5, 2.0).item() == pytest.approx(expected, rel=1e-13)


def test_gradient_of_the_regularization(name, device):
    layer = build(name, device)

    def loss(weight):
        return torch.func.functional_call(
            _Regularization(layer), {"layer.spline_weight": weight}, ()
        )

    assert torch.autograd.gradcheck(loss, layer.spline_weight.detach().requires_grad_())


class _Regularization(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self):
        return self.layer.regularization_loss(0.5, 2.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("zero", ["all", "one edge"])
def test_regularization_of_zero_splines_has_finite_gradients(name, device, dtype, zero):
    layer = build(name, device, dtype)
    with torch.no_grad():
        layer.spline_weight[... if zero == "all" else (1, 2)] = 0
    loss = layer.regularization_loss()
    loss.backward()
    assert loss.item() == 0 if zero == "all" else loss.item() > 0
    assert layer.spline_weight.grad.isfinite().all()
