"""What NVRTC makes of the kernels that evaluate a basis: PTX, on their known-answer tests."""

from dataclasses import replace

import pytest
import torch

from kan_impls.fused import kernels, trial
from kan_impls.fused.kernels import Device, Element, Functions, Layer, Precision
from tests.fused_helpers import needs_nvrtc
from tests.ptx import layer
from tests.ptx.memory import Global
from tests.ptx.parse import Fault, parse
from tests.test_fused_evaluated import BASES

pytestmark = needs_nvrtc

BOUND = 1e-6  # as `problem.error_bound` of the accurate mode

# The shorter ones in each run; all of them in `make check`.
FEW = {text: basis for text, basis in BASES.items() if basis.num_basis <= 10}


def check(which, basis, edit=None):
    """Run the PTX of a kernel on its trials, of fewer rows: two blocks and a part of one."""
    planner = getattr(kernels, which)
    own = Layer(Functions(basis), 20, 9, 1, Element.FLOAT, Precision.ACCURATE, Device(90, 4))
    for number, ((planned,), options) in enumerate(
        zip(trial.plans_of(which, planner(own)), ({}, {"is_shared": True}), strict=True)
    ):
        smaller = replace(planned.layer, rows=600 // planned.layer.inputs)
        plan = planner(smaller, **(options if which == "basis_slopes" else {}))
        given = trial._trial(which, [plan], number == 1)
        tensors = {name: given.tensors[name] for name in plan.tensors if name in given.tensors}
        ((output, expected),) = given.expected.items()
        tensors[output] = torch.ones(expected.shape, dtype=torch.float32)
        run(plan, tensors, output, [p.shape[0] for p in given.operands.params], edit)
        assert trial.error_of(tensors[output].double(), expected) <= BOUND


def run(plan, tensors, output, sets, edit):
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    data = {name: t.view(-1).view(torch.uint8).numpy() for name, t in tensors.items()}
    begun = {"grad_x"}  # it is added to
    memory = Global(data, addresses, {output}, begun)
    for launch in plan.at(addresses, sets):
        text, symbol = layer.text_of(launch.kernel)
        layer.execute(parse(text if edit is None else edit(text), symbol), launch, memory)
    memory.finish(accumulated=set())


@pytest.mark.parametrize("which", ["basis_values", "basis_slopes"])
@pytest.mark.parametrize("basis", FEW.values(), ids=FEW)
def test_a_basis_has_its_values_and_slopes(which, basis):
    check(which, basis)


@pytest.mark.ptx
@pytest.mark.parametrize("which", ["basis_values", "basis_slopes"])
@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_every_basis_has_its_values_and_slopes(which, basis):
    check(which, basis)


def test_a_planted_fault_is_seen():
    basis = next(iter(FEW.values()))
    with pytest.raises(Fault, match=r"never written"):
        check("basis_values", basis, lambda text: _without(text, "st.global"))


def _without(text, instruction):
    """The text without the first line that begins so."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip().startswith(instruction))
    return "\n".join([*lines[:at], *lines[at + 1 :]])
