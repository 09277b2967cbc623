"""Every implementation and pass at the reference configuration: the original table."""

import pytest
from cases import implementations, package_version, reference, variant_called

from perfgate.network.case import PASSES


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("implementation", implementations())
def test_reference(measure, benchmark, implementation, pass_name):
    case = reference(variant_called(implementation))
    if version := package_version(implementation):
        benchmark.extra_info["package_version"] = version
    measure(case, pass_name, beside=reference(variant_called("mlp")))
