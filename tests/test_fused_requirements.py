"""What is missing for the fused kernels is named with its remedy, and the report shows it."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import (
    compiler,
    cubin_cache,
    decisions,
    doctor,
    jit,
    kernels,
    proof,
    requirements,
)
from kan_impls.fused.__main__ import main
from kan_impls.fused.compiler import KernelUnavailable
from kan_impls.fused.kernels import Functions
from kan_impls.fused.requirements import available
from tests.fused_helpers import SOURCES, needs_nvrtc


@pytest.fixture(autouse=True)
def _ask_anew():
    def forget():
        for function in (
            compiler.load_nvrtc,
            compiler.nvrtc_build,
            requirements._machine_obstacle,
            requirements.device_obstacle,
        ):
            function.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def machine(monkeypatch):
    """A machine where all is well: CUDA 13 torch, an H100, NVRTC and a driver."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    bindings = SimpleNamespace(
        nvrtc=SimpleNamespace(nvrtcVersion=lambda: (0, 13, 0)),
        driver=SimpleNamespace(cuDriverGetVersion=lambda: (0, 13020)),
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(compiler, "nvrtc_build", lambda: "13.0.88 CL-1")
    return bindings


def obstacle(device="cuda"):
    with pytest.raises(KernelUnavailable) as caught:
        available(device)
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["warmup", "--bspline", "0", "3"], "'0' came: the number is 0; expected a positive"),
        (["warmup", "--fourier", "0"], "'0' came: the number is 0; expected a positive"),
        (["warmup", "--fourier", "five"], "'five' came"),
        (["warmup", "--device", "foo"], "'foo' is no device; expected one such as cuda:0"),
        (["waves", "--rows", "0"], "'0' came: the number is 0; expected a positive"),
    ],
)
def test_arguments_that_make_no_sense(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_nothing_is_missing(machine):
    available("cuda:0")
    available(torch.device("cuda"))


def test_the_device_is_no_gpu(machine):
    assert "run on CUDA devices, and this is 'cpu': move layer and input" in obstacle("cpu")


def test_torch_is_a_cpu_build(machine, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is a CPU build: install a CUDA build" in obstacle()


def test_torch_is_a_rocm_build(machine, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "is a ROCm build" in obstacle()


@pytest.mark.parametrize(("version", "driver"), [("12.8", "525"), ("13.0", "580")])
def test_torch_finds_no_gpu(machine, monkeypatch, version, driver):
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (
        f"finds no usable GPU: check that nvidia-smi lists one, that the NVIDIA driver is "
        f"{driver} or newer" in obstacle()
    )


@pytest.mark.parametrize(("version", "extra"), [("12.8", "cuda12"), ("13.0", "cuda")])
def test_cuda_bindings_is_missing(machine, monkeypatch, version, extra):
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    message = obstacle()
    assert "need the Python package cuda-bindings" in message
    assert message.endswith(f"pip install 'kan-impls[{extra}]'")


def test_nvrtc_is_missing(machine):
    def not_found():
        raise RuntimeError("No such file: libnvrtc.so*\nsearched here\nand there")

    machine.nvrtc.nvrtcVersion = not_found
    assert obstacle() == (
        "the fused CUDA kernels are compiled by NVRTC, and its library was not found (No such "
        "file: libnvrtc.so*): pip install 'kan-impls[cuda]'"
    )


def test_the_driver_is_missing(machine):
    def not_found():
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    machine.driver.cuDriverGetVersion = not_found
    assert "driver was not found (Failed to dlopen libcuda.so.1): install it" in obstacle()


def test_the_driver_is_too_old(machine):
    machine.driver.cuDriverGetVersion = lambda: (0, 12080)
    message = obstacle()
    assert (
        "supports CUDA 12.8 and cannot load what NVRTC 13.0 compiles: update it to 580" in message
    )
    assert message.endswith("pip install 'kan-impls[cuda12]'")


def test_an_older_minor_version_of_the_driver_will_do(machine):
    machine.nvrtc.nvrtcVersion = lambda: (0, 13, 5)
    available("cuda:0")


@pytest.mark.parametrize("capability", [(7, 5), (6, 1)])
def test_the_gpu_is_too_old(machine, monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert "cuda:3 (NVIDIA H100) has compute capability {}.{}, and".format(*capability) in obstacle(
        "cuda:3"
    )


def test_each_device_has_its_own_answer(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7 + index, 5))
    assert "capability 7.5" in obstacle("cuda:0")
    available("cuda:1")


def test_the_package_imports_without_cuda():
    code = (
        "import sys; sys.modules['cuda'] = None; "
        "import kan_impls, kan_impls.fused.jit, kan_impls.fused.__main__; "
        "print([name for name in sys.modules if name.startswith('cuda.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cubin_cache, "_has_warned", False)
    return tmp_path / "cache"


@pytest.fixture
def one_kernel(monkeypatch):
    monkeypatch.setattr(compiler, "sources", lambda: SOURCES)
    names = ["scale<64>", "crowded<64>", "framed<50>"]
    monkeypatch.setattr("kan_impls.fused.kernels.kernels_of_all", lambda functions=None: names)
    monkeypatch.setattr("kan_impls.fused.kernels.evaluating", lambda functions=None: [])


@needs_nvrtc
def test_the_report_on_this_machine(capsys, own_cache):
    status = main(["doctor"])
    output = capsys.readouterr().out
    is_gpu_here = torch.cuda.is_available()
    assert status == (0 if is_gpu_here else 1)
    assert f"\nThe fused CUDA kernels {'can run on cuda:0' if is_gpu_here else 'cannot'}" in output
    assert f"torch   {torch.__version__}, CUDA {torch.version.cuda}" in output
    assert "NVRTC   {}.{}, ".format(*compiler.nvrtc_version()) in output
    assert " s for forward<" in output
    assert f"cache   {own_cache} (by KAN_IMPLS_CACHE), " in output
    assert "CPU     product form " in output
    assert ("MISSING" in output) != is_gpu_here


def test_the_report_without_anything(capsys, monkeypatch, own_cache):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    own_cache.write_text("a file in place of the folder")
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("pip install 'kan-impls[cuda]'" in line for line in lines) == 1
    assert any(line.startswith("torch   MISSING: torch") for line in lines)
    assert any(line.startswith("driver  MISSING: the NVIDIA driver") for line in lines)
    assert "compile not tried, without NVRTC" in lines
    assert any(line.startswith("cache   NOT WRITABLE: ") for line in lines)
    assert lines[-1] == "The fused CUDA kernels cannot run."


@needs_nvrtc
@pytest.mark.parametrize(
    ("compiles", "driver", "status"), [(1, 13020, 0), (0, 13020, 1), (1, 12080, 1)]
)
def test_the_report_on_a_machine_with_a_gpu(
    capsys, monkeypatch, machine, own_cache, compiles, driver, status
):
    machine.driver.cuDriverGetVersion = lambda: (0, driver)
    monkeypatch.setattr(doctor, "_compile_one", lambda arch: (bool(compiles), f"for {arch}"))
    assert main(["doctor"]) == status
    output = capsys.readouterr().out
    assert f"driver  supports CUDA {driver // 1000}.{driver % 1000 // 10}\n" in output
    assert "GPU     cuda:0 NVIDIA H100, sm_90\n" in output
    assert "compile for sm_90\n" in output
    assert f"kernels {'cannot run' if status else 'can run on cuda:0'}." in output


@needs_nvrtc
def test_warmup_for_an_architecture_fills_the_cache(capsys, own_cache, one_kernel):
    assert main(["warmup", "--arch", "sm_86"]) == 0
    assert "3 kernels for sm_86 in " in capsys.readouterr().out
    assert len(list(own_cache.iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "bases"),
    [
        ([], ["Fourier<5>", "Scaled<WithSilu<BSpline<5, 3>>>"]),
        (
            ["--fourier", "8", "--bspline", "7", "2"],
            ["Fourier<8>", "Scaled<WithSilu<BSpline<7, 2>>>"],
        ),
    ],
)
def test_warmup_takes_the_layers_it_is_told(monkeypatch, options, bases):
    compiled = []
    monkeypatch.setattr(jit, "compile_kernels", lambda names, arch: compiled.extend(names))
    assert main(["warmup", "--arch", "sm_90", *options]) == 0
    functions = [_basis(name) for name in bases]
    assert compiled == [*kernels.kernels_of_all(functions), *kernels.evaluating(functions)]
    assert {"basis_values<Silu>", "basis_slopes<Silu>"} < set(compiled)
    assert all(any(f"<{basis}, float, TF32" in name for name in compiled) for basis in bases)


def _basis(name):
    sizes = [int(size) for size in re.findall(r"\d+", name)]
    if name.startswith("F"):
        return Functions(FourierBasis(*sizes))
    return Functions(UniformBSplineBasis.over(-1, 1, *sizes), has_base=True, has_scale=True)


def test_warmup_that_cannot_says_why(capsys, one_kernel):
    assert main(["warmup", "--device", "cpu"]) == 1
    assert "run on CUDA devices, and this is 'cpu'" in capsys.readouterr().err


@needs_nvrtc
def test_the_table_of_registers(capsys, own_cache, one_kernel):
    assert main(["registers", "--arch", "sm_80", "sm_90"]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert (header, rule) == ("| kernel | sm_80 | sm_90 |", "|---|---:|---:|")
    assert [row.split(" | ")[0] for row in rows] == [
        "| `scale<64>`",
        "| `crowded<64>`",
        "| `framed<50>`",
    ]
    assert ", shared 256 B" in rows[0]
    assert "| 24, spills " in rows[1]
    assert ", stack 200 B" in rows[2]


@pytest.fixture
def pretended(monkeypatch):
    """A compiler that needs no NVRTC."""
    monkeypatch.setattr(compiler, "target_of", lambda arch: arch)
    monkeypatch.setattr(compiler, "nvrtc_version", lambda: (13, 0))
    monkeypatch.setattr(compiler, "nvrtc_build", lambda: "13.0.88 CL-1")
    made = compiler.Compiled(b"image", "symbol", None)
    monkeypatch.setattr(compiler, "compile_kernel", lambda name, target: made)


@pytest.mark.filterwarnings("ignore:compiled kernels cannot be stored")
@pytest.mark.parametrize("has_home", [True, False])
def test_warmup_that_stored_nothing_has_failed(
    capsys, monkeypatch, tmp_path, own_cache, one_kernel, pretended, has_home
):
    if has_home:
        (tmp_path / "cache").write_text("in the way")
    else:
        monkeypatch.setattr(cubin_cache, "folder", no_home)
    assert main(["warmup", "--arch", "sm_90"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("3 of 3 kernels are not stored (")
    assert "set KAN_IMPLS_CACHE" in line


def no_home():
    raise OSError("there is no home folder")


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"symbol": 5, "resources": None},
        {"symbol": "s", "resources": [1]},
        {"symbol": "s", "resources": {"registers": 1}},
        {"symbol": "s", "resources": {"unknown": 1}},
        {
            "symbol": "s",
            "resources": dict.fromkeys(
                ("registers", "spill_stores", "spill_loads", "stack", "shared"), "many"
            ),
        },
    ],
)
def test_an_entry_that_describes_no_kernel_is_compiled_anew(own_cache, pretended, description):
    entry = jit.cache_key("scale<64>", "sm_90")
    cubin_cache.write(entry, description, b"old")
    assert jit.compile_kernels(["scale<64>"], "sm_90")["scale<64>"].image == b"image"
    assert cubin_cache.read(entry)[1] == b"image"


@pytest.mark.parametrize("change", ["build", "schema"])
def test_what_an_older_compiler_or_version_stored_is_a_miss(
    own_cache, pretended, monkeypatch, change
):
    jit.compile_kernels(["scale<64>"], "sm_90")
    made = compiler.Compiled(b"newer", "symbol", None)
    monkeypatch.setattr(compiler, "compile_kernel", lambda name, target: made)
    assert jit.compile_kernels(["scale<64>"], "sm_90")["scale<64>"].image == b"image"
    if change == "build":  # major and minor version are the same
        monkeypatch.setattr(compiler, "nvrtc_build", lambda: "13.0.89 CL-2")
    else:
        monkeypatch.setattr(jit, "SCHEMA", jit.SCHEMA + 1)
    assert jit.compile_kernels(["scale<64>"], "sm_90")["scale<64>"].image == b"newer"


@needs_nvrtc
def test_the_full_version_of_the_compiler():
    major, minor = compiler.nvrtc_version()
    assert re.fullmatch(rf"{major}\.{minor}\.\d+ CL-\d+", compiler.nvrtc_build())


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release",
            " 580.82.07",
        ),
        ("NVRM version: nothing", ""),
        (None, ""),
    ],
)
def test_the_release_of_the_driver(machine, monkeypatch, tmp_path, text, release):
    file = tmp_path / "version"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(requirements, "_DRIVER_FILE", str(file))
    assert requirements.driver_release() == "13.2" + release


@needs_nvrtc
def test_the_report_lists_what_is_proven_and_refused(capsys, monkeypatch, machine, own_cache):
    monkeypatch.setattr(doctor, "_compile_one", lambda arch: (True, f"for {arch}"))
    environment = proof.environment_of(torch.device("cuda:0"))
    for subject, error, fault in (
        ("forward<Fourier<5>>", 3e-7, ""),
        ("weight_grad<Fourier<5>>", 0.25, "grad_weight is off by 2.5e-01"),
        ("input_grad<Fourier<5>>", None, "grad_x is off by inf"),
    ):
        decision = {"error": error, "bound": 1e-6, "fault": fault}
        decisions.write("proofs", environment, subject, decision)
    decisions.write("proofs", {**environment, "source": "older"}, "older", decision)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("tests")] == [
        "tests   NVIDIA H100, sm_90: 1 kernels proven, 2 refused",
        "tests     forward<Fourier<5>>: proven, error 3.0e-07, bound 1.0e-06",
        "tests     input_grad<Fourier<5>>: REFUSED, grad_x is off by inf "
        "(no number, bound 1.0e-06)",
        "tests     weight_grad<Fourier<5>>: REFUSED, grad_weight is off by 2.5e-01 "
        "(error 2.5e-01, bound 1.0e-06)",
    ]
