"""What NVRTC makes of the kernels: PTX, executed on the CPU through the project's own launches."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pytest

from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.sine import SineBasis
from kan_impls.fused import kernels
from kan_impls.fused.kernels import Element, Precision
from tests.emulated_layer import Case, errors_of, with_kinds
from tests.fused_helpers import needs_nvrtc
from tests.ptx import layer
from tests.ptx.parse import Fault
from tests.test_kernels import CASES, limit_of, splines

pytestmark = needs_nvrtc

# A few of each thing: the bases, precisions, elements, passes; whole and part vectors.
SPLINE = Case(20, 7, 40, splines(3, 2), base=True, scale=True)
FEW = [
    Case(100, 45, 130, FourierBasis(3)),  # more stages than the pipelines hold
    replace(SPLINE, precision=Precision.TF32),
    replace(SPLINE, element=Element.BFLOAT16, precision=Precision.TF32, shift=1),
    Case(20, 21, 36, SineBasis(3), sets=3),  # two splits
]


def _cases_of_every_kernel() -> list[Case]:
    """Of all that are compiled ahead: rows for each tile, and stages that fill the pipelines."""
    found = []
    for functions in kernels.standard_functions():
        # Long bases have many stages for few inputs and outputs.
        sizes = (21, 40) if functions.count < 100 else (3, 8)
        case = Case(1, *sizes, functions.basis, functions.has_base, functions.has_scale)
        kinds = with_kinds(case)
        found += [replace(kind, rows=rows) for kind in kinds for rows in (5, 40, 80, 130)]
    return found


EVERY = _cases_of_every_kernel()


def check(case: Case) -> None:
    for result, error in errors_of(case, layer.run(case)).items():
        assert error <= limit_of(case, result), f"{result} is off by {error:.1e}"


@pytest.mark.parametrize("case", FEW, ids=str)
def test_results_are_those_of_the_definitions(case):
    check(case)


@pytest.mark.ptx
@pytest.mark.parametrize("case", [*EVERY, *CASES], ids=str)
def test_every_kernel_computes_what_is_defined(case):
    check(case)


def test_every_kernel_is_among_the_cases():
    assert {name for case in EVERY for name in case.kernels()} == set(kernels.kernels_of_all())


# Faults: each edit plants one, of the PTX or of the sources, in a case of each pass.

PASSES = {
    "forward": Case(20, 45, 132, FourierBasis(3), only="forward"),
    "weight_grad": Case(150, 5, 36, FourierBasis(3), only="weight_grad"),
    "input_grad": Case(20, 5, 132, FourierBasis(3), only="input_grad"),
    "param_grad": Case(20, 5, 132, SineBasis(3), only="param_grad"),
}


def edited(pattern: str, replacement: str, count: int = 0):
    """A change of a text, in each place, or in so many."""
    return partial(re.sub, pattern, replacement, count=count)


# What to edit in the PTX, and what shows it.
IN_PTX = {
    "no barrier": (edited(r"bar\.sync\s+0;", ""), "a race|copy in flight"),
    "a wait too few": (
        edited(r"wait_group (\d)", lambda found: f"wait_group {int(found[1]) + 1}"),
        "a read of a copy in flight",
    ),
    "no copies": (edited(r"cp\.async\.c[ag][^;]*;", ""), "shared memory that nobody wrote"),
    "half a vector further": (
        edited(r"(ld\.shared\.v4[^[]*\[%\w+)[^]]*\]", r"\1+8]"),
        "misaligned",
    ),
    "a fragment swapped": (
        edited(r"(mma[^{]*\{[^}]*\}, \{[^}]*\}, )\{([^,]*), ([^}]*)\}", r"\1{\3, \2}"),
        "is off by",
    ),
    "two members of a fragment swapped": (
        edited(r"(mma[^{]*\{[^}]*\}, \{[^,]*), ([^,]*), ([^,]*),", r"\1, \3, \2,"),
        "is off by",
    ),
    "a store left out": (edited(r"st\.global[^;]*;", "", 1), "never written|nobody wrote"),
}

# What to edit in the sources for each pass, and what shows it.
IN_SOURCES = {
    "a row too many": (
        "forward",
        edited(r"row >= problem.rows\) continue", "row > problem.rows) continue"),
        "out of bounds|two threads write",
    ),
    "a column too many": (
        "forward",
        edited(r"column < columns\) store4", "column <= columns) store4"),
        "out of bounds|two threads write|more than once",
    ),
    "rows one further": (
        "forward",
        edited(r"first_row \+ lane.g \+ 8 \* m", "first_row + 1 + lane.g + 8 * m"),
        "never written",
    ),
    "a row of grad_y too many": (
        "weight_grad",
        edited(r"first_row \+ row < problem.rows", "first_row + row <= problem.rows"),
        "out of bounds: byte .* of grad_y",
    ),
    "a result written to an input": (
        "input_grad",
        edited(r"problem.grad_x\[", "((float*)problem.x)["),
        "a write to a tensor that is an input",
    ),
    "a row of grad_x too many": (
        "input_grad",
        edited(r"block_row, r\) < problem.rows", "block_row, r) <= problem.rows"),
        "out of bounds",
    ),
    "a part of the sum over rows left out": (
        "param_grad",
        edited("distance < 32", "distance < 16"),
        "is off by",
    ),
    "two lanes add to one sum": (
        "param_grad",
        edited(r"lane.g == 0 && own", "lane.g <= 1 && own"),
        "two threads write|another thread writes",
    ),
    "a stage more than the plan": (
        "forward",
        edited("STAGES = 4", "STAGES = 5"),
        "shared memory out of bounds",
    ),
}


def shown(case: Case, **edits) -> str:
    """What shows a fault; an empty string if nothing does."""
    try:
        found = errors_of(case, layer.run(case, **edits))
    except Fault as fault:
        return str(fault)
    wrong = [f"{name} is off by {e:.0e}" for name, e in found.items() if e > limit_of(case, name)]
    return " ".join(wrong)


@pytest.mark.parametrize("name", PASSES)
def test_without_a_fault_nothing_is_shown(name):
    assert shown(PASSES[name]) == ""


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("fault", IN_PTX)
def test_faults_in_the_ptx_are_shown(fault, name):
    edit, message = IN_PTX[fault]
    assert re.search(message, shown(PASSES[name], edit=edit))


@pytest.mark.parametrize("fault", IN_SOURCES)
def test_faults_in_the_sources_are_shown(fault):
    name, edit, message = IN_SOURCES[fault]
    assert re.search(message, shown(PASSES[name], source_edit=edit))
