"""Kernels prove themselves before they are used: against a driver that runs them in emulation."""

import ctypes
import re
import struct
import threading
import warnings

import pytest
import torch

import kan_impls
from kan_impls.basis.fourier import FourierBasis
from kan_impls.fused import compiler, cuda, decisions, jit, kernels, problem, proof, trial
from kan_impls.fused.compiler import KernelUnavailable
from kan_impls.fused.guarded_memory import GuardedMemory
from kan_impls.fused.kernels import Element, Precision
from kan_impls.fused.proof import KernelRefused
from tests.emulated_driver import pretend_driver
from tests.emulator.build import find_compiler
from tests.forked import METHODS, forked
from tests.helpers import random_like, randomize

pytestmark = pytest.mark.skipif(
    find_compiler() is None, reason="g++ is not installed: the kernels are emulated with it"
)

CPU = torch.device("cpu")
TF32_BOUND = problem.error_bound(Element.FLOAT, Precision.TF32)


def edited(pattern, replacement):
    return lambda text: re.sub(pattern, replacement, text)


# Two fragments of each sum of the tensor core change places.
SWAPPED = edited(r"total\[n\] \+= step\[n\]", "total[n] += step[n ^ 1]")


@pytest.fixture
def driver(monkeypatch, tmp_path):
    cuda._plan.cache_clear()
    yield pretend_driver(monkeypatch, tmp_path)
    cuda._plan.cache_clear()


@pytest.fixture
def gpus(driver):
    return driver.gpus


@pytest.fixture
def new_process(monkeypatch, driver):
    """Forgets all but what is on disk."""

    def forget():
        monkeypatch.setattr(proof, "known", proof.Known())
        monkeypatch.setattr(jit, "_functions", {})
        driver.launched.clear()

    return forget


@pytest.fixture
def plant(monkeypatch, driver):
    """Plants a change in the source, or none, as a new version of the package would."""
    sources = compiler.sources()

    def change(edit):
        files = {name: edit(text) if edit else text for name, text in sources.items()}
        monkeypatch.setattr(compiler, "sources", lambda: files)
        driver.edit = edit

    return change


def build(backend="auto"):
    torch.manual_seed(0)
    return randomize(
        kan_impls.create_layer("fused_fourier_kan", 6, 5, grid_size=3, backend=backend)
    )


def plan_of(which="forward", rows=9):
    functions = kernels.Functions(build().basis)
    layer = kernels.Layer(
        functions, rows, 6, 5, Element.FLOAT, Precision.TF32, kernels.Device(90, 4)
    )
    return getattr(kernels, which)(layer)


def assert_close_to_product(y, x):
    expected = build("product")(x)
    assert float((y - expected).detach().norm() / expected.detach().norm()) <= TF32_BOUND


def users(driver, x):
    """The launches on the user's own x."""
    return [kernel for kernel, address in driver.launched if address == x.data_ptr()]


def verdict_files(folder):
    return sorted(folder.rglob("*.json"))


def test_a_kernel_is_used_after_it_has_passed(driver, tmp_path, monkeypatch):
    layer, x = build("fused"), random_like(build(), 9, 6)
    seen = []  # for each launch on the user's data, how many verdicts were on disk
    launch = driver.cuLaunchKernel

    def watched(*arguments):
        result = launch(*arguments)
        if driver.launched[-1][1] == x.data_ptr():
            seen.append(len(verdict_files(tmp_path)))
        return result

    driver.cuLaunchKernel = watched
    assert_close_to_product(layer(x), x)
    before = len(driver.launched)
    assert (len(users(driver, x)), seen) == (1, [1])
    assert before > 2
    layer(x)
    assert len(driver.launched) == before + 1  # one test is enough
    layer(x).sum().backward()
    assert [kernel.partition("<")[0] for kernel in users(driver, x)] == [
        *["forward"] * 3,
        "weight_grad",
    ]
    assert seen == [1, 1, 1, 2]
    assert not proof.known.unusable


def test_the_stand_in_runs_nothing_that_is_not_proven(driver, monkeypatch):
    monkeypatch.setattr(proof, "require", lambda *arguments, **options: None)
    with pytest.raises(AssertionError, match=r"forward<.* is not proven"):
        build("fused")(random_like(build(), 9, 6))


def test_a_wrong_kernel_is_refused_until_its_source_is_mended(driver, new_process, plant):
    plant(SWAPPED)
    x = random_like(build(), 9, 6)
    expected = build("product")(x)
    for _ in range(2):  # the second time in a process that knows the verdict from the disk
        with pytest.warns(UserWarning, match=r"failed its known-answer test on NVIDIA H100, sm_90"):
            y = build()(x)
        assert torch.equal(y, expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(build()(x), expected)
        with pytest.raises(KernelRefused, match=r"y is off by \d.*1\.0e-03 is allowed.*report"):
            build("fused")(x)
        assert not users(driver, x)
        new_process()
    with pytest.raises(KernelRefused):
        build("fused")(x)
    assert not driver.launched  # the verdict was read
    plant(None)
    new_process()
    assert_close_to_product(build("fused")(x), x)
    assert len(users(driver, x)) == 1


def test_a_refusal_ends_with_its_driver(driver, new_process, plant, monkeypatch):
    plant(SWAPPED)
    x = random_like(build(), 9, 6)
    with pytest.raises(KernelRefused):
        build("fused")(x)
    new_process()
    driver.edit = None  # the same source, which a newer driver runs rightly
    monkeypatch.setattr("kan_impls.fused.requirements.driver_release", lambda: "13.1 590.1")
    assert_close_to_product(build("fused")(x), x)


def test_a_refused_gradient_takes_the_product_form(driver, plant, monkeypatch):
    """The output's kernel is right, and that of the weights' gradient is not."""
    run_trial = trial.run

    def wrong_gradient(which, *arguments, **options):
        outcome = run_trial(which, *arguments, **options)
        return trial.Outcome(0.3, "planted") if which == "weight_grad" else outcome

    monkeypatch.setattr(trial, "run", wrong_gradient)
    layer, product = build(), build("product")
    x = random_like(layer, 9, 6)
    with pytest.warns(UserWarning, match="weight_grad<.*: planted"):
        layer(x).sum().backward()
    product(x).sum().backward()
    assert torch.equal(layer.weight.grad, product.weight.grad)
    assert [kernel.partition("<")[0] for kernel in users(driver, x)] == ["forward"]


def y_of(arguments):
    """Address and bytes of y in a packed problem."""
    addresses = problem.ADDRESSES
    y, rows = struct.unpack_from("<Q", arguments, 8 * addresses.index("y"))[0], 8 * len(addresses)
    rows, _, outputs = struct.unpack_from("<qii", arguments, rows)
    return y, rows * outputs * 4


def not_run(arguments):
    return False


def one_byte_before(arguments):
    ctypes.memset(y_of(arguments)[0] - 1, 0, 1)


def one_byte_behind(arguments):
    ctypes.memset(sum(y_of(arguments)), 0, 1)


def not_run_without_a_bias(arguments):
    place = 8 * problem.ADDRESSES.index("bias")
    return any(arguments[place : place + 8])


@pytest.mark.parametrize(
    ("misbehave", "fault"),
    [
        (not_run, "y is off by inf"),
        (not_run_without_a_bias, "y is off by inf"),
        (one_byte_before, "memory beside the outputs was written"),
        (one_byte_behind, "memory beside the outputs was written"),
    ],
)
def test_what_a_test_sees_beside_wrong_numbers(driver, misbehave, fault):
    assert trial.run("forward", plan_of(), CPU).fault == ""
    driver.misbehave = misbehave
    assert trial.run("forward", plan_of(), CPU).fault == fault


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"error": 0.0, "bound": 1.0, "fault": ""}',
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"H100", b"A100"),
        lambda text: text.replace(b'"bound": 0.001', b'"bound": 0.1'),
        lambda text: text.replace(b'"bound": 0.001', b'"bound": null'),
        lambda text: re.sub(rb'"error": [^,]*,', b'"error": 0.5,', text),
        lambda text: re.sub(rb'"error": [^,]*,', b'"error": null,', text),
        lambda text: text.replace(b'"fault": ""', b'"fault": 0'),
    ],
)
def test_a_damaged_or_foreign_verdict_is_a_miss(driver, new_process, tmp_path, content):
    plan = plan_of()
    proof.require("forward", plan, CPU)
    (file,) = verdict_files(tmp_path)
    good = file.read_bytes()
    file.write_bytes(content(good) if callable(content) else content)
    assert file.read_bytes() != good
    new_process()
    proof.require("forward", plan, CPU)
    assert driver.launched
    assert file.read_bytes() == good
    new_process()
    proof.require("forward", plan, CPU)
    assert not driver.launched


def test_threads_test_a_kernel_once(driver, tmp_path):
    plan = plan_of()
    proof.require("forward", plan, CPU)
    once = len(driver.launched)
    proof.known.proven.clear()
    (file,) = verdict_files(tmp_path)
    file.unlink()
    barrier = threading.Barrier(20)

    def first_use():
        barrier.wait()
        proof.require("forward", plan, CPU)

    threads = [threading.Thread(target=first_use) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(driver.launched) == 2 * once
    assert verdict_files(tmp_path) == [file]


def prove_once(plan):
    proof.require("forward", plan, CPU)
    assert proof.known.proven


@pytest.mark.skipif("fork" not in METHODS, reason="other processes would have no stand-in driver")
def test_processes_that_test_at_once_leave_one_verdict(driver, new_process, tmp_path, monkeypatch):
    plan = plan_of()
    # Forked processes must not use the threads of torch's products.
    monkeypatch.setattr(trial, "run", lambda *arguments: trial.Outcome(1e-4, ""))
    assert forked(prove_once, *[(plan,)] * 24) == [0] * 24
    assert len(verdict_files(tmp_path)) == 1
    monkeypatch.setattr(trial, "run", None)
    proof.require("forward", plan, CPU)  # the verdict is valid


@pytest.mark.filterwarnings("ignore:the fused kernels do not run")
def test_nothing_is_tested_while_a_graph_is_captured(driver, gpus, new_process):
    layer, x = build(), random_like(build(), 9, 6)
    expected = build("product")(x)
    gpus.is_capturing = True
    assert torch.equal(layer(x), expected)
    with pytest.raises(KernelUnavailable, match="run the layer once before the capture"):
        build("fused")(x)
    assert not driver.calls
    gpus.is_capturing = False
    layer(x)  # that it could not be tested holds for the capture only
    for again in range(2):
        gpus.is_capturing = True
        driver.launched.clear()
        layer(x)
        assert len(users(driver, x)) == len(driver.launched) == 1
        gpus.is_capturing = False
        if again == 0:
            new_process()
            layer(x)


def test_a_kernel_found_proven_is_loaded_with_all_that_it_may_need(driver, gpus, new_process):
    proof.require("forward", plan_of(), CPU)
    new_process()
    proof.require("forward", plan_of(), CPU)
    assert {name.partition("<")[0] for name, _ in jit._functions} == {"forward", "reduce"}


def test_nothing_is_tested_while_torch_compile_traces(driver, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(KernelUnavailable, match="is not proven on this device yet"):
        proof.require("forward", plan_of(), CPU)
    assert not driver.calls


@pytest.mark.parametrize(
    ("status", "error"), [(2, torch.OutOfMemoryError), (719, RuntimeError), (999, RuntimeError)]
)
@pytest.mark.parametrize("backend", ["auto", "fused"])
def test_what_is_no_fault_of_the_kernel_disables_nothing(
    driver, tmp_path, monkeypatch, status, error, backend
):
    monkeypatch.setattr("kan_impls.fused.requirements.driver_version", lambda: (13, 0))
    monkeypatch.setattr(compiler, "nvrtc_version", lambda: (13, 0))
    driver.failures["cuModuleLoadData"] = status
    layer, x = build(backend), random_like(build(), 9, 6)
    with pytest.raises(error, match=f"{status}, text of the driver") as caught:
        layer(x)
    assert not isinstance(caught.value, KernelUnavailable)
    assert not verdict_files(tmp_path)
    driver.failures.clear()
    layer(x)
    assert len(users(driver, x)) == 1


def test_a_test_that_ends_the_device_is_not_repeated(driver, new_process, monkeypatch, tmp_path):
    def crash(memory):
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(GuardedMemory, "read_back", crash)
        with pytest.raises(RuntimeError, match="illegal memory access") as caught:
            build()(random_like(build(), 9, 6))
    assert not isinstance(caught.value, KernelUnavailable)
    new_process()
    with pytest.raises(KernelRefused, match="its test ended with: CUDA error: an illegal memory"):
        build("fused")(random_like(build(), 9, 6))
    assert not driver.launched


@pytest.mark.parametrize("status", [4, 900, 906])
def test_what_another_thread_does_is_no_fault_of_the_kernel(driver, new_process, tmp_path, status):
    driver.failures["cuLaunchKernel"] = status  # it captures, or the process ends
    with pytest.raises(RuntimeError, match=f"{status}, text of the driver"):
        build()(random_like(build(), 9, 6))
    assert not verdict_files(tmp_path)
    driver.failures.clear()
    build("fused")(random_like(build(), 9, 6))


def test_a_fault_that_shows_in_a_later_launch_is_the_kernels_too(driver, new_process):
    driver.failures["cuLaunchKernel"] = 700  # launches are asynchronous
    with pytest.raises(RuntimeError, match="700, text of the driver") as caught:
        build()(random_like(build(), 9, 6))
    assert not isinstance(caught.value, KernelUnavailable)
    driver.failures.clear()
    new_process()
    with pytest.raises(KernelRefused, match="its test ended with"):
        build("fused")(random_like(build(), 9, 6))


def test_a_verdict_of_a_variants_own_basis_holds_for_its_source(monkeypatch):
    class Own(FourierBasis):
        pass

    first = proof.version_of(Own)
    assert first
    assert proof.version_of(FourierBasis) == ""  # a part of every environment
    proof.version_of.cache_clear()
    monkeypatch.setattr("inspect.getsource", lambda module: "mended")
    assert proof.version_of(Own) not in ("", first)
    proof.version_of.cache_clear()


def test_random_numbers_and_gradients_of_the_user_are_left_alone(driver):
    plan, before = plan_of(), torch.get_rng_state()
    proof.require("forward", plan, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_verdict_holds_for_one_gpu_driver_compiler_and_source(driver, gpus, monkeypatch):
    first = proof.environment_of(CPU)
    assert first["gpu"] == "NVIDIA H100, sm_90"
    for change in (
        lambda: setattr(gpus, "current", 1),
        lambda: monkeypatch.setattr("kan_impls.fused.requirements.driver_release", lambda: "14"),
        lambda: monkeypatch.setattr(compiler, "nvrtc_build", lambda: "13.0.89 CL-2"),
        lambda: monkeypatch.setattr(compiler, "sources", lambda: {"kernels.cu": "mended"}),
    ):
        before = proof.environment_of(CPU)
        change()
        after = proof.environment_of(CPU)
        assert sum(before[key] != after[key] for key in before) == 1
        assert decisions.folder_of("proofs", before) != decisions.folder_of("proofs", after)
