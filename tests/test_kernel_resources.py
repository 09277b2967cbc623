"""Every kernel compiles for every kind of GPU it was written for, and stays in registers."""

import pytest

from kan_impls.fused import cubin_cache, jit, kernels
from tests.fused_helpers import needs_nvrtc


@needs_nvrtc
@pytest.mark.parametrize(
    "arch",
    [
        # Together they take a minute on two cores; the assembler decides much alike for them.
        pytest.param("sm_80", marks=pytest.mark.compile),
        pytest.param("sm_86", marks=pytest.mark.compile),
        "sm_90",
    ],
)
def test_kernels_compile_and_stay_in_registers(arch, monkeypatch, pytestconfig):
    # Kept between runs: as long as the sources are the same, this takes no time.
    folder = pytestconfig.cache.mkdir("kernels")
    monkeypatch.setenv(cubin_cache.VARIABLE, str(folder))
    compiled = jit.compile_kernels([*kernels.kernels_of_all(), *kernels.evaluating()], arch)
    in_memory = {
        name: kernel.resources
        for name, kernel in compiled.items()
        if kernel.resources is None or kernel.resources.spills or kernel.resources.stack
    }
    assert in_memory == {}
