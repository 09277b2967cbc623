"""What NVRTC makes of the kernels that evaluate a basis: PTX, on their known-answer tests."""

import pytest
import torch

from kan_impls.fused import trial
from tests.fused_helpers import needs_nvrtc
from tests.ptx import layer
from tests.ptx.memory import Global
from tests.ptx.parse import Fault, parse
from tests.test_fused_evaluated import BASES, BOUND, trials

pytestmark = needs_nvrtc

# The shorter ones in each run; all of them in `make check`.
FEW = {text: basis for text, basis in BASES.items() if basis.num_basis <= 10}


def check(which, basis, edit=None):
    """Run the PTX of a kernel on its trials."""
    for plan, tensors, output, expected, sets in trials(which, basis):
        run(plan, tensors, output, sets, edit)
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
