"""How time and memory grow with batch, width and grid, and a case that memory decides."""

import pytest
from cases import GROWTH, implementations, mnist, scaled, variant_called

from perfgate.network.case import PASSES

pytestmark = pytest.mark.growth


@pytest.mark.parametrize("pass_name", PASSES[:2])
@pytest.mark.parametrize("implementation", implementations())
@pytest.mark.parametrize("name", GROWTH)
def test_growth(measure, name, implementation, pass_name):
    variant = variant_called(implementation)
    if "grid" in GROWTH[name] and variant.size is None and implementation != "mlp":
        pytest.skip(f"{implementation} has no option that its functions grow with")
    case = scaled(name, variant, **GROWTH[name])
    measure(case, pass_name, beside=scaled(name, variant_called("mlp"), **GROWTH[name]))


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("implementation", implementations())
def test_mnist(measure, implementation, pass_name):
    if implementation == "wav_kan":
        pytest.skip("wav_kan holds several tensors of (batch, out, in), here of 30 GB each")
    measure(mnist(variant_called(implementation)), pass_name, beside=mnist(variant_called("mlp")))
