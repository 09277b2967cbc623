"""Loading and launching, against a driver and GPUs that only record what is asked of them."""

import contextlib
import threading
import time
from dataclasses import dataclass

import pytest
import torch

from kan_impls.fused import compiler, cubin_cache, jit, requirements
from kan_impls.fused.compiler import Compiled, KernelUnavailable, Resources
from tests.fused_helpers import SOURCES, FakeDriver, FakeGpus, Handle

KIB = 1024


@dataclass(frozen=True)
class Plan:
    kernel: str = "forward<Fourier<5>>"
    grid: tuple[int, int, int] = (3, 4, 5)
    threads: int = 128
    shared_bytes: int = 1000
    arguments: bytes = b"\1\2\3\4"


@pytest.fixture
def gpus(monkeypatch):
    return FakeGpus(monkeypatch)


@pytest.fixture
def driver(monkeypatch, gpus):
    fake = FakeDriver()
    monkeypatch.setattr(jit, "_driver", lambda: fake)
    monkeypatch.setattr(jit, "_functions", {})
    monkeypatch.setattr(jit, "_contexts", {})
    monkeypatch.setattr(jit, "available", lambda device: None)
    return fake


@pytest.fixture
def compiled(monkeypatch, driver):
    """What was asked of the compiler: pairs of names and architecture."""
    asked = []

    def compile_kernels(names, arch):
        asked.append((names, arch))
        resources = Resources(registers=32, spill_stores=0, spill_loads=0, stack=0, shared=KIB)
        return {
            name: Compiled(f"{name} for {arch}".encode(), f"_Z{name}", resources) for name in names
        }

    monkeypatch.setattr(jit, "compile_kernels", compile_kernels)
    return asked


def cuda(index=None):
    return torch.device("cuda", index)


def test_the_first_launch_loads_and_the_others_only_launch(driver, compiled):
    jit.launch(Plan(), cuda(0))
    jit.launch(Plan(arguments=b"\5\6\7\0"), cuda(0))
    assert compiled == [(["forward<Fourier<5>>"], "sm_90")]
    assert driver.calls == [
        ("cuDeviceGet", (0,)),
        ("cuDevicePrimaryCtxRetain", ("device 0",)),
        ("cuCtxSetCurrent", ("context of device 0",)),
        ("cuModuleLoadData", (b"forward<Fourier<5>> for sm_90",)),
        ("cuModuleGetFunction", (driver.calls[4][1][0], b"_Zforward<Fourier<5>>")),
        *[
            (
                "cuLaunchKernel",
                ("function _Zforward<Fourier<5>>", 3, 4, 5, 128, 1, 1, 1000, 1000, argument, 0),
            )
            for argument in (b"\1\2\3\4", b"\5\6\7\0")
        ],
    ]


def test_a_device_without_a_number_is_the_current_one(driver, compiled, gpus):
    gpus.current = 2
    jit.launch(Plan(), cuda())
    assert driver.named("cuDeviceGet") == [(2,)]
    assert [stream for *_, stream, _, _ in driver.named("cuLaunchKernel")] == [1002]


def test_every_device_has_its_own_module_for_its_own_architecture(driver, compiled, gpus):
    for index in (0, 1, 2, 1):
        jit.launch(Plan(), cuda(index))
    assert [arch for _, arch in compiled] == ["sm_90", "sm_86", "sm_90"]
    assert driver.counts["cuModuleLoadData"] == 3
    assert [stream for *_, stream, _, _ in driver.named("cuLaunchKernel")] == [
        1000,
        1001,
        1002,
        1001,
    ]
    assert gpus.current == 0


def test_a_launch_happens_with_its_device_current(driver, compiled, gpus, monkeypatch):
    devices = []
    original = driver.cuLaunchKernel

    def record(*arguments):
        devices.append(gpus.current)
        return original(*arguments)

    driver.cuLaunchKernel = record
    jit.launch(Plan(), cuda(1))
    jit.launch(Plan(), cuda(0))
    assert devices == [1, 0]


def limits(driver):
    return [value for _, _, value in driver.named("cuFuncSetAttribute")]


def test_the_limit_of_shared_memory_is_raised_when_a_launch_needs_it(driver, compiled):
    # The fake kernel has 1 KiB of static shared memory: 47 remain without asking.
    jit.launch(Plan(shared_bytes=47 * KIB), cuda(0))
    assert limits(driver) == []
    for _ in range(3):
        jit.launch(Plan(shared_bytes=47 * KIB + 16), cuda(0))
    assert limits(driver) == [47 * KIB + 16]
    jit.launch(Plan(shared_bytes=99 * KIB), cuda(0))
    jit.launch(Plan(shared_bytes=64 * KIB), cuda(0))
    assert limits(driver) == [47 * KIB + 16, 99 * KIB]
    jit.launch(Plan(shared_bytes=64 * KIB), cuda(1))
    assert limits(driver) == [47 * KIB + 16, 99 * KIB, 64 * KIB]


def test_too_much_shared_memory_is_refused(driver, compiled):
    driver.failures["cuFuncSetAttribute"] = 1
    with pytest.raises(RuntimeError, match=r"asks for 230000 bytes .* cuda:0 does not have"):
        jit.launch(Plan(shared_bytes=230_000), cuda(0))
    assert driver.counts["cuLaunchKernel"] == 0


def test_a_thread_without_a_context_gets_one(driver, compiled):
    jit.launch(Plan(), cuda(0))
    driver.calls.clear()
    driver.failures["cuLaunchKernel"] = driver.CUresult.CUDA_ERROR_INVALID_CONTEXT
    jit.launch(Plan(), cuda(0))
    names = [name for name, _ in driver.calls]
    assert names == ["cuLaunchKernel", "cuCtxSetCurrent", "cuLaunchKernel"]


OTHER = Handle("context of another library")


@pytest.mark.parametrize("before", [0, OTHER])
def test_a_context_of_another_library_is_current_again(driver, compiled, before):
    driver.context = before
    jit.launch(Plan(), cuda(0))
    own = Handle("context of device 0")
    assert driver.context == (before or own)
    for refusal in (201, 400):  # 400: handles of another context
        driver.calls.clear()
        driver.context = before
        driver.failures["cuLaunchKernel"] = refusal
        with contextlib.suppress(RuntimeError):  # for 400 the stand-in goes on refusing
            jit.launch(Plan(), cuda(0))
        bound = [(own,), (OTHER,)] if before else [(own,)]
        assert driver.named("cuCtxSetCurrent") == bound
        assert driver.counts["cuLaunchKernel"] == 2
        assert driver.context == (before or own)
        driver.failures.clear()


@pytest.mark.parametrize(
    ("function", "status", "error", "is_unusable"),
    [
        ("cuModuleLoadData", 2, torch.OutOfMemoryError, False),
        ("cuModuleLoadData", 700, RuntimeError, False),
        ("cuModuleLoadData", 719, RuntimeError, False),
        ("cuModuleLoadData", 222, KernelUnavailable, True),
        ("cuModuleGetFunction", 2, torch.OutOfMemoryError, False),
        ("cuModuleGetFunction", 500, KernelUnavailable, True),
        ("cuLaunchKernel", 2, torch.OutOfMemoryError, False),
        ("cuLaunchKernel", 700, RuntimeError, False),
        ("cuLaunchKernel", 701, KernelUnavailable, True),
        ("cuCtxSetCurrent", 2, torch.OutOfMemoryError, False),
        ("cuFuncSetAttribute", 2, torch.OutOfMemoryError, False),
        ("cuFuncSetAttribute", 1, KernelUnavailable, True),
    ],
)
def test_an_error_stays_what_it_is(
    driver, compiled, monkeypatch, function, status, error, is_unusable
):
    monkeypatch.setattr(requirements, "driver_version", lambda: (12, 4))
    monkeypatch.setattr(compiler, "nvrtc_version", lambda: (13, 0))
    driver.failures[function] = status
    with pytest.raises(error, match=f"{status}, text of the driver") as caught:
        jit.launch(Plan(shared_bytes=64 * KIB), cuda(0))
    assert isinstance(caught.value, KernelUnavailable) == is_unusable
    driver.failures.clear()
    jit.launch(Plan(shared_bytes=64 * KIB), cuda(0))


def test_a_launch_that_fails_says_what_was_launched(driver, compiled):
    driver.failures["cuLaunchKernel"] = 701
    message = (
        r"cannot launch forward<Fourier<5>> on cuda:0 with grid \(3, 4, 5\), 128 threads and "
        r"1000 bytes of shared memory: 701, text of the driver"
    )
    with pytest.raises(RuntimeError, match=message):
        jit.launch(Plan(), cuda(0))


def test_nothing_is_loaded_while_a_graph_is_captured(driver, compiled, gpus):
    gpus.is_capturing = True
    for index in (0, 1):
        with pytest.raises(RuntimeError, match="run the layer once before the capture"):
            jit.launch(Plan(), cuda(index))
    assert (driver.calls, compiled) == ([], [])
    gpus.is_capturing = False
    jit.warmup([Plan().kernel], cuda(0))
    gpus.is_capturing = True
    jit.launch(Plan(), cuda(0))
    assert driver.counts["cuLaunchKernel"] == 1


def test_warmup_compiles_together_what_is_missing(driver, compiled):
    jit.warmup(["a", "b", "a"], "cuda:1")
    jit.warmup(["b", "c"], cuda(1))
    jit.warmup(["c"], cuda(1))
    assert compiled == [(["a", "b"], "sm_86"), (["c"], "sm_86")]
    assert driver.counts["cuModuleLoadData"] == 3
    assert driver.counts["cuLaunchKernel"] == 0


def test_threads_load_a_kernel_once(driver, compiled, monkeypatch):
    barrier = threading.Barrier(8)
    compile_kernels = jit.compile_kernels

    def slowly(names, arch):
        time.sleep(0.02)  # long enough for all threads to find the kernel missing
        return compile_kernels(names, arch)

    monkeypatch.setattr(jit, "compile_kernels", slowly)

    def first_launch():
        barrier.wait()
        jit.launch(Plan(), cuda(0))

    threads = [threading.Thread(target=first_launch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert driver.counts["cuModuleLoadData"] == 1
    assert driver.counts["cuLaunchKernel"] == 8


@pytest.mark.parametrize("function", ["cuModuleLoadData", "cuModuleGetFunction"])
def test_a_driver_that_refuses_the_image_is_named(driver, compiled, monkeypatch, function):
    monkeypatch.setattr(requirements, "driver_version", lambda: (12, 4))
    monkeypatch.setattr(compiler, "nvrtc_version", lambda: (13, 0))
    driver.failures[function] = 209
    with pytest.raises(KernelUnavailable, match=r"CUDA 12\.4.*NVRTC 13\.0: 209, text.*update the"):
        jit.launch(Plan(), cuda(0))


@pytest.mark.gpu
def test_a_kernel_runs_on_the_gpu(monkeypatch, tmp_path):
    """The real driver: arguments by value, a side stream, and more than 48 KiB."""
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(compiler, "sources", lambda: SOURCES)
    monkeypatch.setattr(jit, "_functions", {})
    data = torch.arange(256.0, device="cuda")
    # struct Arguments { float* data; int size; float factor; } of the helpers
    arguments = (
        data.data_ptr().to_bytes(8, "little")
        + (256).to_bytes(4, "little")
        + torch.tensor(3.0).numpy().tobytes()
    )
    plan = Plan("roomy<60>", (1, 1, 1), 256, 256 * 60 * 4, arguments)
    with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="captur"):
        jit.launch(plan, data.device)
    jit.warmup([plan.kernel], data.device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        jit.launch(plan, data.device)
    stream.synchronize()
    expected = 3 * torch.arange(256.0).view(-1, 2).flip(1).flatten()
    torch.testing.assert_close(data.cpu(), expected, rtol=0, atol=0)
