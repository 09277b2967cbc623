"""The product form compiled for the CPU: beside torch's operators, and where it cannot be had."""

import math
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import kan_impls
from kan_impls.basis.gram import GramBasis
from kan_impls.basis.sine import SineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import cpu, cubin_cache, forms, host_compiler, kernels, ways, workspace
from kan_impls.fused.operands import Operands
from kan_impls.fused.term import Term
from tests.cases import ROWS
from tests.fused_helpers import has_host_compiler
from tests.helpers import (
    assert_close,
    norms_of_terms,
    random_like,
    randomize,
    run,
    run_ref,
)

# float32: four times sqrt(K) + 30 roundings of 2**-24, K up to 400 terms; up to 19 in a harmonic,
# or where a degree of 9 amplifies the rounding of an angle.
BOUND = 4 * 2**-24 * (20 + 30)

SPLINES = UniformBSplineBasis.over(-1, 1, 5, 3)

needs_compiler = pytest.mark.skipif(
    not has_host_compiler(), reason="there is no C++ compiler, or it is switched off"
)

KINDS = {
    "fourier": ("fused_fourier_kan", {"grid_size": 5}),
    "fourier-chunks": ("fused_fourier_kan", {"grid_size": 19}),
    "splines": ("fused_efficient_kan", {"grid_size": 5, "spline_order": 3}),
    "splines-chunks": ("fused_efficient_kan", {"grid_size": 17, "spline_order": 2}),
    "splines-unscaled": (
        "fused_efficient_kan",
        {"grid_size": 4, "spline_order": 1, "enable_standalone_scale_spline": False},
    ),
    "sines": ("fused_sine_kan", {"grid_size": 5}),  # parameters of the basis, and their gradients
    "chebyshev": ("fused_cheby_kan", {"degree": 9}),
    "grams": ("fused_gram_kan", {"degree": 6}),  # whose parameters' gradients are of the weights'
}

# Around centres that are trained: far from all of them a function is 0, and x is large.
BUMPS = {
    "parabolas": ("fused_relu_kan", {}),
    "gaussians": ("fused_rbf_kan", {}),
}


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """Nothing is compiled yet, in memory or on disk; afterwards it is forgotten again."""
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path / "cache"))
    functions = (cpu._compiled, host_compiler.find, host_compiler.target)
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()


def build(kind, in_features, out_features):
    name, options = {**KINDS, **BUMPS}[kind]
    return randomize(kan_impls.create_layer(name, in_features, out_features, **options))


# Those of the library, and with torch's products.
WAYS = (*get_args(ways.Way), None)


def take(monkeypatch, way):
    """All products that can go this way do."""
    monkeypatch.setattr(ways, "SMALL_WORK", 2**60 if way == "direct" else -1)
    monkeypatch.setattr(ways, "FEW_VALUES", -1)
    monkeypatch.setattr(ways, "FEW_SCALED_VALUES", -1)
    monkeypatch.setattr(ways, "FEW_OUTPUTS", 2**60 if way == "few_outputs" else 0)
    monkeypatch.setattr(ways, "_is_faster_in_blocks", lambda sizes, direction: way == "blocks")
    monkeypatch.setattr(ways, "plan", ways.plan.__wrapped__)  # what it remembers goes another way


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "threads"),
    [
        *((1, 5, 7, 1), (3, 33, 18, 3), (20, 4, 1, 3), (70, 19, 66, 1), (13, 40, 96, 3)),
        *((504, 3, 33, 1), (20, 5, 300, 3), (1100, 3, 5, 3)),
    ],
)
def test_each_way_is_the_layer(monkeypatch, kind, way, rows, inputs, outputs, threads):
    take(monkeypatch, way)
    monkeypatch.setattr(ways, "WORK_OF_THREAD", 1)
    layer = build(kind, inputs, outputs)
    x, grad_y = random_like(layer, rows, inputs), random_like(layer, rows, outputs)
    layer(x)  # which compiles, and tests what it has compiled
    calls = record_passes(monkeypatch)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        actual, again = run(layer, x, grad_y), run(layer, x, grad_y)
    finally:
        torch.set_num_threads(before)
    passes = ["forward"] if layer.basis.trained else ["forward", "backward"]
    fits = way != "direct" or rows * (layer.basis.num_basis + 1) <= ways.MOST_VALUES
    assert calls == 2 * ([f"{name}_{way}" for name in passes] if way and fits else [])
    reference = ROWS[KINDS[kind][0]].layer_ref
    norms = norms_of_terms(reference, layer, x, grad_y)
    assert_close(actual, run_ref(reference, layer, x, grad_y), BOUND, norms)
    assert_close(again, actual, 0)


def record_passes(monkeypatch):
    """The passes of the library, by name."""
    calls = []
    plain = cpu.Compiled._run

    def record(self, which, plan, *arguments):
        calls.append(f"{which}_{plan.way}")
        plain(self, which, plan, *arguments)

    monkeypatch.setattr(cpu.Compiled, "_run", record)
    return calls


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "rows", "inputs", "outputs", "expected"),
    [
        ("fourier", 8, 400, 400, ("direct", None)),
        ("fourier", 9, 400, 400, (None, None)),
        ("fourier", 5, 40, 9, ("direct", "direct")),  # small
        ("fourier", 60, 700, 8, ("few_outputs", "few_outputs")),
        ("fourier", 128, 700, 9, ("blocks", "blocks")),
        ("fourier", 129, 700, 31, (None, None)),
        ("fourier", 300, 400, 40, ("blocks", None)),
        ("fourier", 513, 400, 40, (None, None)),
        ("splines", 20, 400, 400, ("direct", "blocks")),
        ("splines", 21, 400, 400, ("blocks", "blocks")),
        ("splines", 1024, 40, 300, ("blocks", None)),  # grad_y takes more than 1 MiB
        ("splines", 1025, 40, 300, (None, None)),
    ],
)
def test_which_way_a_layer_takes(monkeypatch, kind, rows, inputs, outputs, expected):
    monkeypatch.setattr(workspace, "last_cache_bytes", lambda: math.inf)
    calls = passes_taken(monkeypatch, kind, rows, inputs, outputs)
    names = zip(("forward", "backward"), expected, strict=True)
    assert calls == [f"{name}_{way}" for name, way in names if way]


@needs_compiler
@pytest.mark.parametrize("rows", [14, 1024, 1025])
def test_narrow_vectors_take_blocks_whatever_the_scale_and_the_rows(monkeypatch, rows):
    monkeypatch.setattr(workspace, "last_cache_bytes", lambda: math.inf)
    calls = passes_taken(monkeypatch, "fourier", rows, 400, 40, vector=8)
    assert calls == ["forward_blocks"]


def test_blocks_of_many_rows_take_no_more_memory():
    def floats(rows):
        sizes = ways.Sizes(rows, 10, 400, 40, 10, has_scale=False, has_base=False, vector=8)
        return ways.plan_of("blocks", sizes, "forward", 2).floats

    assert floats(1025) < floats(1024) >= floats(36_864) > floats(512)


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "rows", "backward"),
    [
        *(("fourier", 8, "direct"), ("fourier", 9, None)),
        *(("splines", 4, "direct"), ("splines", 5, "blocks")),
    ],
)
def test_few_rows_read_weights_that_no_cache_holds_once(monkeypatch, kind, rows, backward):
    weights = 4 * 400 * 400 * {"fourier": 10, "splines": 9}[kind]
    for cache_bytes, expected in (
        (weights - 1, backward),
        (weights, {"splines": "blocks"}.get(kind)),
    ):
        monkeypatch.setattr(workspace, "last_cache_bytes", lambda size=cache_bytes: size)
        calls = passes_taken(monkeypatch, kind, rows, 400, 400)
        found = [call for call in calls if call.startswith("backward")]
        assert found == ([f"backward_{expected}"] if expected else [])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"index0": "32K\n", "index3": "32768K\n"}, 2**25),
        ({"index0": "32M\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_last_cache_is_the_largest(tmp_path, sizes, expected):
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(size)
    assert workspace.last_cache_bytes(tmp_path) == expected


def passes_taken(monkeypatch, kind, rows, inputs, outputs, vector=16):
    """Those of the library, of forward and backward."""
    layer = build(kind, inputs, outputs)
    layer(torch.rand(1, inputs))  # which compiles, and tests what it has compiled
    sizes = cpu.Compiled.sizes
    monkeypatch.setattr(
        cpu.Compiled, "sizes", lambda *arguments: sizes(*arguments)._replace(vector=vector)
    )
    calls = record_passes(monkeypatch)
    layer(torch.rand(rows, inputs)).sum().backward()
    return calls


@needs_compiler
@pytest.mark.parametrize("rows", [3, 300])
@pytest.mark.parametrize("kind", ["splines", "sines", "grams"])
def test_each_gradient_alone_is_that_of_all(kind, rows):
    layer = build(kind, 40, 50)
    x, grad_y = random_like(layer, rows, 40), random_like(layer, rows, 50)
    tensors = {"x": x, **dict(layer.named_parameters())}
    x.requires_grad_()
    everything = torch.autograd.grad(layer(x), list(tensors.values()), grad_y)
    for wanted, expected in zip(tensors, everything, strict=True):
        for name, tensor in tensors.items():
            tensor.requires_grad_(name == wanted)
        (actual,) = torch.autograd.grad(layer(x), [tensors[wanted]], grad_y)
        # Polynomials of such a recurrence are in the hundreds.
        largest = expected.abs().max().item() if kind == "grams" else 1
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("made_by", ["compiled", "operators", "float64", "staged"])
@pytest.mark.parametrize(
    ("degree", "rows", "outputs"),
    [(1, 20, 7), (2, 16, 7), (6, 15, 50), (6, 16, 50), (8, 300, 1), (8, 40, 1100), (19, 19, 3)],
)
def test_gradients_of_a_recurrence_follow_from_those_of_the_weights(
    monkeypatch, made_by, degree, rows, outputs
):
    if made_by == "operators":
        monkeypatch.setattr(cpu, "compiled", lambda operands, basis: None)
    dtype = torch.float64 if made_by == "float64" else torch.float32
    layer = kan_impls.create_layer("fused_gram_kan", 33, outputs, degree=degree, dtype=dtype)
    if made_by == "staged":
        weight = layer.grams_basis_weights
        weight.data = weight.data.mT.contiguous().mT
    x, grad_y = torch.rand(rows, 33, dtype=dtype), torch.randn(rows, outputs, dtype=dtype)
    layer(x)  # what is compiled at first use is tested
    calls, plain = [], Term.multiply_functions
    monkeypatch.setattr(
        Term, "multiply_functions", lambda *arguments: (calls.append(1), plain(*arguments))
    )
    tensors = list(layer.parameters())
    actual = torch.autograd.grad(layer(x), tensors, grad_y)
    assert bool(calls) == (rows >= max(16, degree + 1))
    calls.clear()
    expected = torch.autograd.grad(layer(x.requires_grad_()), tensors, grad_y)
    assert not calls
    for own, other in zip(actual, expected, strict=True):
        assert (own - other).norm() <= torch.finfo(dtype).eps * 100 * other.norm()


@needs_compiler
def test_the_gradient_of_the_bias_alone_takes_no_pass(monkeypatch):
    layer = build("fourier", 40, 9).requires_grad_(False)
    layer.bias.requires_grad_()
    layer(torch.rand(1, 40))  # which compiles
    calls = record_passes(monkeypatch)
    layer(torch.rand(5, 40)).sum().backward()
    assert calls == ["forward_direct"]


@needs_compiler
def test_a_plan_follows_the_number_of_threads(monkeypatch):
    planned = []
    plain = cpu.Compiled._run
    monkeypatch.setattr(
        cpu.Compiled,
        "_run",
        lambda self, which, plan, *others: (
            planned.append(plan.threads), plain(self, which, plan, *others)
        ),
    )  # fmt: skip
    layer, before = build("fourier", 400, 400), torch.get_num_threads()
    layer(torch.rand(1, 400))  # which compiles
    planned.clear()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            layer(torch.rand(8, 400))
    finally:
        torch.set_num_threads(before)
    assert planned == [1, 2, 1]


def every_other(value):
    memory = value.new_empty(2 * value.shape[0], *value.shape[1:])
    memory[::2] = value
    return memory[::2]


def one_for_all(value):
    return value[:1].expand_as(value)


@needs_compiler
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", [every_other, one_for_all])
@pytest.mark.parametrize("rows", [3, 400])
def test_weights_that_lie_apart_in_memory(monkeypatch, given, way, rows):
    take(monkeypatch, way)
    layer, weight = build("splines", 64, 64), "spline_weight"
    apart = given(layer.spline_weight.detach())
    x, grad_y = random_like(layer, rows, 64), random_like(layer, rows, 64)
    found = []
    for value in (apart, apart.contiguous()):
        delattr(layer, weight)
        setattr(layer, weight, value.requires_grad_())  # as a parametrization gives it
        y = layer(x)
        wanted = [value, layer.spline_scaler]
        found.append([y, *torch.autograd.grad(y, wanted, grad_y)])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_with_few_rows_weights_whose_function_is_zero_are_not_read(monkeypatch):
    """What docs/layers.md says of weights that are no numbers."""
    layer = build("splines", 3, 9)
    with torch.no_grad():
        layer.spline_weight[0] = torch.nan  # of the first spline, which is 0 at 0.9
    x = torch.full((2, 3), 0.9)
    assert layer(x).isfinite().all()
    take(monkeypatch, None)
    assert layer(x).isnan().all()


@needs_compiler
@pytest.mark.parametrize(("rows", "is_finite"), [(8, True), (9, False)])
def test_the_scale_takes_no_weights_of_zero_functions_at_few_rows(monkeypatch, rows, is_finite):
    layer = build("splines", 3, 40)
    with torch.no_grad():
        layer.spline_weight[0] = torch.nan  # of the first spline, which is 0 at 0.9
    take(monkeypatch, "blocks")
    y = layer(torch.full((rows, 3), 0.9))
    (grad,) = torch.autograd.grad(y, layer.spline_scaler, torch.ones_like(y))
    assert grad.isfinite().all() == is_finite


@needs_compiler
@pytest.mark.parametrize("kind", [*KINDS, *BUMPS])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 300, 1e9, -3e12, 1e37, 1e38])
def test_what_is_no_number_or_far_is_what_operators_make_of_it(monkeypatch, kind, way, value):
    if abs(value) == torch.inf and kind.startswith("splines"):
        pytest.skip("a spline there is 0 as defined, and not a number by the operators")
    layer = build(kind, 3, 4).requires_grad_()
    x, grad_y = random_like(layer, 9, 3), random_like(layer, 9, 4)
    x[4, 1] = value
    take(monkeypatch, way)
    found = []
    for compiled in (cpu.compiled, lambda operands, basis: None):
        monkeypatch.setattr(cpu, "compiled", compiled)
        z = x.clone().requires_grad_()
        layer.zero_grad()
        y = layer(z)
        y.backward(grad_y)
        found.append([y, z.grad, *(p.grad.clone() for p in layer.parameters())])
    for compiled, operators in zip(*found, strict=True):
        torch.testing.assert_close(compiled, operators, rtol=1e-4, atol=1e-4, equal_nan=True)


@needs_compiler
def test_a_large_angle_changes_no_bit_of_other_rows(monkeypatch):
    """Small angles take less work where all of a block are small."""
    take(monkeypatch, None)
    layer = build("fourier", 3, 40)
    # Where the nearest multiple of pi/2 is a matter of rounding, and one row besides.
    middle = ((torch.arange(121, dtype=torch.float64) + 0.5) * (math.pi / 2)).float()
    ends = [torch.nextafter(middle, torch.tensor(end)) for end in (0.0, 1e9)]
    x = torch.stack((middle, *ends), dim=1)
    x[-1] = 0.5
    expected = layer(x)[:-1]
    x[-1] = 1000.0
    assert torch.equal(layer(x)[:-1], expected)


@needs_compiler
def test_it_shares_the_threads_of_torch():
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip(f"{sys.platform} does not list what is loaded")
    build("splines", 5, 7)(torch.rand(3, 5))
    names = {line.split()[-1] for line in maps.read_text().splitlines() if "omp" in line}
    assert len({name for name in names if "libgomp" in name or "libomp" in name}) <= 1


@needs_compiler
@pytest.mark.parametrize("basis", [each.basis for each in kernels.standard_functions()], ids=str)
def test_a_library_of_each_basis_passes_its_test(basis):
    assert cpu.obstacle(basis) is None


@needs_compiler
def test_a_library_is_compiled_once(anew, monkeypatch):
    plain, compiled = host_compiler._compile, []

    def record(*arguments):
        compiled.append(arguments)
        plain(*arguments)

    monkeypatch.setattr(host_compiler, "_compile", record)
    for _ in range(2):
        assert cpu.obstacle(SPLINES) is None
        cpu._compiled.cache_clear()
    assert len(compiled) == 1


def as_operators(monkeypatch, layer, x):
    """The layer's output by torch's operators, and the same as asked for."""
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "compiled", lambda operands, basis: None)
        expected = layer(x)
    return expected, layer(x)


def broken(tmp_path, text):
    """A compiler that is this script."""
    path = tmp_path / "c++"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no such option >&2; exit 1", "refused the source:\nno such option"),
        ("exit 0", "cannot be written or loaded"),
    ],
)
def test_a_compiler_that_fails_leaves_the_operators(anew, monkeypatch, tmp_path, script, reason):
    monkeypatch.setenv("CXX", broken(tmp_path, script))
    expected, actual = as_operators(monkeypatch, build("splines", 5, 7), torch.rand(3, 5))
    assert torch.equal(actual, expected)
    assert reason in cpu.obstacle(SPLINES)


def test_without_a_compiler_operators_run(anew, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    expected, actual = as_operators(monkeypatch, build("splines", 5, 7), torch.rand(3, 5))
    assert torch.equal(actual, expected)
    assert "install g++, or name one in CXX" in cpu.obstacle(SPLINES)


def test_the_switch_leaves_the_operators(anew, monkeypatch):
    monkeypatch.setenv(cpu.VARIABLE, "0")
    expected, actual = as_operators(monkeypatch, build("splines", 5, 7), torch.rand(3, 5))
    assert torch.equal(actual, expected)
    assert cpu.obstacle(SPLINES) == "KAN_IMPLS_CPU is 0"


@needs_compiler
@pytest.mark.parametrize("rows", [3, 300])
def test_the_form_says_what_is_compiled(monkeypatch, rows):
    layer = build("splines", 40, 50)
    found = []
    for compiled in (cpu.compiled, lambda operands, basis: None):
        monkeypatch.setattr(cpu, "compiled", compiled)
        with forms.watched() as ran:
            layer(torch.rand(rows, 40)).sum().backward()
        found.append(ran)
    names = ("compiled product", "product")
    assert found == [{"forward": name, "backward": name} for name in names]


FAULTS = {
    "values": ("points.h", "basis.even() + poison", "1.0001f * basis.even() + poison"),
    "slopes": ("points.h", "fmaf(basis.odd_slope(),", "fmaf(1.0001f * basis.odd_slope(),"),
    "forward": ("sum.h", "y[o] = fmaf(scale[o], sum, y[o]);", "y[o] = scale[o] * sum;"),
    "backward": ("direct.h", "grad[o] = scale[o] * sum_of[o];", "grad[o] = sum_of[o];"),
    "scale": ("cpu.cpp", "fmaf(sum[o], row[o], grad[o])", "sum[o] * row[o]"),
    "blocks": (
        "multiply.h",
        "sums[r][v].add_product(factor, right[v])",
        "sums[r][v].add_product(factor, right[0])",
    ),
    "rest": ("multiply.h", "y[r * y_stride + o] += edge", "y[r * y_stride + o] = edge"),
    "scale in blocks": ("blocks.h", "fmaf(sums[o], weight[o], total[o])", "sums[o] * weight[o]"),
    "few outputs": (
        "few_outputs.h",
        "of_outputs[o * ROWS + r] = grad_y[r * outputs + o]",
        "of_outputs[r] = grad_y[r * outputs + o]",
    ),
    "x of few outputs": ("few_outputs.h", "fmaf(grad_y[r], sum[r], x[r])", "grad_y[r] * sum[r]"),
    "parameters": (
        "points.h",
        "grad_params[number * Points::MOST_WITH_PARAMS + n] += value",
        "grad_params[number * Points::MOST_WITH_PARAMS + n] = value",
    ),
    "products": (
        "cpu.cpp",
        "sums[m][n].add_product(row, rows[n])",
        "sums[m][n].add_product(row, rows[0])",
    ),
    "x of cells": ("cell.h", "+= grad_x[i * pitch + r]", "= grad_x[i * pitch + r]"),
    "x in blocks": ("blocks.h", "fmaf(slope[r], grad[r], x[r])", "slope[r] * grad[r]"),
}


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_computes_something_else_is_not_used(anew, monkeypatch, fault):
    file, old, new = FAULTS[fault]
    sources = dict(host_compiler.sources())
    assert old in sources[file]
    sources[file] = sources[file].replace(old, new)
    monkeypatch.setattr(host_compiler, "sources", lambda: sources)
    quickly = ["-O1" if option == "-O3" else option for option in host_compiler.OPTIONS]
    monkeypatch.setattr(host_compiler, "OPTIONS", quickly)
    others = {"parameters": ("sines", SineBasis(5)), "products": ("grams", GramBasis(6))}
    kind, basis = others.get(fault, ("splines", SPLINES))
    expected, actual = as_operators(monkeypatch, build(kind, 5, 7), torch.rand(3, 5))
    assert torch.equal(actual, expected)
    assert "failed its known-answer test: it is off by" in cpu.obstacle(basis)


def test_nothing_is_compiled_without_values(anew, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("compiled")

    monkeypatch.setattr(host_compiler, "load", refuse)
    with FakeTensorMode():
        layer = kan_impls.create_layer("fused_efficient_kan", 5, 7)
        layer(torch.rand(9, 5, requires_grad=True)).sum().backward()
    layer = build("splines", 5, 7)
    torch.export.export(layer, (torch.rand(4, 5),))


def test_other_dtypes_and_devices_take_the_operators():
    for dtype in (torch.float64, torch.bfloat16):
        layer = build("splines", 5, 7).to(dtype)
        operands = Operands(torch.rand(3, 5, dtype=dtype), layer.spline_weight)
        assert cpu.compiled(operands, SPLINES) is None
    assert cpu.compiled(Operands(*torch.empty(2, 8, 5, 7, device="meta")), SPLINES) is None
