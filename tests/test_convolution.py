"""Convolutions: the same numbers as a loop over patches, and as torch's own for an affine layer."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import kan_impls
from kan_impls import KANConv2d
from tests.helpers import randomize

GEOMETRIES = (
    {},
    {"stride": 2},
    {"padding": 1},
    {"dilation": 2, "padding": (2, 0)},
    {"stride": (1, 3), "padding": (0, 2), "dilation": (1, 2)},
)

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


@each_geometry
@pytest.mark.parametrize("kernel_size", [1, 3, (3, 2)], ids=str)
def test_of_an_affine_layer_it_is_the_convolution_of_torch(kernel_size, geometry, device):
    module = KANConv2d("mlp", 3, 4, kernel_size, **geometry, dtype=torch.float64, device=device)
    x = torch.rand(2, 3, 9, 8, dtype=torch.float64, device=device, requires_grad=True)
    weight, bias = module.layer.layer1.weight, module.layer.layer1.bias
    expected = F.conv2d(x, weight.view(4, 3, *module.kernel_size), bias, **geometry)
    actual = module(x)
    torch.testing.assert_close(actual, expected)
    grad_y = torch.rand_like(expected)
    for found, wanted in zip(
        torch.autograd.grad(actual, (x, weight, bias), grad_y),
        torch.autograd.grad(expected, (x, weight, bias), grad_y),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["fourier_kan", "fused_efficient_kan", "fused_rational_kan"])
def test_every_patch_goes_through_the_layer(name, device):
    module = randomize(KANConv2d(name, 2, 3, (3, 2), stride=2, device=device, dtype=torch.float64))
    x = torch.rand(2, 2, 7, 6, dtype=torch.float64, device=device)
    y = module(x)
    assert y.shape == (2, 3, 3, 3)
    for n, row, column in itertools.product(range(2), range(3), range(3)):
        patch = x[n, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 2]
        torch.testing.assert_close(y[n, :, row, column], module.layer(patch.reshape(-1)))


def test_an_image_without_a_batch(device):
    module = KANConv2d("fused_fourier_kan", 1, 2, 3, grid_size=3, device=device)
    image = torch.rand(1, 5, 5, device=device)
    torch.testing.assert_close(module(image), module(image.unsqueeze(0))[0])


def test_any_layer_of_somebodys_own():
    module = KANConv2d(torch.nn.Linear, 2, 3, 3, padding=1, bias=False)
    assert module.layer.in_features == 18
    assert module.layer.bias is None
    assert module(torch.rand(1, 2, 4, 4)).shape == (1, 3, 4, 4)


def test_it_learns_and_is_stored_as_any_module(device):
    model = torch.nn.Sequential(
        KANConv2d("fused_efficient_kan", 1, 2, 3, stride=2, grid_size=3),
        torch.nn.Flatten(),
        kan_impls.create_layer("fused_efficient_kan", 2 * 3 * 3, 2, grid_size=3),
    ).to(device)
    # Horizontal against vertical stripes.
    stripes = torch.arange(8.0, device=device).expand(8, 8).fmod(2).repeat(16, 1, 1, 1)
    phases = torch.rand(16, 1, 1, 1, device=device)
    x = torch.cat([stripes * phases, stripes.mT * phases])
    labels = torch.arange(2, device=device).repeat_interleave(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    # From log 2 = 0.69; 0.001 to 0.02 from any of four seeds.
    assert loss.item() < 0.1
    copy = KANConv2d("fused_efficient_kan", 1, 2, 3, stride=2, grid_size=3).to(device)
    copy.load_state_dict(model[0].state_dict())
    torch.testing.assert_close(copy(x), model[0](x))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"kernel_size": 0}, ValueError, "kernel_size is 0; expected a positive integer"),
        ({"stride": (1, 2.5)}, TypeError, "stride is 2.5; expected a positive integer"),
        ({"padding": -1}, ValueError, "padding is -1; expected"),
        ({"dilation": (1, 1, 1)}, ValueError, r"dilation is \(1, 1, 1\); expected a number or a"),
        ({"in_channels": True}, TypeError, "in_channels is True; expected a positive integer"),
        ({"grid": 3}, TypeError, "'grid'; expected some of"),
    ],
)
def test_what_cannot_be_built(options, error, said):
    given = {"in_channels": 1, "out_channels": 2, "kernel_size": 3, **options}
    with pytest.raises(error, match=said):
        KANConv2d("fourier_kan", **given)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 3, 8, 8), r"\(2, 3, 8, 8\); expected \(batch, 1, height, width\) or"),
        ((8, 8), r"the shape \(8, 8\); expected"),
        ((2, 1, 8, 2), r"of \(8, 2\) pixels; expected at least as many as the kernel covers"),
    ],
)
def test_images_that_do_not_fit(shape, said):
    with pytest.raises(ValueError, match=said):
        KANConv2d("mlp", 1, 2, 3)(torch.rand(shape))
