"""What the fused operators declare, against what their product form does on fake tensors."""

import itertools

import pytest
import torch

from kan_impls import get_variant
from kan_impls.basis.bspline import BSplineBasis
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.sine import SineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import dispatch
from kan_impls.fused.cost import DECLARED
from kan_impls.fused.operands import Needs, Operands
from perfgate.measure.device_free import Passes, track_passes
from perfgate.network.case import Case

ops = torch.ops.kan_impls

ROWS, INPUTS, OUTPUTS = 40, 30, 20
NUM_BASIS = 8

BASES = {
    "fourier": FourierBasis(4),
    "sines": SineBasis(8),
    "uniform_bspline": UniformBSplineBasis(8, 3, -2.2, 2.2),
    "bspline": BSplineBasis(5, 3),
}
# Splines come with scales and a base branch, the others with a bias.
WITH_BASE = ("uniform_bspline", "bspline")
PARAMS = {"sines": [(1, 8), (INPUTS, 8)], "bspline": [(INPUTS, NUM_BASIS + 4)]}


def operands_of(kind):
    edges = (INPUTS, OUTPUTS)
    x, weight = torch.empty(ROWS, INPUTS), torch.empty(NUM_BASIS, *edges)
    params = [torch.empty(shape) for shape in PARAMS.get(kind, [])]
    if kind in WITH_BASE:
        return Operands(x, weight, torch.empty(edges), torch.empty(edges), params=params)
    return Operands(x, weight, bias=torch.empty(OUTPUTS), params=params)


def costs(kind, needs, form):
    """Of forward and backward, by the operator or by the product form."""
    basis = BASES[kind]
    rest = (basis.text, "product")

    def build():
        operands = operands_of(kind)
        if form == "operator":
            return Passes(
                lambda: ops.basis_product(*operands, *rest),
                lambda y: ops.basis_product_backward(y, *operands, *rest, list(needs)),
            )
        return Passes(
            lambda: dispatch.forward(operands, basis, "product"),
            lambda y: dispatch.backward(y, operands, basis, "product", Needs.of(needs)),
        )

    found = track_passes(build, declared=DECLARED)
    return found.forward, found.backward


def possible_needs(kind):
    """Which operands can need a gradient: those that there are, but never the knots."""
    operands = operands_of(kind)
    there = [tensor is not None for tensor in operands.flat]
    there[5:] = [bool(BASES[kind].trained)] * len(operands.params)
    choices = itertools.product(*((False, True) if present else (False,) for present in there))
    return [needs for needs in choices if any(needs)]


@pytest.mark.parametrize("kind", BASES)
def test_the_declared_costs_are_within_those_of_the_product_form(kind):
    for needs in possible_needs(kind):
        pairs = zip(costs(kind, needs, "operator"), costs(kind, needs, "product"), strict=True)
        for declared, done in pairs:
            assert declared.flops == done.flops, needs
            assert 1 <= declared.operators <= done.operators, needs
            assert 0 < declared.bytes_read <= done.bytes_read, needs
            assert 0 < declared.bytes_written <= done.bytes_written, needs


@pytest.mark.parametrize(
    ("kind", "name", "config"),
    [
        ("fourier", "fused_fourier_kan", {"grid_size": 4}),
        ("uniform_bspline", "fused_efficient_kan", {"grid_size": 5, "spline_order": 3}),
    ],
)
def test_the_declared_costs_are_at_least_the_compulsory_ones(kind, name, config):
    case = Case("layer", get_variant(name), ROWS, (INPUTS, OUTPUTS), config)
    forward, backward = costs(kind, possible_needs(kind)[-1], "operator")
    found = {"forward": forward, "backward_with_input_grad": backward}
    for pass_name, cost in found.items():
        assert cost.flops == case.flops(pass_name)
        assert cost.bytes_read + cost.bytes_written >= case.compulsory_bytes(pass_name)
