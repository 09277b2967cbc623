"""pykan: its start, and its mask."""

import numpy as np
import pytest
import torch

import kan_impls
from tests.helpers import FLOAT64, assert_close, published, random_like, randomize, run, run_ref
from tests.reference import basis_matrix_ref, pykan_ref


@pytest.fixture(params=["pykan", "fused_pykan"])
def name(request):
    return request.param


def test_it_starts_as_published(name, device):
    layer = kan_impls.create_layer(name, 30, 20, dtype=torch.float64, device=device)
    values = published(layer)
    assert (values["mask"] == 1).all()
    np.testing.assert_allclose(values["scale_sp"], 30**-0.5, rtol=1e-15)
    phi = basis_matrix_ref(np.linspace(-1, 1, 6)[:, None], values["grid"][:1], 3)
    noise = np.einsum("nk,iok->ion", phi[:, 0], values["coef"])
    # Uniform up to 0.5 / (2 grid_size), as of efficient_kan.
    assert 0.99 * 0.05 <= np.abs(noise).max() <= 0.05 + 1e-12


def test_the_base_starts_around_its_mean(name, device):
    layer = kan_impls.create_layer(name, 100, 40, scale_base=0.5, scale_base_mean=2.0)
    drawn = published(layer)["scale_base"]
    # Uniform on 0.2 +- 0.05: of 4000 draws.
    assert 0.15 <= drawn.min() <= 0.151
    assert 0.249 <= drawn.max() <= 0.25 + 1e-7


def test_the_mask_prunes_edges_and_is_not_trained(name, device):
    layer = kan_impls.create_layer(name, 4, 3, dtype=torch.float64, device=device)
    assert not layer.mask.requires_grad
    randomize(layer)
    with torch.no_grad():
        layer.mask[1] = 0  # the second input
    x, grad_y = random_like(layer, 9, 4), random_like(layer, 9, 3)
    found = run(layer, x, grad_y)
    assert (found.grad_x[:, 1] == 0).all()
    assert all((grad[1] == 0).all() for key, grad in found.grads.items() if key != "mask")
    x[:, 1] = 0.3
    assert_close(run(layer, x, grad_y)._replace(grads={}), found._replace(grads={}), 0)


def test_it_is_the_formula_on_knots_that_were_moved(name, device):
    layer = randomize(kan_impls.create_layer(name, 3, 4, dtype=torch.float64, device=device))
    x, grad_y = random_like(layer, 80, 3), random_like(layer, 80, 4)
    layer.update_grid(x)
    assert_close(run(layer, x, grad_y), run_ref(pykan_ref, layer, x, grad_y), FLOAT64)
