"""Every implementation and pass at the reference configuration: the original table."""

from dataclasses import replace

import pytest
from cases import implementations, package_version, reference, variant_called

from perfgate.network.case import PASSES

FEW_ROWS = 8


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("implementation", implementations())
def test_reference(measure, benchmark, implementation, pass_name):
    case = reference(variant_called(implementation))
    if benchmark.disabled:
        # Whether it runs: a few rows tell, and the published Fourier layer takes 2 GB of a hundred.
        case = replace(case, batch=FEW_ROWS)
    if version := package_version(implementation):
        benchmark.extra_info["package_version"] = version
    measure(case, pass_name, beside=reference(variant_called("mlp")))
