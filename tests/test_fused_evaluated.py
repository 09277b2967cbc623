"""Bases that kernels evaluate for the product form: in emulation, against their definitions."""

import re
from dataclasses import replace

import pytest
import torch

import kan_impls
from kan_impls.basis.silu import SiluBasis
from kan_impls.fused import cells, cuda, dispatch, forms, kernels, proof, trial, tuning
from kan_impls.fused.compiler import KernelUnavailable
from kan_impls.fused.kernels import Device, Element, Functions, Layer, Precision
from kan_impls.fused.workspace import Workspace
from tests.cases import ROWS
from tests.emulated_driver import _emulators, pretend_driver
from tests.emulator import build as emulation
from tests.emulator.build import Emulator, find_compiler
from tests.helpers import assert_close, random_like, randomize, run, run_ref
from tests.test_fused_product import BOUNDS, KINDS, build, reference_of

pytestmark = pytest.mark.skipif(
    find_compiler() is None, reason="g++ is not installed: the kernels are emulated with it"
)

CPU = torch.device("cpu")
BASES = {each.basis.text: each.basis for each in kernels.standard_functions()}
BASES["SiluBasis()"] = SiluBasis()
EVALUATED = "product of an evaluated basis"


@pytest.fixture(scope="module", autouse=True)
def emulators():
    """All kernels of the bases at once: each call of g++ takes seconds."""
    names = [
        f"{kernel}<{basis.cuda}>"
        for basis in BASES.values()
        for kernel in ("basis_values", "basis_slopes")
    ]
    one = Emulator(None, names)
    _emulators.update({(name, None): one for name in names})


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A GPU on which the product form is suggested, and nothing is measured."""
    cuda._plan.cache_clear()
    fake = pretend_driver(monkeypatch, tmp_path)
    monkeypatch.setattr(dispatch, "_is_on_gpu", lambda operands: True)
    monkeypatch.setattr(dispatch, "_pay", lambda operands: False)
    monkeypatch.setenv(tuning.VARIABLE, "0")
    yield fake
    cuda._plan.cache_clear()


BOUND = 1e-6  # as `problem.error_bound` of the accurate mode


def trials(which, basis):
    """A kernel's known-answer tests on fewer rows, two blocks and a part of one: of each the plan,
    the tensors by name, which of them is the output, what it is to be, and the sets of each
    parameter."""
    planner = getattr(kernels, which)
    planned = trial.plans_of(which, plan_of(which, basis))
    for number, ((plan,), options) in enumerate(
        zip(planned, ({}, {"is_shared": True}), strict=True)
    ):
        smaller = replace(plan.layer, rows=600 // plan.layer.inputs)
        plan = planner(smaller, **(options if which == "basis_slopes" else {}))
        given = trial._trial(which, [plan], number == 1)
        tensors = {name: given.tensors[name] for name in plan.tensors if name in given.tensors}
        ((output, expected),) = given.expected.items()
        tensors[output] = torch.ones(expected.shape, dtype=torch.float32)
        yield plan, tensors, output, expected, [p.shape[0] for p in given.operands.params]


def check_under(sanitizer, texts):
    """Check the kernels of some bases, in a process that has the sanitizer."""
    kernels_of = [
        (which, BASES[text]) for text in texts for which in ("basis_values", "basis_slopes")
    ]
    emulator = Emulator(None, [f"{which}<{b.cuda}>" for which, b in kernels_of], sanitizer)
    for which, basis in kernels_of:
        for plan, tensors, output, expected, sets in trials(which, basis):
            for launch in plan.at({name: t.data_ptr() for name, t in tensors.items()}, sets):
                emulator.run(launch)
            assert trial.error_of(tensors[output].double(), expected) <= BOUND


def plan_of(which, basis):
    functions = Functions(basis)
    layer = Layer(functions, 20, 9, 1, Element.FLOAT, Precision.ACCURATE, Device(90, 4))
    return getattr(kernels, which)(layer)


@pytest.mark.parametrize("which", ["basis_values", "basis_slopes"])
@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_a_basis_passes_its_known_answer_test(driver, which, basis):
    outcome = trial.run(which, plan_of(which, basis), CPU)
    assert outcome.fault == ""
    assert len(driver.launched) == 2  # of all rows, and of gradients that they share


@pytest.mark.parametrize(
    ("which", "edit"),
    [
        ("basis_values", (r"to\[function \* size\] = value", "to[function * size] = -value")),
        ("basis_slopes", (r"is_shared \? input : element", "element")),
        ("basis_slopes", (r"total \+= part, part = 0", "part = 0")),
        ("basis_slopes", (r"grad_x\[element\] \+= ", "grad_x[element] = ")),
    ],
)
def test_a_planted_fault_is_refused(driver, which, edit):
    driver.edit = lambda text: re.sub(*edit, text)
    plan = plan_of(which, next(iter(BASES.values())))
    name = "y" if which == "basis_values" else "grad_x"
    if "part" in edit[0]:
        plan = plan_of(which, max(BASES.values(), key=lambda basis: basis.num_basis))
    assert f"{name} is off by" in trial.run(which, plan, CPU).fault


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [1, 7])
@pytest.mark.parametrize("most", [2**10, 2**28])
def test_a_layer_whose_basis_kernels_evaluate(driver, monkeypatch, kind, outputs, most):
    small = Workspace(most, most, most // 8)  # one that cuts rows, inputs and pieces
    monkeypatch.setattr(cells, "workspace_of", lambda device: small)
    layer = build(CPU, kind, torch.float32, out_features=outputs)
    x, grad_y = random_like(layer, 8, layer.in_features), random_like(layer, 8, outputs)
    expected = run_ref(reference_of(kind), layer, x, grad_y)
    with forms.watched() as ran:
        actual = run(layer, x, grad_y)
    assert_close(actual, expected, BOUNDS[torch.float32])
    # Splines on knots that are not equally spaced have no kernels.
    name = "product" if kind == "splines-moved" else EVALUATED
    assert ran == {"forward": name, "backward": name}
    assert bool(driver.launched) == (name == EVALUATED)


# fused_wav_kan is no product of a basis.
PRODUCTS = [row for row in ROWS if row.startswith("fused_") and row != "fused_wav_kan"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_is_not_float32_takes_pytorchs_operators(driver, name):
    layer = randomize(kan_impls.create_layer(name, 3, 4, dtype=torch.float64))
    with forms.watched() as ran:
        layer(random_like(layer, 5, 3))
    assert ran == {"forward": "product"}


def test_a_refused_evaluation_takes_pytorchs_operators_and_says_so(driver):
    driver.edit = lambda text: re.sub(r"size\] = value", "size] = -value", text)
    layer = build(CPU, "fourier", torch.float32)
    x = random_like(layer, 8, layer.in_features)
    with pytest.warns(UserWarning, match="basis_values<Fourier<5>>.*failed its known-answer"):
        y = layer(x)
    layer.backend = "product"
    assert torch.equal(layer(x), y)
    assert not proof.known.proven


def test_an_evaluation_needs_a_proof(driver):
    driver.gpus.is_capturing = True
    layer = build(CPU, "fourier", torch.float32)
    operands = dispatch.Operands(random_like(layer, 8, 5), layer.weight.detach())
    evaluated = dispatch.choosing.terms_in(forms.Product(is_evaluated=True), operands, layer.basis)
    with pytest.raises(KernelUnavailable, match="is not proven on this device yet"):
        dispatch.product.forward(operands.x, evaluated, None)
    assert not driver.launched


@pytest.mark.sanitizer
@pytest.mark.parametrize("sanitize", emulation.SANITIZERS)
def test_sanitizers_are_quiet_about_the_kernels_that_evaluate(sanitize):
    if emulation.find_runtime(sanitize) is None:
        pytest.skip(f"{sanitize} sanitizer is not installed beside g++")
    done = emulation.run_in_subprocess(check_under, sanitize, list(BASES), sanitize=sanitize)
    assert done.returncode == 0, done.stdout
