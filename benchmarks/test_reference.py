"""Every implementation and pass at the reference configuration: the original table."""

import correctness
import peers
import pytest
from cases import implementations, package_version, reference, variant_called

from kan_impls import registry
from perfgate.network.case import PASSES


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("implementation", implementations())
def test_reference(measure, benchmark, device, implementation, pass_name):
    case = reference(variant_called(implementation))
    if version := package_version(implementation):
        benchmark.extra_info["package_version"] = version
    try:
        measure(case, pass_name, beside=reference(variant_called("mlp")))
        if benchmark.enabled and (implementation in (*peers.PEERS, *registry.brought())):
            benchmark.extra_info["float64_error"] = correctness.check(case, device)
    except Exception as error:
        if implementation not in peers.PEERS:
            raise
        # Nobody here can mend it: it is shown, and the run goes on.
        pytest.xfail(f"{type(error).__name__}: {error}")
