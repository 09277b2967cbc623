"""From a layer to its kernels: which form runs, what it says, and the launches, emulated.

Where the kernels are emulated, tensors of the CPU are launched on: the same addresses, packed
by the same code, as a driver would get.
"""

import warnings

import pytest
import torch

import kan_impls
from kan_impls.basis.bspline import BSplineBasis
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import cuda, dispatch, jit, kernels, proof, trial
from kan_impls.fused.jit import CompileError, KernelUnavailable
from kan_impls.fused.operands import Operands
from kan_impls.fused.problem import Device, Element, Functions, Layer, Precision, error_bound
from kan_impls.variants.relu_kan import ReluBasis
from tests.cases import ROWS, other_fused
from tests.emulated_driver import assert_proven
from tests.emulated_layer import Case, compiled, with_kinds
from tests.emulator.build import Emulator, find_compiler
from tests.fused_helpers import pretend_gpu
from tests.helpers import assert_close, norms_of_terms, random_like, randomize, run, run_ref
from tests.reference import efficient_kan_ref, fourier_kan_ref

CPU = torch.device("cpu")
GPU = Device(arch=90, sms=4)

LAYERS = {
    "fourier": ("fused_fourier_kan", {"grid_size": 3}, fourier_kan_ref),
    "splines": ("fused_efficient_kan", {"grid_size": 4, "spline_order": 2}, efficient_kan_ref),
}
LAYERS |= {name: (name, own, ROWS[name].layer_ref) for name, own in other_fused(LAYERS.values())}
each_layer = pytest.mark.parametrize("kind", LAYERS)

BOUNDS = {
    "accurate": error_bound(Element.FLOAT, Precision.ACCURATE),
    "tf32": error_bound(Element.FLOAT, Precision.TF32),
    "bfloat16": error_bound(Element.BFLOAT16, Precision.TF32),
}


def build(kind, in_features=6, out_features=5, **options):
    name, config, _ = LAYERS[kind]
    config = {**config, "dtype": torch.float32, **options}
    return randomize(kan_impls.create_layer(name, in_features, out_features, **config))


def forget(monkeypatch):
    """Nothing is known of any device, and nothing has been said."""
    monkeypatch.setattr(proof, "known", proof.Known())


@pytest.fixture(scope="module")
def emulators():
    """An emulator of each kernel: at first those of the usual sizes in every mode, since each call
    of the compiler costs a second more than its kernels."""
    if find_compiler() is None:
        pytest.skip("g++ is not installed: the emulation of the kernels is compiled with it")
    fourier = Case(9, 6, 5, FourierBasis(3), sms=4)
    grid = UniformBSplineBasis.over(-1, 1, 4, 2)
    splines = Case(9, 6, 5, grid, base=True, scale=True, sms=4)
    built = compiled([*with_kinds(fourier), *with_kinds(splines)]).values()
    return {kernel: emulator for emulator in built for kernel in emulator.kernels}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """The folder of the verdicts on emulated kernels: each is tested once."""
    return tmp_path_factory.mktemp("verdicts")


@pytest.fixture
def emulated(monkeypatch, emulators, verdicts):
    """Layers with backend="fused" run the kernels in emulation, after their known-answer tests;
    the launches are returned, without those of the tests."""
    launches = []
    run_trial = trial.run

    def tested(*arguments, **options):
        before = len(launches)
        outcome = run_trial(*arguments, **options)
        del launches[before:]
        return outcome

    def launch(plan, device):
        assert_proven(plan.kernel)
        launches.append(plan)
        if plan.kernel not in emulators:
            emulators[plan.kernel] = Emulator(None, [plan.kernel])
        emulators[plan.kernel].run(plan)

    pretend_gpu(monkeypatch, verdicts)
    cuda._plan.cache_clear()
    monkeypatch.setattr(jit, "launch", launch)
    monkeypatch.setattr(trial, "run", tested)
    monkeypatch.setattr(cuda, "device_of", lambda index: kernels.Device(90, 4))
    yield launches
    cuda._plan.cache_clear()


@pytest.fixture
def set_precision():
    """Sets torch.set_float32_matmul_precision for the test."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def names(launches):
    return [plan.kernel.partition("<")[0] for plan in launches]


@each_layer
@pytest.mark.parametrize("mode", BOUNDS)
def test_a_layer_through_its_kernels(emulated, set_precision, kind, mode):
    if mode == "tf32":
        set_precision("high")
    layer = build(kind, backend="fused")
    x, grad_y = random_like(layer, 9, 6), random_like(layer, 9, 5)

    def forward(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bfloat16"):
            return layer(x)

    actual, reference = run(layer, x, grad_y, forward=forward), LAYERS[kind][2]
    # Rows nearly cancel in the gradient of a parameter that all inputs share.
    norms = norms_of_terms(reference, layer, x, grad_y)
    assert_close(actual, run_ref(reference, layer, x, grad_y), BOUNDS[mode], norms)
    trained = ["param_grad"] if layer.basis.trained else []
    assert [name for name in names(emulated) if name != "reduce"] == [
        *("forward", "input_grad", "weight_grad"),
        *trained,
    ]
    element = "bfloat16" if mode == "bfloat16" else "float"
    precision = "ACCURATE" if mode == "accurate" else "TF32"
    wanted = f"{element}, {precision}"
    assert all(wanted in plan.kernel for plan in emulated if "reduce" not in plan.kernel)


@each_layer
def test_the_same_bits_again(emulated, kind):
    layer = build(kind, backend="fused")
    x, grad_y = random_like(layer, 9, 6), random_like(layer, 9, 5)
    first, again = run(layer, x, grad_y), run(layer, x, grad_y)
    assert (first.y == again.y).all()
    assert (first.grad_x == again.grad_x).all()
    assert all((first.grads[key] == again.grads[key]).all() for key in first.grads)


@each_layer
def test_gradients_that_are_not_needed_are_not_computed(emulated, kind):
    layer = build(kind, backend="fused")
    x, grad_y = random_like(layer, 9, 6), random_like(layer, 9, 5)
    layer(x).backward(grad_y)
    assert "input_grad" not in names(emulated)
    layer.requires_grad_(False)
    emulated.clear()
    layer(x.requires_grad_()).backward(grad_y)
    assert "weight_grad" not in names(emulated)
    assert x.grad.any()


@each_layer
@pytest.mark.parametrize("change", ["stride 0", "stride 2", "shifted", "leading", "one output"])
def test_any_tensor_that_pytorch_takes(emulated, kind, change):
    outputs = 1 if change == "one output" else 5
    layer = build(kind, out_features=outputs, backend="fused")
    x, grad_y = random_like(layer, 9, 6), random_like(layer, 9, outputs)
    if change == "stride 0":  # what `.sum()` sends back
        grad_y = grad_y[:1, :1].expand(9, outputs)
    elif change == "stride 2":
        x, grad_y = x.repeat_interleave(2, 1)[:, ::2], grad_y.repeat_interleave(2, 1)[:, ::2]
    elif change == "shifted":  # 4 bytes past what a vector is aligned to
        for name, parameter in layer.named_parameters():
            shifted = torch.empty(parameter.numel() + 1)[1:].view(parameter.shape)
            setattr(layer, name, torch.nn.Parameter(shifted.copy_(parameter.detach())))
    expected = run_ref(LAYERS[kind][2], layer, x, grad_y)
    if change == "leading":
        actual = run(layer, x.view(3, 3, 6), grad_y.view(3, 3, outputs))
        actual = actual._replace(y=actual.y.reshape(9, outputs), grad_x=actual.grad_x.reshape(9, 6))
    else:
        actual = run(layer, x, grad_y)
    assert_close(actual, expected, BOUNDS["accurate"])
    assert "forward" in names(emulated)


@each_layer
def test_compiled_layers_run_the_kernels(emulated, kind):
    layer = build(kind, backend="fused")
    x, grad_y = random_like(layer, 9, 6), random_like(layer, 9, 5)
    expected = run(layer, x, grad_y)
    emulated.clear()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    actual = run(layer, x, grad_y, forward=compiled)
    assert "weight_grad" in names(emulated)
    assert_close(actual, expected, 0)


def test_gradients_of_two_parameters_of_a_basis_share_no_memory(monkeypatch):
    """torch.compile refuses an operator whose results do."""
    monkeypatch.setattr(
        cuda, "launch", lambda plan, tensors, *where: tensors["grad_params"].fill_(1)
    )
    layer = Layer(Functions(ReluBasis(3, 3)), 9, 6, 5, Element.FLOAT, Precision.ACCURATE, GPU)
    starts, ends = torch.zeros(6, 6), torch.zeros(1, 6)  # of each input, and of all of them
    operands = Operands(torch.zeros(9, 6), torch.zeros(6, 6, 5), params=(starts, ends))
    plan = kernels.param_grad(layer, size=12)
    parts = plan.workspace_bytes // (4 * 6 * 12)
    of_starts, of_ends = cuda._param_grads(plan, {}, operands).values()
    torch.testing.assert_close(of_starts, torch.full((6, 6), float(parts)), rtol=0, atol=0)
    torch.testing.assert_close(of_ends, torch.full((1, 6), 6.0 * parts), rtol=0, atol=0)
    for params in ((starts, starts), (starts, ends)):
        found = cuda._param_grads(plan, {}, operands._replace(params=params)).values()
        assert len({grad.untyped_storage().data_ptr() for grad in found}) == 2


@each_layer
def test_gradients_of_gradients_through_the_kernels(emulated, kind):
    layer = build(kind, backend="fused")
    x = random_like(layer, 4, 6).requires_grad_()
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    exact = build(kind, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    wide = x.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(exact(wide).square().sum(), wide, create_graph=True)
    (expected,) = torch.autograd.grad(slope.sum(), wide)
    # Splines of order 2 have kinks in their slopes: not at random points.
    torch.testing.assert_close(curvature.double(), expected, rtol=1e-4, atol=1e-4)


@each_layer
def test_an_empty_batch_launches_nothing(emulated, kind):
    layer = build(kind, backend="fused")
    layer(random_like(layer, 0, 6)).sum().backward()
    assert not emulated
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    assert trained
    assert not any(parameter.grad.any() for parameter in trained)


def test_a_repeated_shape_is_planned_once(emulated, monkeypatch):
    layer = build("fourier", backend="fused")
    x = random_like(layer, 9, 6)
    first = layer(x)
    monkeypatch.setattr(kernels, "forward", None)
    assert torch.equal(layer(x.clone()), first)


# What runs with backend="auto" on a GPU: the kernels or the product.
@pytest.mark.parametrize(
    ("wanted", "change"),
    [
        (True, {}),
        (False, {"rows": 0}),
        (True, {"rows": dispatch.MAX_ROWS}),
        (False, {"rows": dispatch.MAX_ROWS + 1}),
        (True, {"rows": 65_536, "outputs": dispatch.FEW_OUTPUTS}),
        (False, {"dtype": torch.float64}),
        (False, {"dtype": torch.float16}),
        (True, {"dtype": torch.bfloat16}),
        (False, {"basis": BSplineBasis(5, 3)}),
        (True, {"basis": UniformBSplineBasis(10, 3, -1.0, 0.3)}),
        (False, {"basis": UniformBSplineBasis(10, 4, -1.0, 0.4)}),
        (True, {"arch": 86, "rows": dispatch.MEMORY_BOUND_ROWS}),
        (False, {"arch": 86, "rows": dispatch.MEMORY_BOUND_ROWS + 1}),
        (True, {"arch": 86, "tf32": True}),
        (True, {"arch": 86, "dtype": torch.bfloat16}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:the fused kernels do not run")
def test_what_runs_on_a_gpu(monkeypatch, set_precision, wanted, change):
    forget(monkeypatch)
    sizes = {"rows": 100, "outputs": 1000, "dtype": torch.float32, "arch": 90, **change}
    monkeypatch.setattr(jit, "available", lambda device: None)
    monkeypatch.setattr(cuda, "device_of", lambda index: kernels.Device(sizes["arch"], 132))
    set_precision("high" if sizes.get("tf32") else "highest")

    class OnGpu:
        """Shape, dtype and device of a tensor."""

        device = torch.device("cuda", 0)
        dtype = sizes["dtype"]

        def __init__(self, *shape):
            self.shape = shape

    basis = sizes.get("basis", FourierBasis(5))
    operands = Operands(OnGpu(sizes["rows"], 1000), OnGpu(10, 1000, sizes["outputs"]))
    assert dispatch._takes_kernels(operands, basis, "auto") is wanted
    assert not dispatch._takes_kernels(operands, basis, "product")


@each_layer
def test_demanded_kernels_name_what_is_missing(monkeypatch, kind):
    forget(monkeypatch)
    layer = build(kind, backend="fused")
    with pytest.raises(KernelUnavailable, match="this is 'cpu': move layer and input"):
        layer(random_like(layer, 2, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float64}, "are torch.float64, .* take float32 and bfloat16"),
        ({"spline_order": 4}, "spline_order is 4, and the fused kernels know 1 to 3"),
        ({"moved": True}, "the knots are not equally spaced"),
        ({"dtype": torch.bfloat16, "grid_size": 5}, "or rounded to 16 bits"),
    ],
)
def test_demanded_kernels_name_what_they_cannot_compute(monkeypatch, options, message):
    forget(monkeypatch)
    options = dict(options)
    moved = options.pop("moved", False)
    layer = build("splines", backend="fused", **options)
    x = random_like(layer, 50, 6)
    if moved:
        layer.update_grid(x)
    with pytest.raises(KernelUnavailable, match=message):
        layer(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "bfloat16"}, "differ in dtype"),
        ({"bias": "float64"}, "differ in dtype"),
        (
            {"weight": torch.empty(1, device="meta").expand(6, 6, kernels.MAX_OUTPUTS + 1)},
            "outputs",
        ),
    ],
    ids=str,
)
def test_operands_that_the_kernels_would_misread(monkeypatch, change, message):
    forget(monkeypatch)
    monkeypatch.setattr(jit, "available", lambda device: None)
    change = dict(change)
    basis = UniformBSplineBasis(6, 2, -2.0, 2.0)
    edges = torch.zeros(6, 5)
    tensors = {
        "weight": torch.zeros(6, 6, 5),
        "scale": edges,
        "base_weight": edges,
        "bias": torch.zeros(5),
    }
    for name, value in change.items():
        tensors[name] = tensors[name].to(getattr(torch, value)) if isinstance(value, str) else value
    x = torch.zeros(4, 6)
    if tensors["weight"].is_meta:
        tensors = {name: value.to("meta") for name, value in tensors.items()}
        x = x.to("meta")
    with pytest.raises(KernelUnavailable, match=message):
        dispatch._takes_kernels(Operands(x, **tensors), basis, "fused")


def test_a_layer_that_was_left_on_another_device(monkeypatch):
    forget(monkeypatch)
    monkeypatch.setattr(jit, "available", lambda device: None)
    operands = Operands(torch.zeros(4, 6, device="meta"), torch.zeros(6, 6, 5))
    with pytest.raises(ValueError, match="x is on meta and weight on cpu; expected one device"):
        dispatch._takes_kernels(operands, FourierBasis(3), "fused")


def test_without_kernels_the_product_runs_and_says_so_once(monkeypatch):
    forget(monkeypatch)
    layer = build("fourier")
    x = random_like(layer, 4, 6)
    expected = layer(x)

    def unavailable(device):
        raise KernelUnavailable("no compiler: install one")

    monkeypatch.setattr(jit, "available", unavailable)
    monkeypatch.setattr(dispatch, "_pay", lambda operands: True)
    operands = Operands(x, layer.weight.detach(), bias=layer.bias.detach())
    with pytest.warns(UserWarning, match="the slower product form does: no compiler: install one"):
        first = dispatch.forward(operands, FourierBasis(3), "auto")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = dispatch.forward(operands, FourierBasis(3), "auto")
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


@pytest.mark.parametrize("error", [KernelUnavailable, CompileError])
def test_a_kernel_that_does_not_load_is_not_tried_again(monkeypatch, tmp_path, error):
    pretend_gpu(monkeypatch, tmp_path)
    tried = []

    def launch(plan, device):
        tried.append(plan)
        raise error("the driver refuses it")

    cuda._plan.cache_clear()
    monkeypatch.setattr(jit, "launch", launch)
    monkeypatch.setattr(cuda, "device_of", lambda index: kernels.Device(90, 4))
    monkeypatch.setattr(dispatch, "_pay", lambda operands: True)
    demanded = build("fourier", backend="fused")
    x = random_like(demanded, 4, 6)
    with pytest.raises(error, match="refuses"):
        demanded(x)
    assert len(tried) == 1
    layer = build("fourier")
    layer.load_state_dict(demanded.state_dict())
    with pytest.warns(UserWarning, match="refuses it"):
        y = layer(x)
    layer(x)
    assert len(tried) == 1
    build("splines")(x)  # the kernels of another basis are tried
    assert len(tried) == 2
    assert not list(tmp_path.rglob("*.json"))  # the next process tries again
    assert_close(
        run(layer, x, torch.ones_like(y)),
        run_ref(fourier_kan_ref, layer, x, torch.ones_like(y)),
        BOUNDS["accurate"],
    )
    cuda._plan.cache_clear()


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend is 'cuda'; expected one of auto, fused, product"):
        kan_impls.create_layer("fused_fourier_kan", 2, 3, backend="cuda")
