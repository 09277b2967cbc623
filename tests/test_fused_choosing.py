"""The form that a layer takes on a GPU, by a stand-in driver and a stand-in clock."""

import re
import warnings

import pytest
import torch
from torch._subclasses import FakeTensorMode

import kan_impls
from kan_impls.fused import choosing, cuda, dispatch, doctor, forms, proof, tuning, workspace
from kan_impls.fused.__main__ import main
from kan_impls.fused.compiler import KernelUnavailable
from kan_impls.fused.forms import Formula, Kernels, Product
from kan_impls.fused.tiles import FORWARD_TILES
from tests.emulated_driver import pretend_driver
from tests.emulator.build import find_compiler
from tests.helpers import random_like, randomize, relative_error

pytestmark = pytest.mark.skipif(
    find_compiler() is None, reason="g++ is not installed: the kernels are emulated with it"
)

ROWS, IN_FEATURES, OUT_FEATURES = 9, 6, 5


class Clock:
    """Says that the candidates of which `prefer` is a part are three times as fast as others."""

    def __init__(self):
        self.prefer = "kernels"
        self.timed = []

    def __call__(self, run, device):
        with forms.watched():
            run()
        name = str(run.args[0])
        self.timed.append(name)
        return 1e-5 if name.startswith(self.prefer) else 3e-5


@pytest.fixture
def clock(monkeypatch):
    own = Clock()
    monkeypatch.setattr(tuning, "clock", own)
    return own


@pytest.fixture
def driver(monkeypatch, tmp_path, clock):
    cuda._plan.cache_clear()
    fake = pretend_driver(monkeypatch, tmp_path)
    small, large = workspace.of_launches(2**11), workspace.of_launches(2**28)
    monkeypatch.delenv(tuning.VARIABLE, raising=False)
    monkeypatch.setattr(choosing, "is_measured", lambda device: True)
    monkeypatch.setattr(dispatch, "_is_on_gpu", lambda operands: True)
    monkeypatch.setattr(choosing, "workspaces", lambda device: [large, small])
    yield fake
    cuda._plan.cache_clear()


@pytest.fixture
def new_process(monkeypatch, driver, clock):
    """Forgets all but what is on disk."""

    def forget():
        monkeypatch.setattr(proof, "known", proof.Known())
        monkeypatch.setattr(choosing, "known", {})
        driver.launched.clear()
        clock.timed.clear()

    return forget


def build(backend="auto"):
    torch.manual_seed(0)
    return randomize(
        kan_impls.create_layer(
            "fused_fourier_kan", IN_FEATURES, OUT_FEATURES, grid_size=3, backend=backend
        )
    )


def step(layer, rows=ROWS, needs_grad_x=True):
    """Forward and backward: the results, and the forms that ran."""
    torch.manual_seed(1)
    x = random_like(layer, rows, IN_FEATURES).requires_grad_(needs_grad_x)
    with forms.watched() as ran:
        y = layer(x)
        y.backward(random_like(layer, rows, OUT_FEATURES))
    return (y.detach(), x.grad, layer.weight.grad), ran


def assert_right(results, rows=ROWS):
    expected, _ = step(build("product"), rows)
    for actual, wanted in zip(results, expected, strict=True):
        # TF32: see `problem.error_bound`; sums of a few hundred terms.
        assert relative_error(actual, wanted) <= 1e-3


@pytest.mark.parametrize("prefer", ["kernels", "product in 256 MiB of", "product", "formula"])
def test_the_fastest_form_runs_whichever_it_is(driver, clock, prefer):
    clock.prefer = prefer
    layer = build()
    step(layer)
    layer.zero_grad()
    driver.launched.clear()
    results, ran = step(layer)
    assert all(form.startswith(prefer) for form in ran.values())
    assert set(ran) == {"forward", "backward"}
    assert_right(results)
    assert bool(driver.launched) == (prefer != "formula")


def test_every_tile_and_the_product_are_candidates(driver, clock):
    step(build())
    names = set(clock.timed)
    for tile in FORWARD_TILES:
        assert any(f"tile {tile.warps}x{tile.tiles} and" in name for name in names)
    products = {"product in 256 MiB", "product in 0 MiB"}
    assert {"formula", *products, *(f"{name} of an evaluated basis" for name in products)} <= names
    assert proof.known.proven >= {
        (kernel, build().basis.text, torch.device("cpu"))
        for kernel, _ in driver.launched
        if not kernel.startswith("reduce")
    }


def test_a_shape_is_measured_once_and_its_bucket_with_it(driver, clock, new_process):
    layer = build()
    step(layer, 9)
    clock.timed.clear()
    step(layer, 16)  # up to 16 rows
    assert not clock.timed
    step(layer, 17)
    assert clock.timed
    new_process()
    step(layer, 9)
    assert not clock.timed  # what is on disk decides
    step(layer, 9, needs_grad_x=False)
    assert clock.timed  # other gradients


@pytest.mark.filterwarnings("ignore:the fused kernels do not run")
def test_a_choice_is_one_of_dtypes(driver, clock):
    layer = build()
    step(layer)
    clock.timed.clear()
    layer.bias = torch.nn.Parameter(layer.bias.detach().double())
    layer(random_like(layer, ROWS, IN_FEATURES))
    assert clock.timed  # the kernels would misread the bias
    assert not any(name.startswith("kernels") for name in clock.timed)


def test_a_wrong_kernel_is_never_used_and_said_once(driver, clock, tmp_path):
    def swapped(text):
        return re.sub(r"total\[n\] \+= step\[n\]", "total[n] += step[n ^ 1]", text)

    driver.edit = swapped
    layer = build()
    x = random_like(layer, ROWS, IN_FEATURES)
    with pytest.warns(UserWarning, match="not all fused kernels run.*failed its known-") as said:
        y = layer(x)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(layer(x), y)
    expected = build("product")(x)
    assert relative_error(y.detach(), expected.detach()) <= 1e-6
    assert not [kernel for kernel, address in driver.launched if address == x.data_ptr()]
    assert {kernel.partition("<")[0] for kernel, *_ in proof.known.proven} == {"basis_values"}


def test_what_is_fixed_takes_what_is_suggested(driver, clock, monkeypatch):
    layer = build()
    x = random_like(layer, ROWS, IN_FEATURES)

    def ran(run):
        with forms.watched() as found:
            run()
        return found.get("forward")

    clock.prefer = "formula"
    torch.use_deterministic_algorithms(True)
    try:
        assert ran(lambda: layer(x)) == "kernels"
    finally:
        torch.use_deterministic_algorithms(False)
    driver.gpus.is_capturing = True
    assert ran(lambda: layer(x)) == "kernels"
    driver.gpus.is_capturing = False
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert ran(lambda: compiled(x)) == "kernels"
    monkeypatch.setenv(tuning.VARIABLE, "0")
    assert ran(lambda: layer(x)) == "kernels"
    for backend, form in (("fused", "kernels"), ("product", "product")):
        assert ran(lambda backend=backend: build(backend)(x)) == form
    assert not clock.timed
    monkeypatch.delenv(tuning.VARIABLE)
    monkeypatch.setattr(choosing, "known", {})
    assert ran(lambda: layer(x)) == "formula"


def test_a_stored_choice_leaves_a_capture_its_kernel(driver, clock, new_process):
    clock.prefer = "formula"
    layer = build()
    x = random_like(layer, ROWS, IN_FEATURES)
    layer(x)
    new_process()
    layer(x)
    driver.gpus.is_capturing = True
    with forms.watched() as ran, warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
    assert ran == {"forward": "kernels"}


def test_memory_that_runs_out_takes_the_smallest_workspace(driver, monkeypatch):
    taken = []

    def run(form):
        taken.append(form)
        if form == Product():
            raise torch.OutOfMemoryError("none left")
        return form

    operands = dispatch.Operands(torch.zeros(4, 6), torch.zeros(6, 6, 5))
    monkeypatch.setattr(dispatch, "_is_on_gpu", lambda operands: True)
    arguments = (operands, build().basis, "product", True, None)
    assert dispatch._run("forward", run, *arguments) == Product(dispatch.cells.SMALLEST)
    assert taken == [Product(), Product(dispatch.cells.SMALLEST)]


def test_memory_that_runs_out_in_a_measurement_takes_the_smallest_workspace(driver, clock):
    def run(form):
        if form != Product(dispatch.cells.SMALLEST):
            raise torch.OutOfMemoryError("none left")
        return form

    operands = dispatch.Operands(torch.zeros(4, 6), torch.zeros(6, 6, 5))
    arguments = (operands, build().basis, "auto", False, None)
    assert dispatch._run("forward", run, *arguments) == Product(dispatch.cells.SMALLEST)


@pytest.mark.parametrize("backend", ["auto", "fused"])
def test_nothing_is_launched_on_fake_tensors(driver, clock, backend):
    layer = build(backend)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(torch.rand(ROWS, IN_FEATURES))
        if backend == "auto":
            assert layer(x).shape == (ROWS, OUT_FEATURES)
        else:
            with pytest.raises(KernelUnavailable, match="fake"):
                layer(x)
    assert not driver.launched
    assert not clock.timed


def test_a_command_chooses_ahead_and_the_report_lists_what_it_chose(
    driver, clock, new_process, capsys, monkeypatch
):
    command = ["tune", "--variant", "fused_fourier_kan", "--shape", "9", "6", "5"]
    assert main([*command, "--option", "grid_size=3", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3  # forward, and backward with and without the gradient of x
    for line in printed:
        assert "up to 16 rows of 6 inputs, 5 outputs" in line
        assert re.search(r": kernels( with tile \S+)?.*10\.0 ± 0\.0 µs, .*product in", line)
    new_process()
    step(build())
    assert not clock.timed
    title, *listed = doctor._forms(["cpu"])
    assert title == "NVIDIA H100, sm_90: 3 chosen by measurement"
    assert [line.strip() for line in listed] == printed
    monkeypatch.setenv(tuning.VARIABLE, "0")
    assert main([*command, "--device", "cpu"]) == 1
    assert "KAN_IMPLS_TUNE is 0; expected a GPU, and 1 or refresh" in capsys.readouterr().err
    monkeypatch.delenv(tuning.VARIABLE)
    command[2] = "mlp"
    assert main([*command, "--device", "cpu"]) == 1
    assert "mlp has one form only; expected" in capsys.readouterr().err


def test_forms_have_names():
    assert [str(form) for form in (Kernels(), Product(), Formula())] == [
        "kernels",
        "product",
        "formula",
    ]
