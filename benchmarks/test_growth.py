"""How time and memory grow with batch, width and grid, and a case that memory decides."""

import pytest
from cases import GROWTH, implementations, mnist, scaled, variant_called

from perfgate.network.case import PASSES

pytestmark = pytest.mark.growth


@pytest.mark.parametrize("pass_name", PASSES[:2])
@pytest.mark.parametrize("implementation", implementations())
@pytest.mark.parametrize("name", GROWTH)
def test_growth(measure, name, implementation, pass_name):
    case = scaled(name, variant_called(implementation), **GROWTH[name])
    measure(case, pass_name, beside=scaled(name, variant_called("mlp"), **GROWTH[name]))


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("implementation", implementations())
def test_mnist(measure, implementation, pass_name):
    measure(mnist(variant_called(implementation)), pass_name, beside=mnist(variant_called("mlp")))
