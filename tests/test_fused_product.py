"""The fused layers: cells, blocks and restarts, workspace, what they keep, torch.func."""

import copy
import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

import kan_impls
from kan_impls.basis.base import basis_of
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import cells, cpu, formula, product
from kan_impls.fused.operands import Needs, Operands
from perfgate.measure.memory import measure_peaks
from tests.cases import ROWS, other_fused
from tests.fused_helpers import has_host_compiler
from tests.helpers import (
    assert_close,
    random_like,
    randomize,
    relative_error,
    run,
    run_ref,
    to_numpy,
    used_parameters,
)
from tests.reference import efficient_kan_ref

# Relative to the norm. float64: what is promised. float32: four times sqrt(K) + 16
# roundings of 2**-24, with sums of K = 400 terms and at most 8 in a power.
# bfloat16: basis, scaled weights, product and result are rounded to 2**-9, each at most twice.
BOUNDS = {torch.float64: 1e-10, torch.float32: 4 * 2**-24 * (20 + 8), torch.bfloat16: 8 * 2**-9}

IN_FEATURES, OUT_FEATURES = 5, 7


@pytest.fixture(params=["compiled", "operators"])
def made_by(request, monkeypatch, dtype):
    """What evaluates the functions: what is compiled takes float32 only."""
    compiled, asked = cpu.compiled, set()

    def recorded(operands, basis):
        asked.add(basis)
        return compiled(operands, basis)

    if request.param == "operators":
        monkeypatch.setattr(cpu, "compiled", lambda operands, basis: None)
    elif dtype != torch.float32:
        pytest.skip("operators take other dtypes in any case")
    elif has_host_compiler():
        monkeypatch.setattr(cpu, "compiled", recorded)
    monkeypatch.setattr(cpu.Compiled, "plan", lambda *arguments: None)  # all take torch's products
    yield
    # One that fails its known-answer test leaves its tests to the operators.
    missing = [cpu.obstacle(basis) for basis in asked if basis.obstacle is None]
    assert not any(missing), missing


# What takes another path through the product: the name of the layer, its options, and whether
# its knots have moved.
KINDS = {
    "fourier": ("fused_fourier_kan", {"grid_size": 5}, False),
    "fourier-restarts": ("fused_fourier_kan", {"grid_size": 17}, False),  # two exact angles
    "splines": ("fused_efficient_kan", {"grid_size": 6, "spline_order": 3}, False),
    "splines-unscaled": (
        "fused_efficient_kan",
        {"grid_size": 4, "spline_order": 2, "enable_standalone_scale_spline": False},
        False,
    ),
    "splines-moved": ("fused_efficient_kan", {"grid_size": 5, "spline_order": 3}, True),
}
KINDS |= {name: (name, options, False) for name, options in other_fused(KINDS.values())}
each_kind = pytest.mark.parametrize("kind", KINDS)


def build(
    device,
    kind,
    dtype=torch.float64,
    in_features=IN_FEATURES,
    out_features=OUT_FEATURES,
    **options,
):
    name, config, has_moved = KINDS[kind]
    layer = kan_impls.create_layer(
        name, in_features, out_features, device=device, dtype=dtype, **{**config, **options}
    )
    if has_moved:
        layer.update_grid(random_like(layer, 50, in_features))
    return randomize(layer)


def reference_of(kind):
    return ROWS[KINDS[kind][0]].layer_ref


def cut(monkeypatch, rows, inputs, in_piece, must_stage):
    """Let cells have so many rows, pieces so many inputs, and staged cells so many, too."""

    def changed(found):
        changes = {"rows_at_once": rows, "inputs_in_piece": in_piece}
        if found.is_staged or must_stage:
            changes |= {"inputs_at_once": inputs, "is_staged": True}
        return dataclasses.replace(found, **changes)

    def cells_of(*arguments):
        return [changed(found) for found in cells.cells_of(*arguments)]

    monkeypatch.setattr(product, "cells_of", cells_of)


@each_kind
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
# 3, 2: smaller last cells; all functions of one, two and all inputs of a cell at once.
@pytest.mark.parametrize(
    ("rows", "inputs", "in_piece", "must_stage"),
    [(1, 5, 1, False), (3, 2, 5, False), (8, 1, 1, False), (3, 3, 2, True), (8, 5, 2, True)],
)
@pytest.mark.usefixtures("made_by")
def test_cells_and_pieces(device, monkeypatch, kind, dtype, rows, inputs, in_piece, must_stage):
    cut(monkeypatch, rows, inputs, in_piece, must_stage)
    layer = build(device, kind, dtype)
    x, grad_y = random_like(layer, 8, IN_FEATURES), random_like(layer, 8, OUT_FEATURES)
    before = x.clone()
    expected = run_ref(reference_of(kind), layer, x, grad_y)
    assert_close(run(layer, x, grad_y), expected, BOUNDS[dtype])
    assert torch.equal(x, before)


@each_kind
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("workspace", [2**19, pytest.param(2**20, marks=pytest.mark.field)])
@pytest.mark.parametrize("outputs", [6, 256])
@pytest.mark.usefixtures("made_by")
def test_workspace_does_not_grow_with_the_batch(
    device, monkeypatch, kind, dtype, workspace, outputs
):
    small = cells.SMALLEST._replace(most=workspace)
    monkeypatch.setattr(cells, "workspace_of", lambda device: small)
    layer = build(device, kind, dtype, in_features=24, out_features=outputs, backend="product")
    weights = sum(parameter.nbytes for parameter in layer.parameters())
    layer(random_like(layer, 3, 24))  # what is compiled at first use, and tested, is nobody's pass
    for batch in (321, 960):  # no whole vectors, too
        x, grad_y = random_like(layer, batch, 24), random_like(layer, batch, outputs)
        x.requires_grad_()
        layer.zero_grad()
        peaks = measure_peaks(device, lambda x=x: layer(x), lambda y, g=grad_y: y.backward(g))
        # Besides: y; then y, and the gradients of x and of the parameters.
        # Constants such as the numbers of the harmonics take less than 4 KiB.
        assert peaks.forward_peak_bytes <= workspace + grad_y.nbytes + 4096
        results = grad_y.nbytes + x.nbytes + weights
        assert peaks.backward_peak_bytes <= workspace + results + 4096


@each_kind
def test_saves_its_input_and_its_parameters_and_nothing_else(device, kind):
    layer = build(device, kind)
    x = random_like(layer, 9, IN_FEATURES).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda nothing: None):
        layer(x)
    storages = {tensor.untyped_storage().data_ptr() for tensor in saved}
    alive = (x, *layer.parameters(), *layer.buffers())
    assert storages <= {tensor.untyped_storage().data_ptr() for tensor in alive}


@pytest.mark.parametrize("kind", ["fourier", "splines", "splines-moved"])
@pytest.mark.parametrize("dtype", [torch.float32], ids=str)
@pytest.mark.usefixtures("made_by")
def test_float32_is_accurate_over_ten_thousand_terms(device, kind, dtype):
    # What is promised, for K = 10,000 and 9,000, by the same layer in float64.
    layer = build(device, kind, dtype, 1000, 64, grid_size=5)
    exact = copy.deepcopy(layer).double()
    x, grad_y = random_like(layer, 30, 1000), random_like(layer, 30, 64)
    assert_close(run(layer, x, grad_y), run(exact, x.double(), grad_y.double()), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("scale", [3.0, 1e4])
@pytest.mark.usefixtures("made_by")
def test_basis_is_accurate_to_the_300th_harmonic(device, dtype, scale):
    # Coefficients that pick one function per output make the output the basis itself.
    layer = build(
        device, "fourier", dtype, in_features=1, out_features=600, grid_size=300, bias=False
    )
    one_each = torch.eye(600).view(600, 1, 300, 2).permute(3, 0, 1, 2)
    kan_impls.upstream.load(layer, {"fouriercoeffs": one_each}, layout="out_in")
    x = random_like(layer, 64, 1) * scale
    k = torch.arange(1, 301, device=device, dtype=torch.float64)
    angle = x.double() * k
    expected = torch.stack((angle.cos(), angle.sin()), -1).flatten(1)
    # float32: what is promised, some 16 roundings of 6e-8 (without restarts 1.3e-5).
    # float64: as much of its roundings, and the angles here and there are rounded themselves.
    bound = 1e-6 if dtype == torch.float32 else 2e-15 + 2**-52 * angle.abs().max().item()
    assert (layer(x).double() - expected).abs().max().item() <= bound

    one = x[:1].expand(600, 1).clone().requires_grad_()
    layer(one).backward(torch.eye(600, device=device, dtype=dtype))
    cos, sin = expected[0, 0::2], expected[0, 1::2]
    slope = torch.stack((-sin, cos), -1).flatten()  # divided by k, as is what it judges
    actual = one.grad.double().flatten() / k.repeat_interleave(2)
    assert (actual - slope).abs().max().item() <= bound


@pytest.mark.parametrize("name", ["fourier_kan", "efficient_kan"])
def test_starts_as_the_same_function_as_the_direct_one(device, name):
    layers = []
    for prefix in ("", "fused_"):
        torch.manual_seed(1)
        layers.append(kan_impls.create_layer(prefix + name, 5, 4, grid_size=3, device=device))
    direct, fused = (kan_impls.upstream.export(layer) for layer in layers)
    assert all(torch.equal(direct[key], fused[key]) for key in direct)


@each_kind
def test_gradients_of_gradients_take_the_same_first_gradients(device, kind):
    layer = build(device, kind)
    x, grad_y = (
        random_like(layer, 9, IN_FEATURES).requires_grad_(),
        random_like(layer, 9, OUT_FEATURES),
    )
    plain, graphed = (
        torch.autograd.grad(
            layer(x), (x, *used_parameters(layer).values()), grad_y, create_graph=create_graph
        )
        for create_graph in (False, True)
    )
    for fast, differentiable in zip(plain, graphed, strict=True):
        # Harmonics to 17 and their derivatives, by powers and directly.
        torch.testing.assert_close(fast, differentiable, rtol=1e-11, atol=1e-11)


@each_kind
def test_deterministic_algorithms_give_the_same(device, kind):
    layer = build(device, kind)
    x, grad_y = random_like(layer, 9, IN_FEATURES), random_like(layer, 9, OUT_FEATURES)
    expected = run(layer, x, grad_y)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)  # which also fills fresh memory with NaN
        actual = run(layer, x, grad_y)
    finally:
        torch.use_deterministic_algorithms(before)
    assert_close(actual, expected, 0)


@each_kind
def test_gradients_per_sample(device, kind):
    layer = build(device, kind)
    parameters = used_parameters(layer)
    x = random_like(layer, 6, IN_FEATURES)

    def loss(parameters, x):
        return functional_call(layer, parameters, (x,)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for row in range(len(x)):
        layer.zero_grad()
        layer(x[row]).square().sum().backward()
        for key, parameter in parameters.items():
            torch.testing.assert_close(per_sample[key][row], parameter.grad, rtol=1e-10, atol=1e-10)


@each_kind
def test_many_layers_at_once(device, kind):
    layers = [build(device, kind) for _ in range(3)]
    x = random_like(layers[0], 4, IN_FEATURES)
    parameters, buffers = torch.func.stack_module_state(layers)
    y = torch.func.vmap(lambda p, b: functional_call(layers[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(y, torch.stack([layer(x) for layer in layers]))


@each_kind
def test_forward_mode_derivative(device, kind):
    layer = build(device, kind)
    x, tangent = random_like(layer, 4, IN_FEATURES), random_like(layer, 4, IN_FEATURES)
    _, slope = torch.func.jvp(layer, (x,), (tangent,))
    near = (layer(x + 1e-6 * tangent) - layer(x - 1e-6 * tangent)) / 2e-6
    # A difference of second order: 1e-12 of the third derivative, and 1e-10 of rounding.
    torch.testing.assert_close(slope, near, rtol=1e-6, atol=1e-6)


@each_kind
def test_exports_as_its_formula(device, kind):
    layer = build(device, kind)
    x = random_like(layer, 4, IN_FEATURES)
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    calls = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert not [call for call in calls if "kan_impls" in call]
    more = random_like(layer, 9, IN_FEATURES)
    # Its sums are in another order.
    torch.testing.assert_close(exported.module()(more), layer(more))


@each_kind
def test_the_operators_keep_the_rules_of_pytorch(device, kind):
    layer = build(device, kind)
    x, grad_y = (
        random_like(layer, 4, IN_FEATURES).requires_grad_(),
        random_like(layer, 4, OUT_FEATURES),
    )
    arguments = operator_arguments(layer, x)
    torch.library.opcheck(torch.ops.kan_impls.basis_product, arguments)
    *single, params, basis, backend = arguments
    present = [isinstance(value, torch.nn.Parameter) for value in (*single, *params)]
    plain = [None if v is None else v.detach() for v in single]
    plain += [[param.detach() for param in params], basis, backend]
    nothing = [False] * (len(present) - 1)
    for needs in ([True, *present[1:]], [False, *present[1:]], [True, *nothing]):
        torch.library.opcheck(torch.ops.kan_impls.basis_product_backward, (grad_y, *plain, needs))


def operator_arguments(layer, x):
    """What the layer gives to the operator at x."""
    given = []

    def record(operands, basis, backend):
        given.append((*operands[:-1], list(operands.params), basis.text, backend))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kan_impls.layer.basis_product", record)
        layer(x)
    return given[0]


def write(layer):
    layer.grid[:, -1] += 1


def replace(layer):
    moved = layer.grid.clone()
    moved[0] += 0.1
    layer.grid = moved


def load(layer):
    state = layer.state_dict()
    layer.load_state_dict({**state, "grid": state["grid"] ** 3})


def load_published(layer):
    state = kan_impls.upstream.export(layer)
    kan_impls.upstream.load(layer, {**state, "grid": state["grid"] ** 3})


def write_unseen(layer):
    layer.grid.data[:, -1] += 1  # neither this nor what a collective writes is counted


def update(layer):
    layer.update_grid(random_like(layer, 50, IN_FEATURES))


@pytest.mark.parametrize("change", [write, replace, write_unseen, load, load_published, update])
@pytest.mark.parametrize("compiled", [False, True])
def test_follows_its_grid(device, change, compiled):
    if compiled and change in (write, replace, write_unseen):
        pytest.skip("a compiled layer learns of these from grid_changed() only")
    if device.type == "cuda" and change is write_unseen:
        pytest.skip("comparing values would wait for the device: grid_changed() is for this")
    layer = build(device, "splines")
    forward = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
    x, grad_y = random_like(layer, 9, IN_FEATURES), random_like(layer, 9, OUT_FEATURES)
    before = forward(x)
    change(layer)
    actual = run(layer, x, grad_y, forward=forward)
    assert relative_error(actual.y, to_numpy(before)) > 0.01
    assert_close(actual, run_ref(efficient_kan_ref, layer, x, grad_y), BOUNDS[torch.float64])


def test_follows_a_grid_that_counts_no_writes(device):
    with torch.inference_mode():
        layer = build(device, "splines")
        x = random_like(layer, 9, IN_FEATURES)
        layer(x)
        write(layer)
        y = layer(x)
    expected = run_ref(efficient_kan_ref, layer, x, torch.zeros_like(y)).y
    assert relative_error(to_numpy(y), expected) <= BOUNDS[torch.float64]


@pytest.mark.parametrize("name", ["fused_efficient_kan", "efficient_kan"])
def test_the_slope_at_a_kink_is_that_to_its_right(device, name):
    options = {"grid_size": 4, "spline_order": 1, "dtype": torch.float64, "device": device}
    layer = kan_impls.create_layer(name, 1, 1, **options)
    coefficients = torch.tensor([0.0, 1, 5, 7, 2], dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    state = {"base_weight": 0 * one, "spline_weight": coefficients.view(1, 1, 5)}
    grid = kan_impls.upstream.export(layer)["grid"]
    kan_impls.upstream.load(layer, {**state, "spline_scaler": one, "grid": grid})
    # Knots at -1, -0.5, 0 and 0.5, and a point in each cell.
    x = torch.tensor([-1, -0.5, 0, 0.5, -0.7, -0.2, 0.3, 0.9], dtype=torch.float64, device=device)
    x = x.unsqueeze(1).requires_grad_()
    layer(x).sum().backward()
    expected = 2 * coefficients.diff()
    assert torch.equal(x.grad.flatten().cpu(), torch.cat((expected, expected)))


@each_kind
@pytest.mark.parametrize("name", ["weight", "scale"])
def test_parameters_of_any_strides(device, kind, name):
    layer = build(device, kind)
    x, grad_y = random_like(layer, 9, IN_FEATURES), random_like(layer, 9, OUT_FEATURES)
    expected = run(layer, x, grad_y)
    if layer.stored(name) is None:
        pytest.skip("the layer has no scale")
    value = layer.stored(name).detach()
    name = layer.names[name]
    axes = tuple(reversed(range(value.ndim)))
    setattr(layer, name, torch.nn.Parameter(value.permute(axes).contiguous().permute(axes)))
    assert_close(run(layer, x, grad_y), expected, 1e-13)


@each_kind
def test_a_batch_of_cotangents(device, kind):
    layer = build(device, kind)
    x = random_like(layer, 2, IN_FEATURES)
    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(jacobian(layer, x, vectorize=True), jacobian(layer, x))


def test_knots_have_no_gradient(device):
    layer = build(device, "splines-moved")
    layer.grid.requires_grad_()
    with pytest.raises(ValueError, match="the knots require a gradient; expected a buffer"):
        layer(random_like(layer, 2, IN_FEATURES))


def test_runs_without_values(device):
    with FakeTensorMode():
        layer = kan_impls.create_layer("fused_efficient_kan", 5, 7)
        assert layer(torch.rand(9, 5, requires_grad=True)).sum().backward() is None
    meta = kan_impls.create_layer("fused_efficient_kan", 5, 7, device="meta")
    layer = meta.to_empty(device=device)
    layer.load_state_dict(build(device, "splines", grid_size=5).state_dict())
    x = random_like(layer, 9, IN_FEATURES)
    assert form(layer, x) == "UniformBSplineBasis"
    assert layer(x).isfinite().all()


def form(layer, x=None):
    """How the layer evaluates its splines."""
    x = random_like(layer, 2, IN_FEATURES) if x is None else x
    return type(basis_of(operator_arguments(layer, x)[-2])).__name__


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("ends", "grid_size"), [((0.1, 700.3), 20), ((-1, 1), 50)], ids=str)
def test_equally_spaced_knots_take_the_local_form(device, dtype, ends, grid_size):
    layer = build(device, "splines", dtype, grid_range=ends, grid_size=grid_size)
    assert form(layer) == "UniformBSplineBasis"
    step = (ends[1] - ends[0]) / grid_size
    with torch.no_grad():
        layer.grid[2, -1] += 400 * step * torch.finfo(dtype).eps
    assert form(layer) == "BSplineBasis"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"grid_range": (1000, 1001)}, "BSplineBasis"),  # of the spacing 1.5e-4 is lost
        ({"grid_range": (1000, 1001), "dtype": torch.float64}, "UniformBSplineBasis"),
        ({"grid_range": (1000, 1006)}, "UniformBSplineBasis"),  # integers, which are exact
        ({"grid_size": 1000}, "BSplineBasis"),
        ({"spline_order": 7, "grid_size": 16}, "UniformBSplineBasis"),
        ({"spline_order": 8, "grid_size": 16}, "BSplineBasis"),
    ],
    ids=str,
)
def test_knots_that_rounding_moved_visibly_do_not(device, options, expected):
    options = {"dtype": torch.float32, **options}
    assert form(build(device, "splines", **options)) == expected


def test_in_a_wider_dtype_knots_stay_equally_spaced(device):
    layer = build(device, "splines", torch.float32)
    x, grad_y = random_like(layer, 9, IN_FEATURES), random_like(layer, 9, OUT_FEATURES)
    narrow = run(layer, x, grad_y)
    layer.double()
    assert form(layer) == "UniformBSplineBasis"
    assert layer.grid.diff(dim=1).std() < 1e-15
    wide = run(layer, x.double(), grad_y.double())
    assert_close(wide, run_ref(efficient_kan_ref, layer, x, grad_y), BOUNDS[torch.float64])
    assert_close(narrow, wide, BOUNDS[torch.float32])
    # Knots of their own keep what they are.
    layer = build(device, "splines-moved", torch.float32)
    grid = layer.grid.clone()
    assert torch.equal(layer.double().grid, grid.double())


def test_another_default_device_does_not_matter(device):
    layer = build(device, "splines")
    x = random_like(layer, 2, IN_FEATURES)
    expected = layer(x)
    before = torch.get_default_device()
    torch.set_default_device("meta")
    try:
        layer.grid_changed()
        assert torch.equal(layer(x), expected)
        layer.float().double()
        layer.reset_parameters()
    finally:
        torch.set_default_device(before)
    assert layer(x).isfinite().all()


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("factor", [1e3, 1e30])
def test_far_from_the_grid_splines_are_zero(device, order, factor):
    layer = build(device, "splines", torch.float32, spline_order=order)
    with torch.no_grad():
        layer.base_weight.zero_()
    x = (factor * random_like(layer, 20, IN_FEATURES).sign()).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert not y.any()
    assert not x.grad.any()


@pytest.mark.gpu
@each_kind
def test_runs_on_the_current_stream(device, kind):
    layer = build(device, kind, torch.float32, in_features=64, out_features=32)
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


@pytest.mark.parametrize(
    ("ends", "grid_size"), [((-1.0, 1.0), 5), ((0.0, 10.0), 200), ((100.0, 101.0), 5)]
)
def test_the_formula_is_as_exact_as_the_product(ends, grid_size):
    """On a GPU it may be the form that is measured to be the fastest."""
    basis = UniformBSplineBasis.over(*ends, grid_size, 3)
    low, high = ends
    x = (low + (high - low) * torch.rand(40, 6, dtype=torch.float64)).float()
    weight, grad_y = torch.randn(basis.num_basis, 6, 5), torch.randn(40, 5)
    operands = Operands(x.requires_grad_(), weight.requires_grad_())
    wide = Operands(*(tensor.detach().double().requires_grad_() for tensor in operands[:2]))
    needs = Needs(True, True)
    y, exact = formula.forward(operands, basis), formula.forward(wide, basis)
    grads = formula.backward(grad_y, operands, basis, needs)
    exact_grads = formula.backward(grad_y.double(), wide, basis, needs)
    for actual, expected in zip([y, *grads[:2]], [exact, *exact_grads[:2]], strict=True):
        error = relative_error(actual.detach(), expected.detach())
        assert error <= 1e-6  # as documented of every form
