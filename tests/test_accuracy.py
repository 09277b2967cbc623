"""Numbers of every implementation against the float64 oracles, wherever inputs and grids lie.

The oracle computes in float64 from the very inputs, parameters and knots that the layer has, in
the layer's dtype; what may differ is the layer's own rounding.
"""

import pytest
import torch

from tests.cases import ROWS, first_cases, largest_cases
from tests.helpers import (
    assert_close,
    build,
    norms_of_terms,
    random_like,
    randomize,
    relative_error,
    rounding_bound,
    run,
    run_ref,
    to_numpy,
)
from tests.reference import efficient_kan_ref

BATCH = 6


def further(*values):
    """Values beyond those that `make test` takes of the same kind; `make field` takes them, too."""
    return [pytest.param(value, marks=pytest.mark.field) for value in values]


# From nearly nothing to nearly the largest float32: to either side of where sigmoid(x) rounds to 1
# (17), of where x + 1 rounds to x (2^24), Unix time in seconds and in milliseconds.
MAGNITUDES = (
    *(0, 1e-30, 1e-3, 17, 90, 3.4e7, 1e30),
    *further(1e-20, 1e-9, 1, 1e3, 1e5, 1.7e9, 1.7e12, 1e20),
)

# Kernels of angles.
ANGLES = ("fused_fourier_kan", "fused_sine_kan")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)

SPLINES = [name for name, row in ROWS.items() if row.layer_ref is efficient_kan_ref]

# Shifted, narrow, both, and as wide and as narrow as float32 can: features such as years, prices,
# Unix times, wavelengths.
RANGES = (
    (-1, 1),
    (0, 100),
    (1000, 1001),
    (2000, 2024),
    (1e5, 1e5 + 1),
    (-1e6, -1e6 + 10),
    (1, 1.0001),
    (1.7e9, 1.7e9 + 86400),
    (4e-7, 7e-7),
    (-1e-20, 1e-20),
    (0, 1e-37),
    (-1e30, 1e30),
    (-3e37, 3e37),
)


def assert_accurate(case, module, x, dtype):
    """The output and all gradients are the oracle's, as exactly as rounding lets them be."""
    grad_y = random_like(module, len(x), case.config["out_features"])
    expected = run_ref(case.row.layer_ref, module, x, grad_y)
    norms = norms_of_terms(case.row.layer_ref, module, x, grad_y)
    assert_close(run(module, x, grad_y), expected, rounding_bound(case, x, dtype), norms)


@pytest.mark.parametrize("case", largest_cases(), ids=str)
@DTYPES
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_at_inputs_of_any_magnitude(case, dtype, magnitude, device):
    if device.type == "cuda" and case.name in ANGLES and magnitude > 1e6:
        pytest.skip("the kernels reduce angles k x of at most 1e8 exactly, see angles.cuh")
    module = build(case, device, dtype)
    sign = random_like(module, BATCH, case.config["in_features"]).sign()
    # Within a factor of two, so that no row hides the others' errors; of at most float32's digits,
    # so that an angle k x is exact in float64, for the oracle as well.
    x = (magnitude * (1 + torch.rand_like(sign)) * sign).float().to(dtype)
    assert_accurate(case, module, x, dtype)


def spline_case(name, **config):
    case = next(case for case in first_cases() if case.name == name)
    return type(case)(name, case.row, {**case.config, **config})


def spline_part(case, dtype, device):
    """A layer without its base branch, which far from zero would hide the splines."""
    module = randomize(case.create(dtype=dtype, device=device))
    with torch.no_grad():
        module.base_weight.zero_()
    return module


def inside(module, ends):
    """Inputs in the range and a little beyond, in the dtype of the layer."""
    low, high = ends
    at = 1.2 * torch.rand(BATCH, module.in_features, dtype=torch.float64) - 0.1
    return (low + (high - low) * at).to(module.grid)


@pytest.mark.parametrize("name", SPLINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("ends", RANGES, ids=str)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_on_grids_anywhere(name, dtype, ends, order, device):
    case = spline_case(name, grid_range=ends, spline_order=order)
    module = spline_part(case, dtype, device)
    assert_accurate(case, module, inside(module, ends), dtype)


@pytest.mark.parametrize("name", SPLINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("ends", [(-1, 1), (1000, 1001), (1, 1.0001)], ids=str)
def test_at_the_knots(name, dtype, ends, device):
    case = spline_case(name, grid_range=ends)
    module = spline_part(case, dtype, device)
    assert_accurate(case, module, module.grid.t().clone(), dtype)


@pytest.mark.parametrize("name", SPLINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("order", [4, 8, 20, *further(6, 7, 12, 15)])
@pytest.mark.parametrize("grid_size", [3, 20])
def test_at_high_orders(name, dtype, order, grid_size, device):
    case = spline_case(name, spline_order=order, grid_size=grid_size)
    module = spline_part(case, dtype, device)
    assert_accurate(case, module, inside(module, (-1, 1)), dtype)


@pytest.mark.parametrize("name", SPLINES)
@pytest.mark.parametrize("grid_size", [40, 60, 300, 1000])
def test_on_fine_grids(name, grid_size, device):
    case = spline_case(name, grid_size=grid_size)
    module = spline_part(case, torch.float32, device)
    assert_accurate(case, module, inside(module, (-1, 1)), torch.float32)


@pytest.mark.parametrize("name", SPLINES)
@pytest.mark.parametrize("ends", [(-1, 1), (1, 1.0001)], ids=str)
@pytest.mark.parametrize("value", [1e19, 1e25, 3e38])
def test_far_from_the_grid_only_the_base_branch_is_left(name, ends, value, device):
    case = spline_case(name, grid_range=ends)
    module = build(case, device, torch.float32)
    x = torch.full((2, module.in_features), value, device=device)
    x[1] = -value
    x.requires_grad_()
    y = module(x)
    (grad_x,) = torch.autograd.grad(y[:, :1].sum(), x)
    base = to_numpy(module.as_published("base_weight"))[0]
    assert relative_error(to_numpy(grad_x[0]), base) <= 2**-20  # a few roundings
    assert not grad_x[1].any()
