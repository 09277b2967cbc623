"""What a benchmark hands to `measure`, as a workload: without pytest-benchmark."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kan_impls import get_variant
from perfgate.handed_over import Function, workload_from
from perfgate.network.case import PASSES, Case
from perfgate.network.passes import ModulePass
from perfgate.workload import Workload

CPU = torch.device("cpu")
FLOAT = 4


def handed(work, argument=None, pass_name=None, **options):
    known = {"beside": None, "loss": None, "device": CPU, "peaks": {}}
    return workload_from(work, argument, pass_name, **{**known, **options})


@pytest.mark.parametrize("pass_name", PASSES)
def test_a_module_is_measured_in_every_pass(pass_name):
    x = torch.rand(6, 3)
    workload = handed(nn.Linear(3, 2), x, pass_name)
    assert isinstance(workload, Workload)
    assert workload.group == f"Linear {pass_name}"
    assert workload.describe() == {
        "implementation": "Linear",
        "shape": [6, 3],
        "dtype": "float32",
        "parameters": 8,
        "pass": pass_name,
    }
    workload.prepare()
    workload.run()
    trained = pass_name != "forward"
    assert all((p.grad is not None) == trained for p in workload.model.parameters())
    assert (x.grad is not None) == (pass_name == "backward_with_input_grad")
    workload.release()
    assert all(p.grad is None for p in workload.model.parameters())
    assert workload.companions() == {}
    assert workload.facts(1.0) == {"parameters": 8, "trainable_parameters": 8}


def test_the_bytes_of_a_module_are_those_of_its_tensors():
    workload = handed(nn.Linear(300, 200), torch.rand(100, 300))
    found = workload.peak_bytes()
    assert found["forward_peak_bytes"] == 100 * 200 * FLOAT
    assert found is workload.peak_bytes()  # measured once


def test_a_loss_of_ones_own():
    workload = handed(nn.Linear(3, 1), torch.ones(2, 3), "training_step", loss=torch.sum)
    workload.run()
    assert workload.model.weight.grad.tolist() == [[2.0, 2.0, 2.0]]


def test_a_function_is_timed_and_its_bytes_are_told():
    ran = []
    workload = handed(lambda: ran.append(torch.empty(1000)))
    assert isinstance(workload, Workload)
    workload.prepare()
    workload.run()
    assert len(ran) == 1
    assert isinstance(workload, Function)
    assert handed(lambda: torch.empty(2**20)).peak_bytes() == {"peak_bytes": FLOAT * 2**20}


def test_the_bytes_of_a_function_do_not_depend_on_what_ran_before():
    @functools.cache
    def table():
        return torch.rand(2**20)

    workload = handed(lambda: table().sum())
    first = workload.peak_bytes()
    assert first == workload.peak_bytes()
    assert first["peak_bytes"] < 2**20


def test_passes_of_one_case_share_their_bytes(monkeypatch):
    measured = []
    own = ModulePass.measure_memory

    def measure_memory(self):
        measured.append(self.pass_name)
        return own(self)

    monkeypatch.setattr(ModulePass, "measure_memory", measure_memory)
    case, peaks = Case("small", get_variant("mlp"), 20, (30, 40, 2)), {}
    found = [handed(case, pass_name, peaks=peaks).peak_bytes() for pass_name in PASSES]
    # The gradient of the input is other work.
    assert sorted(measured) == ["backward_with_input_grad", "forward"]
    alone = [handed(case, pass_name).peak_bytes() for pass_name in PASSES]
    assert found == alone


def test_a_case_and_a_workload():
    case = Case("small", get_variant("mlp"), 4, (3, 2))
    workload = handed(case, "backward")
    assert isinstance(workload, ModulePass)
    assert workload.group == "small backward"
    assert handed(case, pass_name="backward").describe() == workload.describe()
    assert handed(workload) is workload


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Linear(3, 2),), r"a module and None; expected its input.*measure\(module, x\)"),
        (
            (nn.Linear(3, 2), "forward"),
            r"a module and 'forward'; .*measure\(module, x, 'forward'\)",
        ),
        ((nn.Linear(3, 2), [1.0]), r"a module and list; expected its input"),
        ((nn.Linear, torch.rand(1, 3)), r"the class Linear; .*measure\(Linear\(...\), x\)"),
        ((torch.rand(9, 3),), r"measure got a tensor \(9, 3\) and None; expected measure\(module"),
        ((torch.relu, torch.rand(9, 3)), r"a function .*: measure\(lambda: function\(x\)\)"),
        ((lambda: None, None, "forward"), r"a function and what belongs to a module"),
        ((handed(lambda: None), "forward"), r"a workload and more; expected measure\(workload\)"),
        ((nn.Linear(3, 2), torch.rand(1, 3), "sideways"), "'sideways'; expected one of forward"),
        ((Case("small", None, 1, (1, 1)),), r"the pass None; expected one of forward"),
        ((Case("small", None, 1, (1, 1)), "sideways"), "'sideways'; expected one of forward"),
        ((3,), r"measure got 3 and None; expected measure\(module, x\)"),
        ((print, 1), r"a function and what belongs to a module; expected a call without arguments"),
        ((SimpleNamespace(run=print),), r"or a perfgate.workload.Workload"),
    ],
)
def test_other_use_is_one_line_that_says_what_to_do(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        handed(*arguments)
    assert "\n" not in str(caught.value)
