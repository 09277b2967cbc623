"""On silicon: the kernels against their emulation and float64, and in everything around them.

What needs no GPU of this file, the models of tensor cores, is tested everywhere.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import kan_impls
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.sine import SineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import choosing, compiler, cubin_cache, forms, jit, proof, tuning
from kan_impls.fused.problem import Element, Precision, error_bound
from perfgate.network.case import Case
from perfgate.network.workload import pass_of
from tests import emulated_layer, tensor_core_models
from tests.emulated_layer import with_kinds
from tests.emulator.build import Emulator, find_compiler
from tests.helpers import randomize
from tests.tensor_core_models import KERNEL, PROBE, exact_operands, rounded_operands

gpu = pytest.mark.gpu
needs_emulator = pytest.mark.skipif(
    find_compiler() is None, reason="g++ is not installed: the emulation is compiled with it"
)
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

LAYERS = {
    "fourier": ("fused_fourier_kan", {"grid_size": 5}),
    "splines": ("fused_efficient_kan", {"grid_size": 5, "spline_order": 3}),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)
each_mode = pytest.mark.parametrize("mode", ["accurate", "tf32", "bfloat16"])

# Relative errors in the norm, at sums of 10,000 terms.
BOUNDS = {
    "accurate": error_bound(Element.FLOAT, Precision.ACCURATE),
    "tf32": error_bound(Element.FLOAT, Precision.TF32),
    "bfloat16": error_bound(Element.BFLOAT16, Precision.TF32),
}


def build(kind, in_features=1000, out_features=1000, **options):
    name, config = LAYERS[kind]
    options = {"device": "cuda", "backend": "fused", **options}
    return randomize(kan_impls.create_layer(name, in_features, out_features, **config, **options))


def data_of(layer, rows=100):
    """x, one value in five outside the grid, and a cotangent."""
    generator = torch.Generator().manual_seed(1)
    x = 0.8 * torch.randn(rows, layer.in_features, generator=generator)
    grad_y = torch.randn(rows, layer.out_features, generator=generator)
    return x.cuda(), grad_y.cuda()


def in_mode(function, mode):
    """Call in a mode of precision, with torch's own switches."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if mode == "tf32" else "highest")
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=mode == "bfloat16"):
            return function()
    finally:
        torch.set_float32_matmul_precision(before)


def passes(layer, x, grad_y, mode="accurate", forward=None):
    """y and the gradients of x and of every parameter, by name."""
    x = x.detach().requires_grad_()
    parameters = dict(layer.named_parameters())

    def run():
        y = (forward or layer)(x)
        return y, torch.autograd.grad(y, [x, *parameters.values()], grad_y.to(y.dtype))

    y, grads = in_mode(run, mode)
    return dict(zip(["y", "x", *parameters], [y.detach(), *grads], strict=True))


def assert_same_bits(actual, expected):
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert torch.equal(actual[name], value), name


def errors_of(actual, expected):
    """Relative errors in the norm."""
    found = {}
    for name, value in expected.items():
        difference = actual[name].double().to(value.device) - value.double()
        found[name] = float(difference.norm() / value.double().norm())
    return found


def assert_within(actual, expected, bound):
    found = errors_of(actual, expected)
    above = {name: error for name, error in found.items() if not error <= bound}
    assert not above, f"relative errors above {bound:.2g}: {above}"


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """Nothing is compiled or loaded yet."""
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(jit, "_functions", {})
    monkeypatch.setattr(proof, "known", proof.Known())


# The tensor core


def emulated(operands):
    emulator = Emulator(PROBE, [KERNEL])
    d = np.full_like(operands.c, np.nan)
    addresses = [array.ctypes.data for array in (*operands, d)]
    emulator.run(tensor_core_models.launch_of(len(d), *addresses))
    return d


def on_silicon(operands):
    tensors = [torch.from_numpy(array).cuda() for array in operands]
    d = torch.full_like(tensors[2], torch.nan)
    addresses = [tensor.data_ptr() for tensor in (*tensors, d)]
    jit.launch(tensor_core_models.launch_of(len(d), *addresses), d.device)
    return d.cpu().numpy()


@pytest.fixture
def probe(monkeypatch, own_cache):
    """The probe is the only kernel."""
    files = {**compiler.sources(), compiler.MAIN: PROBE}
    monkeypatch.setattr(compiler, "sources", lambda: files)


def rounds_as_emulated():
    """Whether all sums of the tensor core have the bits of the emulation's."""
    return all(
        np.array_equal(on_silicon(operands), emulated(operands))
        for operands in rounded_operands().values()
    )


@needs_emulator
@pytest.mark.parametrize("name", exact_operands())
def test_every_model_of_a_tensor_core_is_exact_where_floats_are(name):
    operands = exact_operands()[name]
    expected = emulated(operands)
    assert np.isfinite(expected).all()
    for model in tensor_core_models.models():
        assert np.array_equal(model.result(operands), expected), model


@needs_emulator
@pytest.mark.parametrize("name", ["normal", "large sum"])
def test_a_model_with_many_bits_is_the_emulation(name):
    operands = rounded_operands(count=32)[name]
    # So many extra bits that nothing is cut before the end, which double precision holds.
    wide = tensor_core_models.Model(8, 24, True)
    share = np.mean(wide.result(operands) == emulated(operands))
    assert share > 0.999
    assert (
        np.mean(tensor_core_models.Model(8, 0, True).result(operands) == wide.result(operands)) < 1
    )


@gpu
@needs_emulator
@pytest.mark.parametrize("name", exact_operands())
def test_the_emulated_tensor_core_is_that_of_the_gpu(probe, name):
    """Fragments' layout, ignored low bits, cancellation: the same bits, since sums are exact."""
    operands = exact_operands()[name]
    actual, expected = on_silicon(operands), emulated(operands)
    different = np.argwhere(actual != expected)
    assert not len(different), f"{len(different)} of {actual.size} differ, first {different[0]}"


@gpu
@needs_emulator
def test_how_the_tensor_core_of_the_gpu_rounds(probe, record_property):
    """Bit by bit as the emulation or, where hardware keeps fewer bits, as one known model."""
    found = {name: on_silicon(operands) for name, operands in rounded_operands().items()}
    shares = {}
    fitting = list(tensor_core_models.models())
    for name, operands in rounded_operands().items():
        expected = emulated(operands)
        shares[name] = float(np.mean(found[name] == expected))
        record_property(f"{name}: share of bits as emulated", f"{shares[name]:.4f}")
        # Each of nine terms loses at most one unit of the largest, twice where added in parts.
        unit = 2.0**-22 * tensor_core_models.largest_terms(operands)
        worst = float(np.max(np.abs(found[name].astype(float) - expected) / unit))
        record_property(f"{name}: largest difference in units", f"{worst:.2f}")
        assert worst <= 10, name
        fitting = [m for m in fitting if np.array_equal(m.result(operands), found[name])]
    record_property("models that fit", "; ".join(map(str, fitting)) or "none")
    is_emulated = all(share == 1 for share in shares.values())
    assert is_emulated or fitting, f"no model has these bits; shares as emulated: {shares}"


# Whole launches


def launched(case):
    """What the launches of a case leave, on the GPU."""
    state = emulated_layer.LayerRun(case)
    tensors = {}
    for name, buffer in state.tensors.items():
        signed = buffer._bits.view(np.int32 if buffer._bits.itemsize == 4 else np.int16)
        tensors[name] = torch.from_numpy(signed.copy()).cuda()
        read = partial(_values, tensors[name])
        state.tensors[name] = SimpleNamespace(address=tensors[name].data_ptr(), read=read)
    for launch in state.launches():
        jit.launch(launch, torch.device("cuda", torch.cuda.current_device()))
    return state.results()


def _values(bits):
    found = bits.cpu().numpy()
    if found.itemsize == 2:
        found = found.view(np.uint16).astype(np.uint32) << 16
    return found.view(np.float32).astype(np.float64)


@pytest.fixture
def uncontracted(monkeypatch, own_cache):
    """Products and sums are not fused by the compiler, as in the emulation."""
    options = (*compiler.OPTIONS, "--fmad=false")
    compile_kernel = partial(compiler.compile_kernel, options=options)
    monkeypatch.setattr(compiler, "compile_kernel", compile_kernel)
    monkeypatch.setattr(compiler, "OPTIONS", options)  # which is part of the cache's key


@pytest.fixture
def rounding(monkeypatch, own_cache, record_property):
    """Whether the GPU rounds as the emulation, asked before the kernels are loaded."""
    sources = compiler.sources
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "sources", lambda: {**sources(), compiler.MAIN: PROBE})
        same = rounds_as_emulated()
    record_property("tensor core rounds as emulated", str(same))
    return same


FOURIER = emulated_layer.Case(rows=21, inputs=45, outputs=19, basis=FourierBasis(5))
SINES = emulated_layer.Case(21, 45, 19, SineBasis(5), base=True, scale=True, sets=9)
SPLINES = emulated_layer.Case(
    21, 45, 19, UniformBSplineBasis.over(-1, 1, 5, 3), base=True, scale=True, bias=False
)
# Two bfloat16 neighbours differ by 2^-8: a sum on the border of two may fall to either side.
NEIGHBOURS = {"float": 1e-6, "bfloat16": 2**-9}


@gpu
@needs_emulator
@pytest.mark.parametrize("case", with_kinds(FOURIER), ids=str)
def test_fourier_launches_have_the_bits_of_their_emulation(
    rounding, uncontracted, record_property, case
):
    expected, actual = _both(case)
    for name, value in expected.items():
        same = float(np.mean(actual[name] == value))
        record_property(f"{case.precision.value} {case.element.value} {name} same bits", f"{same}")
        if rounding:
            assert np.array_equal(actual[name], value), f"{name}: {same:.4f} of the bits agree"
        assert _error(actual[name], value) <= NEIGHBOURS[case.element.value], name


@gpu
@needs_emulator
@pytest.mark.parametrize(
    "case",
    [*with_kinds(SPLINES), SINES, replace(FOURIER, shift=1), replace(SPLINES, shift=1)],
    ids=str,
)
def test_launches_agree_with_their_emulation(own_cache, case):
    expected, actual = _both(case)
    for name, value in expected.items():
        # TF32 cuts operands to 11 bits: an operand on a border falls to either side.
        bound = NEIGHBOURS[case.element.value]
        assert _error(actual[name], value) <= max(bound, 1e-4 * ("TF32" in str(case))), name


def _both(case):
    actual = launched(case)
    return emulated_layer.run(case, Emulator(None, list(dict.fromkeys(case.kernels())))), actual


def _error(actual, expected):
    assert np.isfinite(actual).all()
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


# Layers at the reference shape


@gpu
@each_layer
@each_mode
def test_the_same_bits_in_every_run(kind, mode):
    layer = build(kind)
    x, grad_y = data_of(layer)
    first = passes(layer, x, grad_y, mode)
    for _ in range(10):
        torch.randn(1000, 1000, device="cuda").sum()  # other blocks get other memory and time
        assert_same_bits(passes(layer, x, grad_y, mode), first)


@gpu
@each_layer
@each_mode
@pytest.mark.parametrize("rows", [1, 100, 1100])
def test_sums_of_ten_thousand_terms_are_accurate(kind, mode, rows, record_property):
    layer = build(kind)
    x, grad_y = data_of(layer, rows)
    exact = build(kind, dtype=torch.float64, backend="product")
    exact.load_state_dict(layer.state_dict())
    expected = passes(exact, x.double(), grad_y.double())
    actual = passes(layer, x, grad_y, mode)
    for name, error in errors_of(actual, expected).items():
        record_property(f"{kind} {mode} {rows} rows, error of {name}", f"{error:.2e}")
    assert_within(actual, expected, BOUNDS[mode])


@gpu
@pytest.mark.parametrize("variant", ["fused_fourier_kan", "fused_efficient_kan"])
def test_a_fused_model_takes_no_more_memory_than_the_mlp(variant, record_property):
    peaks = {}
    for name, config in (("mlp", {}), (variant, {"backend": "fused"})):
        found = kan_impls.get_variant(name)
        case = Case("", found, 100, found.reference_widths, {**found.reference_config, **config})
        peaks[name] = pass_of(case, "training_step", torch.device("cuda")).measure_memory()
        record_property(f"{name} peaks", str(peaks[name]))
    for key in ("forward_peak_bytes", "backward_peak_bytes"):
        assert peaks[variant][key] <= peaks["mlp"][key], key


# CUDA graphs


@gpu
@each_layer
@each_mode
def test_a_captured_step_replays_with_new_values(kind, mode):
    layer = build(kind, 70, 50)
    x, grad_y = data_of(layer, 30)
    static_x, static_grad = torch.zeros_like(x), torch.zeros_like(grad_y)
    capturing = torch.cuda.Stream()
    capturing.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(capturing):
        passes(layer, static_x, static_grad, mode)
    torch.cuda.current_stream().wait_stream(capturing)
    graph = torch.cuda.CUDAGraph()

    def step(x):
        # Autocast's cache would keep tensors of the graph beyond it.
        with torch.autocast(
            "cuda", torch.bfloat16, enabled=mode == "bfloat16", cache_enabled=False
        ):
            return layer(x)

    with torch.cuda.graph(graph, stream=capturing):
        captured = passes(
            layer, static_x, static_grad, "tf32" if mode == "tf32" else "accurate", step
        )
    static_x.copy_(x)
    static_grad.copy_(grad_y)
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(captured, passes(layer, x, grad_y, mode))


@gpu
@each_layer
def test_a_capture_without_a_warm_up_says_so(own_cache, kind):
    layer = build(kind, 6, 5)
    x, _ = data_of(layer, 9)
    with (
        torch.no_grad(),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
        pytest.raises(RuntimeError, match="run the layer once before the capture"),
    ):
        layer(x)
    assert layer(x).isfinite().all()


# Around the kernels


@gpu
@each_layer
def test_the_current_stream_is_launched_on(kind):
    layer = build(kind)
    x, grad_y = data_of(layer)
    expected = passes(layer, x, grad_y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)  # what ran elsewhere would read x before it is there
        late.copy_(x)
        actual = passes(layer, late, grad_y)
    stream.synchronize()
    assert_same_bits(actual, expected)


@gpu
@two_gpus
@each_layer
def test_a_device_that_is_not_the_current_one(kind):
    layer = build(kind, 70, 50)
    x, grad_y = data_of(layer, 30)
    expected = passes(layer, x, grad_y)
    other = build(kind, 70, 50, device="cuda:1")
    other.load_state_dict(layer.state_dict())
    actual = passes(other, x.to("cuda:1"), grad_y.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    assert {value.device.index for value in actual.values()} == {1}
    assert_within(actual, {name: value.to("cuda:1") for name, value in expected.items()}, 1e-6)


@gpu
@each_layer
@each_mode
def test_deterministic_algorithms_change_nothing(kind, mode):
    layer = build(kind)
    x, grad_y = data_of(layer)
    expected = passes(layer, x, grad_y, mode)
    torch.use_deterministic_algorithms(True)  # fills new tensors with NaN, too
    try:
        actual = passes(layer, x, grad_y, mode)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_bits(actual, expected)


@gpu
@each_layer
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_layer_has_the_same_bits(kind, backend):
    if backend == "inductor":
        pytest.importorskip("triton")
        if not (shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")):
            pytest.skip("inductor needs a C compiler")
    torch._dynamo.reset()
    layer = build(kind, 70, 50)
    x, grad_y = data_of(layer, 30)
    expected = passes(layer, x, grad_y)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    assert_same_bits(passes(layer, x, grad_y, forward=compiled), expected)


@gpu
@each_layer
def test_autocast_gives_bfloat16_and_gradients_of_the_parameters_dtype(kind):
    layer = build(kind, 70, 50)
    x, grad_y = data_of(layer, 30)
    found = passes(layer, x, grad_y, "bfloat16")
    assert found.pop("y").dtype == torch.bfloat16
    assert {value.dtype for value in found.values()} == {torch.float32}


@gpu
@each_layer
def test_threads_share_a_layer(own_cache, kind):
    """Each thread with a stream of its own, the first launches at the same time."""
    layer = build(kind, 70, 50)
    x, grad_y = data_of(layer, 30)
    torch.cuda.synchronize()

    def work(_):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            found = [passes(layer, x, grad_y) for _ in range(5)]
        stream.synchronize()
        return found

    with ThreadPoolExecutor(4) as threads:
        found = [run for runs in threads.map(work, range(4)) for run in runs]
    for run in found[1:]:
        assert_same_bits(run, found[0])
    exact = build(kind, 70, 50, dtype=torch.float64, backend="product")
    exact.load_state_dict(layer.state_dict())
    assert_within(found[0], passes(exact, x.double(), grad_y.double()), BOUNDS["accurate"])


PROCESSES, ROWS = 2, 40


def _train(rank, folder):
    """Save the gradients of this process's share of the batch."""
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    for kind in LAYERS:
        torch.manual_seed(0)
        layer = build(kind, 70, 50, device=f"cuda:{rank}")
        x = torch.linspace(-1, 1, PROCESSES * ROWS * 70).view(-1, 70)
        part = x[rank * ROWS : (rank + 1) * ROWS].to(f"cuda:{rank}")
        DistributedDataParallel(layer, device_ids=[rank])(part).square().mean().backward()
        grads = {name: parameter.grad.cpu() for name, parameter in layer.named_parameters()}
        torch.save(grads, f"{folder}/{kind}-{rank}.pt")
    dist.destroy_process_group()


@gpu
@two_gpus
@pytest.mark.skipif(not dist.is_nccl_available(), reason="this torch is built without NCCL")
def test_two_gpus_share_the_gradient_of_the_whole_batch(tmp_path):
    mp.spawn(_train, (str(tmp_path),), PROCESSES)
    for kind in LAYERS:
        torch.manual_seed(0)
        layer = build(kind, 70, 50)
        x = torch.linspace(-1, 1, PROCESSES * ROWS * 70).view(-1, 70).cuda()
        layer(x).square().mean().backward()
        expected = {name: parameter.grad.cpu() for name, parameter in layer.named_parameters()}
        for rank in range(PROCESSES):
            found = torch.load(tmp_path / f"{kind}-{rank}.pt", weights_only=True)
            assert_within(found, expected, 1e-6)


@gpu
@each_layer
@pytest.mark.parametrize("rows", [100, 3000])
def test_the_form_that_is_measured_to_be_the_fastest_is_right(kind, rows, monkeypatch, tmp_path):
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path))
    monkeypatch.setenv(tuning.VARIABLE, "1")
    monkeypatch.setattr(choosing, "known", {})
    layer = build(kind, backend="auto")
    x, grad_y = data_of(layer, rows)
    with forms.watched() as ran:
        actual = passes(layer, x, grad_y)
    exact = build(kind, dtype=torch.float64, backend="product")
    exact.load_state_dict(layer.state_dict())
    expected = passes(exact, x.double(), grad_y.double())
    # The library's sums in float32 have more roundings than the kernels'.
    assert_within(actual, expected, 4 * BOUNDS["accurate"])
    found = [choice for _, choice in tuning.choices(torch.device("cuda", 0))]
    assert {choice.chosen for choice in found} >= set(ran.values())
    for choice in found:
        assert any(name.startswith("product") for name in choice.timings)
