"""Every implementation and pass at the reference configuration: the original table."""

from dataclasses import replace

import peers
import pytest
from cases import implementations, is_from_elsewhere, package_version, reference, variant_called

from perfgate.network.case import PASSES

FEW_ROWS = 8


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("implementation", implementations())
def test_reference(measure, benchmark, device, implementation, pass_name):
    case = reference(variant_called(implementation))
    if benchmark.disabled:
        # Whether it runs: a few rows tell, and the published Fourier layer takes 2 GB of a hundred.
        case = replace(case, batch=FEW_ROWS)
    if version := package_version(implementation):
        benchmark.extra_info["package_version"] = version
    try:
        measure(case, pass_name, beside=reference(variant_called("mlp")))
        if benchmark.enabled and is_from_elsewhere(implementation):
            import correctness  # not above, as in peers.py

            benchmark.extra_info["float64_error"] = correctness.check(case, device)
    except Exception as error:
        if implementation not in peers.PEERS:
            raise
        # Nobody here can mend it: it is shown, and the run goes on.
        pytest.xfail(f"{type(error).__name__}: {error}")
