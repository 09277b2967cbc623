"""The random initial values: of each tensor the published law, in both forms.

Those of fourier_kan, efficient_kan and sine_kan have structure, and tests of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import kan_impls
from tests.helpers import published

INPUTS, OUTPUTS = 40, 60


@dataclass(frozen=True)
class Uniform:
    """Between -bound and bound."""

    bound: float

    def check(self, draws):
        # Of n draws the largest is within 30 / n of the bound, but for 1e-13, and the deviation
        # within 5 / sqrt(2 n), but for 6e-7.
        assert np.abs(draws).max() == pytest.approx(self.bound, rel=30 / draws.size)
        assert draws.std() == pytest.approx(self.bound / 3**0.5, rel=5 / (2 * draws.size) ** 0.5)


@dataclass(frozen=True)
class Normal:
    """Of mean 0; cut at some value, where published so."""

    deviation: float

    def check(self, draws):
        # But for 6e-7 each.
        assert draws.std() == pytest.approx(self.deviation, rel=5 / (2 * draws.size) ** 0.5)
        assert abs(draws.mean()) <= 5 * self.deviation / draws.size**0.5
        # A normal law goes beyond two deviations in one draw of twenty, a uniform one never does.
        assert np.mean(np.abs(draws) > 2 * self.deviation) > 0.02


XAVIER = (6 / (INPUTS + OUTPUTS)) ** 0.5
LINEAR = INPUTS**-0.5  # as of nn.Linear

# Variant, its options, published key, law.
LAWS = [
    ("cheby_kan", {"degree": 3}, "cheby_coeffs", Normal(1 / (INPUTS * 4))),
    ("jacobi_kan", {"degree": 3}, "jacobi_coeffs", Normal(1 / (INPUTS * 4))),
    ("legendre_kan", {"degree": 3}, "jacobi_coeffs", Normal(1 / (INPUTS * 4))),
    # Glorot's law takes the fans of a tensor (inputs, outputs, functions).
    ("gram_kan", {"degree": 3}, "grams_basis_weights", Uniform((6 / (4 * 100)) ** 0.5)),
    ("gram_kan", {"degree": 3}, "base_weights", Uniform(XAVIER)),
    # Few numbers for one layer: of many degrees, to see a law.
    ("gram_kan", {"degree": 1999}, "beta_weights", Normal(1 / (INPUTS * 2000))),
    ("fast_kan", {"num_grids": 5}, "spline_linear.weight", Normal(0.1)),
    ("fast_kan", {"num_grids": 5}, "base_linear.weight", Uniform(LINEAR)),
    ("rbf_kan", {"num_grids": 5}, "rbf_linear.spline_weight", Normal(0.1)),
    ("rbf_kan", {"num_grids": 5}, "base_linear.weight", Uniform(LINEAR)),
    ("faster_kan", {"num_grids": 5}, "spline_linear.weight", Uniform((6 / (200 + 60)) ** 0.5)),
    ("relu_kan", {"grid_size": 5}, "equal_size_conv.weight", Uniform((INPUTS * 8) ** -0.5)),
    ("wav_kan", {}, "wavelet_weights", Uniform(LINEAR)),
    ("pykan", {}, "scale_base", Uniform(LINEAR)),
]


@pytest.mark.parametrize("form", ["", "fused_"])
@pytest.mark.parametrize(
    ("name", "options", "key", "law"), LAWS, ids=lambda value: value if type(value) is str else ""
)
def test_draws_follow_the_published_law(device, form, name, options, key, law):
    inputs, outputs = (INPUTS, 1) if "beta" in key else (INPUTS, OUTPUTS)
    layer = kan_impls.create_layer(form + name, inputs, outputs, device=device, **options)
    law.check(published(layer)[key])


@pytest.mark.parametrize("name", ["fast_kan", "fused_fast_kan"])
def test_weights_of_fast_kan_are_cut_as_published(device, name):
    layer = kan_impls.create_layer(name, 40, 60, spline_weight_init_scale=1.0, device=device)
    assert np.abs(published(layer)["spline_linear.weight"]).max() == 2


@pytest.mark.parametrize("name", ["relu_kan", "fused_relu_kan"])
def test_the_bumps_of_relu_kan_cover_the_unit_interval(device, name):
    layer = kan_impls.create_layer(name, 2, 3, grid_size=4, order=1, device=device)
    values = published(layer)
    for key, first in (("phase_low", -0.25), ("phase_height", 0.25)):
        expected = np.tile(first + 0.25 * np.arange(5), (2, 1))
        np.testing.assert_allclose(values[key], expected, atol=1e-7)


@pytest.mark.parametrize("name", ["wav_kan", "fused_wav_kan"])
def test_the_wavelets_of_wav_kan_start_as_the_mother(device, name):
    values = published(kan_impls.create_layer(name, 4, 3, device=device))
    assert (values["scale"] == 1).all()
    assert (values["translation"] == 0).all()
