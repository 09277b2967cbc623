"""Every kernel compiles for every kind of GPU it was written for, and stays in registers."""

import pytest

from kan_impls.basis.bspline import BSplineBasis
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import cubin_cache, jit, kernels
from tests.fused_helpers import needs_nvrtc


def _functions(of_the_field: bool):
    """Those of the layers that are compared, or of all others."""
    compared = (BSplineBasis, UniformBSplineBasis, FourierBasis)
    return [
        each
        for each in kernels.standard_functions()
        if isinstance(each.basis, compared) != of_the_field
    ]


@needs_nvrtc
@pytest.mark.parametrize(
    "of_the_field", [False, pytest.param(True, marks=pytest.mark.field)], ids=["compared", "field"]
)
@pytest.mark.parametrize(
    "arch",
    [
        # Together they take a minute on two cores; the assembler decides much alike for them.
        pytest.param("sm_80", marks=pytest.mark.compile),
        pytest.param("sm_86", marks=pytest.mark.compile),
        "sm_90",
    ],
)
def test_kernels_compile_and_stay_in_registers(arch, of_the_field, monkeypatch, pytestconfig):
    # Kept between runs: as long as the sources are the same, this takes no time.
    folder = pytestconfig.cache.mkdir("kernels")
    monkeypatch.setenv(cubin_cache.VARIABLE, str(folder))
    functions = _functions(of_the_field)
    names = [*kernels.kernels_of_all(functions), *kernels.evaluating(functions)]
    compiled = jit.compile_kernels(names, arch)
    in_memory = {
        name: kernel.resources
        for name, kernel in compiled.items()
        if kernel.resources is None or kernel.resources.spills or kernel.resources.stack
    }
    assert in_memory == {}
