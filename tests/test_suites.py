"""What the names of suites select."""

from pathlib import Path

import pytest

import kan_impls
from perfgate.network.case import PASSES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("options", "included"), [(("--suite", "field"), True), ((), False)], ids=["field", "default"]
)
def test_the_field_suite_is_every_implementation_at_the_reference(pytester, options, included):
    always = ("-c", str(ROOT / "pyproject.toml"), "--collect-only", "--benchmark-only")
    collected = pytester.runpytest_subprocess(*always, *options, str(ROOT / "benchmarks"))
    assert ("max_time=0.5" in collected.stdout.str()) == included
    lines = [line.strip() for line in collected.outlines]
    assert [line for line in lines if line.startswith("<Module")] == ["<Module test_reference.py>"]
    found = {line.removeprefix("<Function ").removesuffix(">") for line in lines}
    for name in kan_impls.list_variants():
        is_compared = name.removeprefix("fused_") in (
            "mlp",
            "efficient_kan",
            "fourier_kan",
            "pykan",
        )
        for pass_name in PASSES:
            expected = included or is_compared
            assert (f"test_reference[{name}-{pass_name}]" in found) == expected
