"""The fused Fourier layer: chunks, blocks and restarts, workspace, what it keeps."""

import pytest
import torch

import kan_impls
from kan_impls.basis.fourier import FourierBasis
from kan_impls.bench.measure.memory import measure_peaks
from kan_impls.fused import product
from tests.helpers import assert_close, random_like, randomize, run, run_ref, to_numpy
from tests.reference import fourier_kan_ref

# Relative to the norm. float64: the figure. float32: four times sqrt(K) + 16
# roundings of 2**-24, with sums of K = 400 terms and at most 8 in a power.
# bfloat16: basis, product and result are rounded to 2**-9, each at most twice.
BOUNDS = {torch.float64: 1e-10, torch.float32: 4 * 2**-24 * (20 + 8), torch.bfloat16: 6 * 2**-9}

IN_FEATURES, OUT_FEATURES = 5, 7


def build(
    device, dtype=torch.float64, in_features=IN_FEATURES, out_features=OUT_FEATURES, **options
):
    sizes = (in_features, out_features)
    return randomize(
        kan_impls.create_layer("fused_fourier_kan", *sizes, device=device, dtype=dtype, **options)
    )


class FirstChunkError(Exception):
    """Carries the number of rows of the first chunk."""


def limit_chunks(monkeypatch, layer, x, rows):
    """Set the workspace to about the smallest that takes `rows` rows at once."""

    def blocks(basis, x):
        raise FirstChunkError(x.shape[1])

    for step in range(1000):
        grad_bytes = product.GRAD_ELEMENTS * max(4, x.itemsize)
        size = grad_bytes + 64 * x.shape[1] * step
        monkeypatch.setattr(product, "WORKSPACE_BYTES", size)
        with monkeypatch.context() as patch:
            patch.setattr(FourierBasis, "blocks", blocks)
            with pytest.raises(FirstChunkError) as found:
                layer(x)
        if found.value.args[0] >= rows:
            break
    assert found.value.args[0] == rows


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("grid_size", [1, 2, 17, 40])  # 17 and 40: two and four exact restarts
# The gradients of 1, of at most 3, and of all functions of a block at once.
@pytest.mark.parametrize("grad_elements", [1, 3 * IN_FEATURES * 3, 2**17])
@pytest.mark.parametrize("rows", [1, 3, 8])  # the last chunk has 1, 2 and 8 rows
def test_chunks_products_and_restarts(device, monkeypatch, dtype, grid_size, grad_elements, rows):
    monkeypatch.setattr(product, "GRAD_ELEMENTS", grad_elements)
    layer = build(device, dtype, grid_size=grid_size)
    x, grad_y = random_like(layer, 8, IN_FEATURES), random_like(layer, 8, OUT_FEATURES)
    before = x.clone()
    limit_chunks(monkeypatch, layer, x, rows)
    expected = run_ref(fourier_kan_ref, layer, x, grad_y)
    assert_close(run(layer, x, grad_y), expected, BOUNDS[dtype])
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("grad_elements", [1, 2**14])
def test_workspace_does_not_grow_with_the_batch(device, monkeypatch, dtype, grad_elements):
    workspace = 2**20
    monkeypatch.setattr(product, "WORKSPACE_BYTES", workspace)
    monkeypatch.setattr(product, "GRAD_ELEMENTS", grad_elements)
    layer = build(device, dtype, in_features=64, out_features=16, grid_size=18)
    weights = sum(parameter.nbytes for parameter in layer.parameters())
    # 16-bit gradients of the weights add up in float32, and each product, which is all
    # weights at most, is there in 16 bits and as float32.
    totals = 5 * weights if dtype == torch.bfloat16 else 0
    for batch in (100, 300):
        x, grad_y = random_like(layer, batch, 64), random_like(layer, batch, 16)
        x.requires_grad_()
        layer.zero_grad()
        peaks = measure_peaks(device, lambda x=x: layer(x), lambda y, g=grad_y: y.backward(g))
        # Besides: y; then y, and the gradients of x and of the parameters.
        # Constants such as the numbers of the harmonics take less than 4 KiB.
        assert peaks.forward_peak_bytes <= workspace + grad_y.nbytes + 4096
        results = grad_y.nbytes + x.nbytes + weights
        assert peaks.backward_peak_bytes <= workspace + results + totals + 4096


def test_saves_its_input_and_its_parameters_and_nothing_else(device):
    layer = build(device, grid_size=5)
    x = random_like(layer, 9, IN_FEATURES).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda nothing: None):
        layer(x)
    storages = {tensor.untyped_storage().data_ptr() for tensor in saved}
    assert storages == {t.untyped_storage().data_ptr() for t in (x, layer.weight)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_basis_is_accurate_to_the_300th_harmonic(device, dtype, scale):
    # Coefficients that pick one function per output make the output the basis itself.
    layer = build(device, dtype, 1, 600, grid_size=300, bias=False)
    one_each = torch.eye(600).view(600, 1, 300, 2).permute(3, 0, 1, 2)
    kan_impls.upstream.load(layer, {"fouriercoeffs": one_each}, layout="out_in")
    x = random_like(layer, 64, 1) * scale
    k = torch.arange(1, 301, device=device, dtype=torch.float64)
    angle = x.double() * k
    expected = torch.stack((angle.cos(), angle.sin()), -1).flatten(1)
    # float32: the figure, some 16 roundings of 6e-8 (without restarts 1.3e-5).
    # float64: as much of its roundings, and the angles here and there are rounded themselves.
    bound = 1e-6 if dtype == torch.float32 else 2e-15 + 2**-52 * angle.abs().max().item()
    assert (layer(x).double() - expected).abs().max().item() <= bound

    one = x[:1].expand(600, 1).clone().requires_grad_()
    layer(one).backward(torch.eye(600, device=device, dtype=dtype))
    cos, sin = expected[0, 0::2], expected[0, 1::2]
    slope = torch.stack((-sin, cos), -1).flatten()  # divided by k, as is what it judges
    actual = one.grad.double().flatten() / k.repeat_interleave(2)
    assert (actual - slope).abs().max().item() <= bound


def test_starts_as_the_same_function_as_the_direct_one(device):
    layers = []
    for name in ("fourier_kan", "fused_fourier_kan"):
        torch.manual_seed(1)
        layers.append(kan_impls.create_layer(name, 5, 4, grid_size=3, device=device))
    direct, fused = (kan_impls.upstream.export(layer) for layer in layers)
    assert all(torch.equal(direct[key], fused[key]) for key in direct)


def test_gradients_of_gradients_take_the_same_first_gradients(device):
    layer = build(device, grid_size=20)
    x, grad_y = (
        random_like(layer, 9, IN_FEATURES).requires_grad_(),
        random_like(layer, 9, OUT_FEATURES),
    )
    plain, graphed = (
        torch.autograd.grad(layer(x), (x, *layer.parameters()), grad_y, create_graph=create_graph)
        for create_graph in (False, True)
    )
    for fast, differentiable in zip(plain, graphed, strict=True):
        # Harmonics to 20 and their derivatives, by powers and directly.
        torch.testing.assert_close(fast, differentiable, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bias", [True, False])
def test_the_operators_keep_the_rules_of_pytorch(device, bias):
    layer = build(device, grid_size=5, bias=bias)
    x, grad_y = (
        random_like(layer, 4, IN_FEATURES).requires_grad_(),
        random_like(layer, 4, OUT_FEATURES),
    )
    torch.library.opcheck(torch.ops.kan_impls.fourier_product, (x, layer.weight, layer.bias))
    for needed in ((True, True), (True, False), (False, True)):
        arguments = (grad_y, x.detach(), layer.weight.detach(), *needed)
        torch.library.opcheck(torch.ops.kan_impls.fourier_product_backward, arguments)


@pytest.mark.gpu
def test_runs_on_the_current_stream(device):
    layer = build(device, torch.float32, in_features=64, out_features=32, grid_size=5)
    x, grad_y = random_like(layer, 4096, 64), random_like(layer, 4096, 32)
    expected = run(layer, x, grad_y)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        # Work ahead on this stream: what runs elsewhere would read x before it is there.
        late = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        actual = run(layer, late, grad_y)
    # The same kernels in the same order, up to what library products may reorder.
    assert_close(actual, expected, 1e-5)
    assert to_numpy(late).any()
