"""NVRTC: from the name of a kernel to machine code and what it takes of the machine."""

import subprocess
import sys

import pytest

from kan_impls.fused import compiler, cubin_cache, jit
from kan_impls.fused.compiler import CompileError, Resources, parse_resources
from tests.fused_helpers import SOURCES, needs_nvrtc


@pytest.fixture(autouse=True)
def _own_cache_and_sources(monkeypatch, tmp_path):
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cubin_cache, "_has_warned", False)
    monkeypatch.setattr(compiler, "sources", lambda: SOURCES)


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_90"])
def test_a_clean_kernel(arch):
    compiled = compiler.compile_kernel("scale<64>", arch)
    assert compiled.image.startswith(b"\x7fELF")
    assert compiled.symbol == "_Z5scaleILi64EEv9Arguments"
    assert compiled.symbol.encode() in compiled.image
    assert compiled.resources is not None
    assert 4 <= compiled.resources.registers <= 32
    assert compiled.resources == Resources(compiled.resources.registers, 0, 0, 0, 64 * 4)
    assert not compiled.resources.spills


@needs_nvrtc
def test_a_kernel_that_spills_is_reported():
    resources = compiler.compile_kernel("crowded<64>", "sm_90").resources
    assert resources is not None
    assert resources.registers == 24
    assert resources.spill_stores > 64
    assert resources.spill_loads > 64
    assert resources.stack > 64
    assert resources.spills


@needs_nvrtc
def test_an_array_in_local_memory_is_reported_as_stack():
    resources = compiler.compile_kernel("framed<50>", "sm_90").resources
    assert resources is not None
    assert resources.stack == 200
    assert not resources.spills


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5other' for 'sm_90'
ptxas info    : Function properties for _Z5other
ptxas         .     800 bytes stack frame, 900 bytes spill stores, 1000 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 256 bytes smem
ptxas info    : Compiling entry function '_Z4mine' for 'sm_90'
ptxas info    : Function properties for _Z4mine
ptxas         .     8 bytes stack frame, 0 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 376 bytes cumulative stack size
ptxas info    : Compile time = 14.859 ms
ptxas info    : Function properties for _Z4deepPf
ptxas         .     0 bytes stack frame, 376 bytes spill stores, 444 bytes spill loads
"""


def test_spills_of_called_functions_count_and_those_of_other_kernels_do_not():
    assert parse_resources(LOG, "_Z4mine") == Resources(32, 376, 448, 376, 0)


def test_a_log_without_a_report_is_an_error():
    with pytest.raises(ValueError, match="no resource report on _Z3mis"):
        parse_resources(LOG, "_Z3mis")


@needs_nvrtc
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent<3>", r"cannot compile absent<3> for sm_90 .*\n.*identifier \"absent\" is undefi"),
        ("scale<-1>", "array"),
    ],
)
def test_an_error_shows_the_log_of_the_compiler(name, message):
    with pytest.raises(CompileError, match=message):
        compiler.compile_kernel(name, "sm_90")


@needs_nvrtc
def test_an_error_in_the_sources_names_file_and_line():
    files = {**SOURCES, "part.cuh": "\n\n__device__ float times(float f) { return g; }"}
    with pytest.raises(CompileError, match=r'part\.cuh\(3\): error: identifier "g" is undefined'):
        compiler.compile_kernel("scale<8>", "sm_90", files)


@needs_nvrtc
def test_the_package_contains_its_sources(monkeypatch):
    monkeypatch.undo()
    assert compiler.MAIN in compiler.sources()
    assert "problem.cuh" in compiler.sources()


@needs_nvrtc
def test_a_gpu_newer_than_the_compiler_gets_ptx(monkeypatch):
    newest = compiler.target_of("sm_999")
    assert newest.startswith("compute_")
    assert compiler.target_of(newest.replace("compute", "sm")) == newest.replace("compute", "sm")
    # Between two that are known, the older one: PTX runs on newer GPUs only.
    assert compiler.target_of("sm_85") == "compute_80"
    compiled = compiler.compile_kernel("scale<64>", newest)
    assert b".target " + newest.replace("compute", "sm").encode() in compiled.image
    assert compiled.image.endswith(b"\0")  # the driver reads PTX up to there
    assert compiled.resources is None
    assert jit.compile_kernels(["scale<64>"], "sm_999") == {"scale<64>": compiled}
    assert jit.compile_kernels(["scale<64>"], "sm_999") == {"scale<64>": compiled}


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_20", "90", "", "sm_90 "])
def test_an_unknown_architecture_is_refused(arch):
    with pytest.raises(ValueError, match=r"expected 'sm_XY', one of .*sm_80, "):
        compiler.target_of(arch)


@needs_nvrtc
def test_the_second_time_comes_from_the_disk(monkeypatch):
    first = jit.compile_kernels(["scale<64>", "crowded<64>"], "sm_90")

    def refuse(*arguments):
        raise AssertionError("compiled twice")

    monkeypatch.setattr(compiler, "compile_kernel", refuse)
    assert jit.compile_kernels(["crowded<64>", "scale<64>"], "sm_90") == first


@needs_nvrtc
def test_a_kernel_named_twice_is_compiled_once(monkeypatch):
    names = []
    compile_kernel = compiler.compile_kernel

    def record(name, target):
        names.append(name)
        return compile_kernel(name, target)

    monkeypatch.setattr(compiler, "compile_kernel", record)
    monkeypatch.setattr(cubin_cache, "read", lambda entry: None)
    compiled = jit.compile_kernels(["scale<64>", "scale<32>", "scale<64>"], "sm_90")
    assert sorted(names) == sorted(compiled) == ["scale<32>", "scale<64>"]


@needs_nvrtc
def test_without_a_cache_kernels_compile_all_the_same(tmp_path):
    (tmp_path / "cache").write_text("a file in place of the folder")
    with pytest.warns(RuntimeWarning, match="cannot be stored"):
        compiled = jit.compile_kernels(["scale<64>"], "sm_90")
    assert compiled["scale<64>"].image.startswith(b"\x7fELF")


@needs_nvrtc
def test_the_key_changes_with_every_ingredient(monkeypatch):
    keys = [jit.cache_key("scale<64>", "sm_90")]
    keys.append(jit.cache_key("scale<32>", "sm_90"))
    keys.append(jit.cache_key("scale<64>", "sm_80"))
    for owner, name, value in (
        (compiler, "sources", lambda: {**SOURCES, "part.cuh": SOURCES["part.cuh"] + " "}),
        (compiler, "sources", lambda: {**SOURCES, "more.cuh": ""}),
        (compiler, "OPTIONS", (*compiler.OPTIONS, "--use_fast_math")),
        (compiler, "nvrtc_build", lambda: "99.1"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            keys.append(jit.cache_key("scale<64>", "sm_90"))
    assert len(set(keys)) == len(keys)
    assert jit.cache_key("scale<64>", "sm_90") == keys[0]


RACE = """
from kan_impls.fused import compiler, jit
from tests.fused_helpers import SOURCES
compiler.sources = lambda: SOURCES
print(jit.compile_kernels(["scale<64>"], "sm_90")["scale<64>"].resources)
"""


@needs_nvrtc
def test_processes_may_compile_the_same_kernel_at_the_same_time(pytestconfig, tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RACE],
            cwd=pytestconfig.rootpath,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [error for _, error in outputs] == ["", ""]
    assert outputs[0][0] == outputs[1][0] != ""
    assert len(list((tmp_path / "cache").iterdir())) == 1
