"""One row per implementation: its oracle, and what the contract must know of it.

A new variant adds a row to `ROWS`, see `both_rows`; without one, test_contract.py fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import kan_impls
from kan_impls.basis.base import Basis
from kan_impls.basis.chebyshev import ChebyshevBasis
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.gram import GramBasis
from kan_impls.basis.jacobi import JacobiBasis
from kan_impls.basis.radial import GaussianBasis, SwitchBasis
from kan_impls.basis.silu import SiluBasis
from kan_impls.basis.sine import SineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.variants.rational_kan import RationalBasis
from kan_impls.variants.relu_kan import ReluBasis
from tests.reference import (
    PhiReference,
    Reference,
    affine_ref,
    basis_layer_ref,
    chebyshev_phi_ref,
    efficient_kan_ref,
    fourier_kan_ref,
    fourier_phi_ref,
    gaussian_ref,
    gram_kan_ref,
    gram_phi_ref,
    jacobi_phi_ref,
    kan_ref,
    mlp_ref,
    pykan_ref,
    radial_layer_ref,
    radial_phi_ref,
    rational_kan_ref,
    rational_phi_ref,
    relu_kan_ref,
    relu_phi_ref,
    silu_phi_ref,
    sine_kan_ref,
    sine_phi_ref,
    spline_phi_ref,
    switch_ref,
    wav_kan_ref,
)

Config = Mapping[str, Any]

# Three widths, all different, so that no mix-up of two of them has a fitting shape.
MODEL_WIDTHS = (5, 4, 3)


@dataclass(frozen=True)
class Row:
    """What is known of an implementation: contract, product form, kernels in emulation and under
    sanitizers, golden and property tests take it from here.

    Args:
        layer_ref: the oracle of a layer.
        configs: arguments of `create_layer`; the first is the one of slow tests.
        parameters: number of parameters of the reference network (the published comparison).
        model_ref: the oracle of the network of `MODEL_WIDTHS`, if it is not one of such layers.
        saved_per_input: elements that a layer may keep for the backward pass, for each
            element of x, besides x and the parameters.
        amplification: from the config and the largest |x|, by how much the basis
            enlarges a rounding error.
        fit_widths, fit_options, fit_error: a network, and the error relative to the target's
            deviation below which it learns exp(sin(pi x0) + x1^2) on [-1, 1]^2.
        golden: the golden vectors of which implementation it must reproduce, if any.
        has_limits: whether the output has a limit where an input goes to infinity.
        bases: small ones, whose kernels are emulated, alone and with everything around them.
        phi_ref: the oracle of such a basis.
    """

    layer_ref: Reference
    configs: tuple[Config, ...]
    parameters: int
    amplification: Callable[[Config, float], float]
    saved_per_input: Callable[[Config], int] = lambda config: 0
    model_ref: Reference | None = None
    fit_widths: tuple[int, ...] = (2, 4, 1)
    # 250 steps of L-BFGS reach 0.3% to 1.2% from any of four seeds.
    fit_error: float = 0.03
    fit_options: Config = field(default_factory=dict)
    golden: str | None = None
    has_limits: bool = False
    bases: tuple[Basis, ...] = ()
    phi_ref: Callable[[Any], PhiReference] | None = None

    @property
    def network_ref(self) -> Reference:
        return self.model_ref or kan_ref(self.layer_ref, MODEL_WIDTHS)


FOURIER_CONFIGS = (
    {"in_features": 3, "out_features": 2, "grid_size": 3},
    {"in_features": 1, "out_features": 1, "grid_size": 1},
    {"in_features": 13, "out_features": 7, "grid_size": 17},
    {"in_features": 2, "out_features": 5, "grid_size": 4, "bias": False},
)

SPLINE_CONFIGS = (
    {"in_features": 3, "out_features": 2, "grid_size": 5, "spline_order": 3},
    {"in_features": 1, "out_features": 1, "grid_size": 2, "spline_order": 2},
    {"in_features": 13, "out_features": 7, "grid_size": 9, "spline_order": 5},
    {"in_features": 2, "out_features": 3, "grid_size": 2, "spline_order": 9},
    {
        "in_features": 2,
        "out_features": 5,
        "grid_size": 7,
        "spline_order": 1,
        "grid_range": (-2, 0.5),
        "enable_standalone_scale_spline": False,
    },
)


def _spline_phi_ref(basis: UniformBSplineBasis) -> PhiReference:
    order, size = basis.spline_order, basis.num_basis - basis.spline_order
    beyond = order * basis.step
    return spline_phi_ref(size, order, basis.first_knot + beyond, basis.last_knot - beyond)


def jacobi_layer_ref(a: float, b: float) -> Reference:
    """The oracle of a layer of Jacobi polynomials of these exponents."""
    return basis_layer_ref(
        lambda functions: jacobi_phi_ref(functions - 1, a, b), weight="jacobi_coeffs iok"
    )


def _recurrence_saved(config: Config) -> int:
    """tanh and what leads to it; of each degree a factor, the value, and two products."""
    return 8 + 4 * config["degree"]


def both_rows(name: str, row: Row, **direct: Any) -> dict[str, Row]:
    """The rows of both forms of a variant: that of the fused one, and where the direct one
    differs."""
    return {name: replace(row, **direct), f"fused_{name}": row}


ROWS: dict[str, Row] = {
    "mlp": Row(
        affine_ref,
        (
            {"in_features": 3, "out_features": 2},
            {"in_features": 1, "out_features": 1},
            {"in_features": 13, "out_features": 7},
        ),
        parameters=10_020_001,
        amplification=lambda config, largest: 0,
        model_ref=mlp_ref,
        fit_widths=(2, 32, 1),
        fit_error=0.15,  # ReLU makes it piecewise flat: 5% to 9% from any of four seeds
    ),
    **both_rows(
        "efficient_kan",
        Row(
            efficient_kan_ref,
            SPLINE_CONFIGS,
            parameters=10_010_000,
            # The recurrence adds up positive terms and rounds once more with each order.
            amplification=lambda config, largest: config.get("spline_order", 3),
            golden="efficient_kan",
            bases=(UniformBSplineBasis.over(-1.5, 2.0, 3, 2),),
            phi_ref=_spline_phi_ref,
        ),
        # Autograd keeps, for each order of the recurrence, two factors and the basis below.
        saved_per_input=lambda config: (
            3 * config["spline_order"] * (config["grid_size"] + 2 * config["spline_order"])
        ),
    ),
    **both_rows(
        "pykan",
        Row(
            pykan_ref,
            (
                {"in_features": 3, "out_features": 2, "grid_size": 5, "spline_order": 3},
                {"in_features": 13, "out_features": 7, "grid_size": 9, "spline_order": 2},
            ),
            parameters=11_011_000,  # a mask for each edge, which is not trained
            amplification=lambda config, largest: config.get("spline_order", 3),
            golden="pykan",
            # The two factors of each edge behind its mask; the contract keeps 64 rows.
            saved_per_input=lambda config: 2 * config["out_features"] / 64,
        ),
        saved_per_input=lambda config: (
            3 * config["spline_order"] * (config["grid_size"] + 2 * config["spline_order"])
        ),
    ),
    **both_rows(
        "fourier_kan",
        Row(
            fourier_kan_ref,
            FOURIER_CONFIGS,
            parameters=10_011_001,
            # One rounding for each power since the last exact angle, however large x is.
            amplification=lambda config, largest: min(config.get("grid_size", 5), 8),
            golden="fourier_kan",
            bases=(FourierBasis(3),),
            phi_ref=lambda basis: fourier_phi_ref(basis.grid_size),
        ),
        # The angles, and their cosines and sines.
        saved_per_input=lambda config: 3 * config["grid_size"],
        # Its angles have float64's accuracy, whatever k and x.
        amplification=lambda config, largest: 0,
    ),
    **both_rows(
        "cheby_kan",
        Row(
            basis_layer_ref(
                lambda functions: chebyshev_phi_ref(functions - 1), weight="cheby_coeffs iok"
            ),
            (
                {"in_features": 3, "out_features": 2, "degree": 4},
                {"in_features": 13, "out_features": 7, "degree": 16},
            ),
            parameters=10_010_000,
            # The angle is rounded once, and multiplied by the degree.
            amplification=lambda config, largest: config.get("degree", 4),
            golden="cheby_kan",
            has_limits=True,
            bases=(ChebyshevBasis(3),),
            phi_ref=lambda basis: chebyshev_phi_ref(basis.degree),
        ),
        # tanh, sech and what leads to them; of each degree two values and the products in them.
        saved_per_input=lambda config: 8 + 4 * config["degree"],
    ),
    **both_rows(
        "sine_kan",
        Row(
            sine_kan_ref,
            (
                {"in_features": 3, "out_features": 2, "grid_size": 3},
                {"in_features": 13, "out_features": 7, "grid_size": 8, "is_first": True},
                {"in_features": 2, "out_features": 5, "grid_size": 4, "bias": False},
            ),
            parameters=10_011_021,
            # Its angles have float64's accuracy.
            amplification=lambda config, largest: 0,
            fit_error=0.05,  # 1.0% to 3.4% from any of four seeds
            golden="sine_kan",
            bases=(SineBasis(3),),
            phi_ref=lambda basis: sine_phi_ref,
        ),
        # The angles, and their sines.
        saved_per_input=lambda config: 2 * config["grid_size"],
    ),
    **both_rows(
        "jacobi_kan",
        Row(
            jacobi_layer_ref(1, 1),
            ({"in_features": 3, "out_features": 2, "degree": 4},),
            parameters=10_010_000,
            # Its slope near 1 multiplies the rounding of tanh.
            amplification=lambda config, largest: config.get("degree", 3) ** 2,
            has_limits=True,
            bases=(JacobiBasis(3, 1.0, -0.5),),
            phi_ref=lambda basis: jacobi_phi_ref(basis.degree, basis.a, basis.b),
        ),
        saved_per_input=_recurrence_saved,
    ),
    **both_rows(
        "gram_kan",
        Row(
            gram_kan_ref,
            (
                {"in_features": 3, "out_features": 2, "degree": 3},
                {"in_features": 13, "out_features": 7, "degree": 4},
            ),
            parameters=10_010_018,
            # Weights of the recurrence multiply what is rounded, by up to 33 and 102.
            amplification=lambda config, largest: 100,
            # Its polynomials are far from orthogonal: 5% to 9% from any of four seeds.
            fit_error=0.15,
            bases=(GramBasis(3),),
            phi_ref=lambda basis: gram_phi_ref,
        ),
        # SiLU and its gate besides.
        saved_per_input=lambda config: 2 + _recurrence_saved(config),
    ),
    **both_rows(
        "legendre_kan",
        Row(
            jacobi_layer_ref(0, 0),
            ({"in_features": 13, "out_features": 7, "degree": 9},),
            parameters=10_010_000,
            amplification=lambda config, largest: config.get("degree", 3) ** 2,
            has_limits=True,
        ),
        saved_per_input=_recurrence_saved,
    ),
}


def gaussian_condition(config: Config, largest: float) -> float:
    """By how much exp(-z^2) enlarges the rounding of z, in the tails; beyond z^2 = 88 it is 0."""
    distance = (largest + 3) * (config["num_grids"] - 1) / 4  # in the widths of default ends
    return 10 + 4 * min(distance**2, 88)


# The width that default ends of the grid give.
fast_kan_ref = radial_layer_ref(
    gaussian_ref, lambda num_grids: 4 / (num_grids - 1), "rbf.grid", "spline_linear.weight", "o ik"
)

ROWS |= both_rows(
    "fast_kan",
    Row(
        fast_kan_ref,
        (
            {"in_features": 3, "out_features": 6, "num_grids": 3, "use_layernorm": False},
            {"in_features": 7, "out_features": 5, "num_grids": 8},
        ),
        parameters=10_015_019,
        amplification=gaussian_condition,
        golden="fast_kan",
        bases=(GaussianBasis(3, 0.7),),
        phi_ref=lambda basis: radial_phi_ref(gaussian_ref, basis.width),
        # A LayerNorm in front keeps its input and what it gives.
        saved_per_input=lambda config: 3 * config.get("use_layernorm", True),
        fit_options={"use_layernorm": False},  # of two inputs one would leave a sign
    ),
    saved_per_input=lambda config: 9 * config["num_grids"] + 9,
)

faster_kan_ref = radial_layer_ref(
    switch_ref, lambda num_grids: 1, "rbf.grid", "spline_linear.weight", "o ik"
)

ROWS |= both_rows(
    "faster_kan",
    Row(
        faster_kan_ref,
        (
            {"in_features": 3, "out_features": 6, "num_grids": 3, "use_layernorm": False},
            {"in_features": 7, "out_features": 5, "num_grids": 8},
        ),
        parameters=10_014_022,
        # A distance, rounded once, is in an exponent twice; beyond 44 the switch is 0.
        amplification=lambda config, largest: 10 + 4 * min(largest, 44),
        golden="faster_kan",
        has_limits=True,
        bases=(SwitchBasis(3, 1.0),),
        phi_ref=lambda basis: radial_phi_ref(switch_ref, basis.width),
        saved_per_input=lambda config: 3 * config.get("use_layernorm", True),
        fit_options={"use_layernorm": False},  # of two inputs one would leave a sign
    ),
    saved_per_input=lambda config: 9 * config["num_grids"] + 9,
)

rbf_kan_ref = radial_layer_ref(
    gaussian_ref,
    lambda num_grids: 4 / (num_grids - 1),
    "rbf_linear.grid",
    "rbf_linear.spline_weight",
    "ik o",
)

ROWS |= both_rows(
    "rbf_kan",
    Row(
        rbf_kan_ref,
        ({"in_features": 3, "out_features": 2, "num_grids": 4},),
        parameters=10_011_019,
        amplification=gaussian_condition,
        golden="rbf_kan",
    ),
    saved_per_input=lambda config: 9 * config["num_grids"] + 9,
)

ROWS |= both_rows(
    "relu_kan",
    Row(
        relu_kan_ref,
        (
            {"in_features": 3, "out_features": 2, "grid_size": 3},
            {"in_features": 13, "out_features": 7, "grid_size": 5},
        ),
        parameters=10_051_001,
        amplification=lambda config, largest: 10,
        golden="relu_kan",
        bases=(ReluBasis(3, 2),),
        phi_ref=lambda basis: relu_phi_ref(basis.grid_size, basis.order),
    ),
    saved_per_input=lambda config: 9 * config["grid_size"] + 40,
)

ROWS |= both_rows(
    "rational_kan",
    Row(
        rational_kan_ref,
        (
            {"in_features": 6, "out_features": 2, "num_groups": 3},
            {"in_features": 16, "out_features": 7},
            {"in_features": 3, "out_features": 5, "bias": False},
        ),
        parameters=10_020_077,
        # The terms of P cancel below 0.
        amplification=lambda config, largest: 50,
        fit_widths=(2, 16, 1),
        fit_error=0.15,  # an input has but one function: 2% to 10% from any of four seeds
        bases=(RationalBasis(),),
        phi_ref=lambda basis: rational_phi_ref,
    ),
    saved_per_input=lambda config: 60,
)

# One row for each wavelet would repeat the rest: see test_wav_kan.py.
ROWS |= both_rows(
    "wav_kan",
    Row(
        wav_kan_ref("mexican_hat"),
        (
            {"in_features": 3, "out_features": 2},
            {"in_features": 7, "out_features": 5},
        ),
        parameters=8_012_002,
        fit_widths=(2, 8, 1),
        fit_error=0.06,  # 1% to 2.5% from any of three seeds
        amplification=lambda config, largest: 20,
        has_limits=True,
        # A BatchNorm keeps its input.
        saved_per_input=lambda config: -(-config["out_features"] // config["in_features"]),
    ),
    saved_per_input=lambda config: 9 * config["out_features"] + 9,
)


# Bases that are in no implementation.
OTHER_BASES: dict[Basis, Callable[[Any], PhiReference]] = {
    SiluBasis(): lambda basis: silu_phi_ref,
}


def other_fused(named: Iterable[Sequence[Any]]) -> list[tuple[str, Config]]:
    """The first options, without sizes, of the fused implementations that are not named and have
    a basis of their own."""
    known, sizes = {name for name, *_ in named}, ("in_features", "out_features")
    return [
        (name, {key: value for key, value in row.configs[0].items() if key not in sizes})
        for name, row in ROWS.items()
        if name not in known and row.bases and kan_impls.get_variant(name).is_fused
    ]


def phi_refs() -> dict[Basis, Callable[[Any], PhiReference]]:
    """The bases to emulate, and the oracles of all of their type."""
    rows = {basis: row.phi_ref for row in ROWS.values() if row.phi_ref for basis in row.bases}
    return {**rows, **OTHER_BASES}


def phi_ref_of(basis: Basis) -> PhiReference:
    """The oracle of a basis."""
    return next(ref(basis) for own, ref in phi_refs().items() if type(own) is type(basis))


@dataclass(frozen=True)
class Case:
    """An implementation and one of its configurations."""

    name: str
    row: Row
    config: Config

    def create(self, **options: Any):
        return kan_impls.create_layer(self.name, **self.config, **options)

    def __str__(self) -> str:
        sizes = "x".join(str(value) for value in self.config.values() if type(value) is int)
        return f"{self.name}-{sizes}"


def cases() -> list[Case]:
    """Every configuration of every registered implementation that has a row."""
    rows = {name: ROWS[name] for name in kan_impls.list_variants() if name in ROWS}
    return [Case(name, row, config) for name, row in rows.items() for config in row.configs]


def first_cases() -> list[Case]:
    """One configuration of each."""
    return [case for case in cases() if case.config is case.row.configs[0]]


def largest_cases() -> list[Case]:
    """The configuration with the most outputs of each: relative errors in 16 bits mean
    little where the norm is that of one number, in which the terms may nearly cancel."""
    return [
        max((case for case in cases() if case.name == first.name), key=_num_outputs)
        for first in first_cases()
    ]


def _num_outputs(case: Case) -> int:
    return case.config["out_features"]
