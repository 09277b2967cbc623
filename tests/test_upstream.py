"""Published checkpoints in and out: keys, shapes, layouts, values and gradients."""

import numpy as np
import pytest
import torch

import kan_impls
from kan_impls import upstream
from tests.cases import MODEL_WIDTHS, ROWS, cases
from tests.helpers import assert_close, random_like, randomize, run, run_ref, to_numpy
from tests.reference import Passes, fourier_kan_ref

FOURIER = ("fourier_kan", "fused_fourier_kan")

# Published keys and shapes of a layer of 3 inputs, 2 outputs, grid 5, order 3.
PUBLISHED = {
    "mlp": {"layer1.weight": (2, 3), "layer1.bias": (2,)},
    "cheby_kan": {"cheby_coeffs": (3, 2, 5), "arange": (5,)},
    "gram_kan": {
        "grams_basis_weights": (3, 2, 4),
        "base_weights": (2, 3),
        "beta_weights": (4,),
    },
    "jacobi_kan": {"jacobi_coeffs": (3, 2, 4)},
    "legendre_kan": {"jacobi_coeffs": (3, 2, 4)},
    "sine_kan": {
        "amplitudes": (2, 3, 5),
        "freq": (1, 1, 1, 5),
        "phase": (1, 1, 3, 5),
        "bias": (1, 2),
    },
    "efficient_kan": {
        "base_weight": (2, 3),
        "spline_weight": (2, 3, 8),
        "spline_scaler": (2, 3),
        "grid": (3, 12),
    },
    "pykan": {
        "scale_base": (3, 2),
        "coef": (3, 2, 8),
        "scale_sp": (3, 2),
        "mask": (3, 2),
        "grid": (3, 12),
    },
    "fourier_kan": {"fouriercoeffs": (2, 2, 3, 5), "bias": (1, 2)},
    "fused_fourier_kan": {"fouriercoeffs": (2, 2, 3, 5), "bias": (1, 2)},
}


def fourier(name, device, i=3, o=2, **config):
    return randomize(
        kan_impls.create_layer(
            name, i, o, grid_size=4, device=device, dtype=torch.float64, **config
        )
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_and_shapes_are_the_published_ones(name, device):
    exported = upstream.export(kan_impls.create_layer(name, 3, 2, device=device))
    assert {key: tuple(value.shape) for key, value in exported.items()} == PUBLISHED[name]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_what_is_exported_loads_to_the_same_layer(case, device):
    source, target = (randomize(case.create(device=device, dtype=torch.float64)) for _ in range(2))
    upstream.load(target, upstream.export(source))
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


@pytest.mark.parametrize("name", ROWS)
def test_networks_load_and_export_values_and_gradients(name, device):
    source, target = (
        randomize(kan_impls.create_model(name, MODEL_WIDTHS, device=device, dtype=torch.float64))
        for _ in range(2)
    )
    upstream.load(target, upstream.export(source))
    x, grad_y = random_like(source, 9, MODEL_WIDTHS[0]), random_like(source, 9, MODEL_WIDTHS[-1])
    # The same parameters in the same code: the same bits.
    assert_close(run(target, x, grad_y), run(source, x, grad_y), 0)
    values, grads = upstream.export(target), upstream.export(target, grads=True)
    assert grads.keys() == run_ref(ROWS[name].network_ref, source, x, grad_y).grads.keys()
    assert all(grads[key].shape == values[key].shape for key in grads)


def test_what_follows_from_the_options_must_be_theirs(device):
    layer = kan_impls.create_layer("cheby_kan", 3, 2, degree=3, device=device)
    state = upstream.export(layer)
    assert state["arange"].tolist() == [0, 1, 2, 3]
    before = layer.cheby_coeffs.clone()
    state = {"cheby_coeffs": torch.ones(3, 2, 4), "arange": torch.tensor([0, 2, 4, 6])}
    with pytest.raises(ValueError, match=r"'arange' is \[0, 2, 4, 6\]; expected \[0, 1, 2, 3\]"):
        upstream.load(layer, state)
    assert torch.equal(layer.cheby_coeffs, before)
    upstream.load(layer, {**state, "arange": torch.arange(4.0)})  # in the dtype of another tool
    assert (layer.cheby_coeffs == 1).all()


@pytest.mark.parametrize("name", ["fast_kan", "fused_rbf_kan"])
def test_a_checkpoint_of_another_grid_is_refused(device, name):
    """It holds the centres, and not the width of the functions."""
    wide = kan_impls.create_model(name, [3, 4, 2], grid_min=-6, grid_max=6, device=device)
    layer = kan_impls.create_model(name, [3, 4, 2], device=device)
    before = upstream.export(layer)
    state = upstream.export(wide)
    with pytest.raises(ValueError, match=r"of layers\.0 the centres from -6 to 6 are 1\.71 apart"):
        upstream.load(layer, state)
    assert all(torch.equal(value, before[key]) for key, value in upstream.export(layer).items())
    # Trained centres are where training put them.
    centres = next(key for key in state if key.endswith("grid"))
    state |= {key: state[key] ** 3 for key in state if key.endswith(centres[-4:])}
    upstream.load(layer, state)


def test_gradients_are_left_out_where_there_are_none(device):
    layer = fourier("fused_fourier_kan", device)
    assert upstream.export(layer, grads=True) == {}
    layer.bias.requires_grad_(False)
    layer(random_like(layer, 4, 3)).sum().backward()
    assert upstream.export(layer, grads=True).keys() == {"fouriercoeffs"}


@pytest.mark.parametrize("name", FOURIER)
@pytest.mark.parametrize("layout", ["in_out", None])
@pytest.mark.parametrize("bias_shape", [(2,), (1, 2)], ids=str)
def test_the_layout_of_published_fused_layers(name, layout, bias_shape, device):
    # fouriercoeffs (2, in, out, G), as CUDA layers store it; the shape alone tells here.
    generator = np.random.default_rng(0)
    in_out = generator.normal(size=(2, 3, 2, 4))
    state = {"fouriercoeffs": in_out, "bias": generator.normal(size=bias_shape)}
    layer = fourier(name, device)
    upstream.load(layer, {k: torch.from_numpy(v) for k, v in state.items()}, layout=layout)

    x, grad_y = random_like(layer, 9, 3), random_like(layer, 9, 2)
    out_in = {**state, "fouriercoeffs": in_out.transpose(0, 2, 1, 3)}
    expected = fourier_kan_ref(to_numpy(x), out_in, to_numpy(grad_y))
    assert_close(run(layer, x, grad_y), expected, 1e-10)

    values = upstream.export(layer, layout="in_out")
    np.testing.assert_array_equal(to_numpy(values["fouriercoeffs"]), in_out)
    grads = upstream.export(layer, grads=True, layout="in_out")
    actual = Passes(expected.y, expected.grad_x, {k: to_numpy(g) for k, g in grads.items()})
    transposed = expected.grads["fouriercoeffs"].transpose(0, 2, 1, 3)
    own = {"fouriercoeffs": transposed, "bias": expected.grads["bias"][0]}  # (2,) in these layers
    expected = expected._replace(grads=own)
    assert_close(actual, expected, 1e-10)


@pytest.mark.parametrize("name", FOURIER)
@pytest.mark.parametrize("layout", ["out_in", "in_out", None])
def test_a_square_layer_goes_by_the_layout_that_is_named(name, layout, device):
    layer = fourier(name, device, 3, 3)
    coeffs = random_like(layer, 2, 3, 3, 4)
    state = {"fouriercoeffs": coeffs, "bias": random_like(layer, 1, 3)}
    upstream.load(layer, state, layout=layout)
    expected = coeffs.transpose(1, 2) if layout == "in_out" else coeffs
    assert torch.equal(upstream.export(layer)["fouriercoeffs"], expected)
    assert torch.equal(upstream.export(layer, layout=layout)["fouriercoeffs"], coeffs)


def test_each_fourier_implementation_reads_what_the_other_writes(device):
    for layout in ("out_in", "in_out"):
        direct, fused = (fourier(name, device, 3, 3) for name in FOURIER)
        upstream.load(fused, upstream.export(direct, layout=layout), layout=layout)
        x, grad_y = random_like(direct, 9, 3), random_like(direct, 9, 3)
        expected = run_ref(fourier_kan_ref, direct, x, grad_y)
        assert_close(run(fused, x, grad_y), expected, 1e-10)


def wrapped(how, model):
    return {
        "compiled": lambda: torch.compile(model, backend="eager"),
        "averaged": lambda: torch.optim.swa_utils.AveragedModel(model),
        "parallel": lambda: torch.nn.DataParallel(model),
        "compiled average": lambda: torch.compile(torch.optim.swa_utils.AveragedModel(model)),
    }[how]()


@pytest.mark.parametrize("how", ["compiled", "averaged", "parallel", "compiled average"])
def test_wrappers_of_torch_do_not_rename_what_is_published(how, device):
    model = kan_impls.create_model("efficient_kan", [3, 2], device=device)
    module, state = wrapped(how, model), upstream.export(model)
    assert upstream.export(module).keys() == state.keys()
    upstream.load(module, {key: value + 1 for key, value in state.items()})
    assert all(torch.equal(value, state[key] + 1) for key, value in upstream.export(module).items())


@pytest.mark.parametrize("how", ["pruned", "parametrized", "compiled"])
def test_layers_whose_tensors_are_renamed_are_refused(how, device):
    model = kan_impls.create_model("fused_efficient_kan", [3, 2], device=device)
    layer, state = model.layers[0], upstream.export(model)
    if how == "pruned":
        torch.nn.utils.prune.l1_unstructured(layer, "spline_weight", 0.5)
    elif how == "parametrized":
        torch.nn.utils.parametrize.register_parametrization(
            layer, "base_weight", torch.nn.Identity()
        )
    else:
        model.layers[0] = torch.compile(layer)
    for call in (lambda: upstream.export(model), lambda: upstream.load(model, state)):
        with pytest.raises(ValueError, match=r"^layers\.0 is compiled, .* expected plain layers: "):
            call()


def test_exports_are_copies_and_loads_keep_the_parameters_identity(device):
    for name in ROWS:
        layer = kan_impls.create_layer(name, 3, 2, device=device)
        before = {key: value.clone() for key, value in layer.state_dict().items()}
        parameters = list(layer.parameters())
        exported = upstream.export(layer)
        # A buffer that follows from the options must be as they say.
        fixed = getattr(layer, "derived", {})
        for key, value in exported.items():
            if key not in fixed:
                value.add_(1)
        assert all(torch.equal(layer.state_dict()[key], before[key]) for key in before)
        upstream.load(layer, exported)
        # An optimizer that holds the parameters goes on with the loaded values.
        assert all(a is b for a, b in zip(parameters, layer.parameters(), strict=True))
        assert all((layer.state_dict()[key] != before[key]).all() for key in before)


def test_loads_convert_the_dtype(device):
    source = fourier("fourier_kan", device)
    layer = kan_impls.create_layer("fused_fourier_kan", 3, 2, grid_size=4, device=device)
    upstream.load(layer, upstream.export(source))
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    expected = source.fouriercoeffs.detach().float()
    assert torch.equal(upstream.export(layer)["fouriercoeffs"], expected)
