"""Bad input: one sentence that says what came, what was expected and what to do."""

import re

import numpy as np
import pytest
import torch

import kan_impls
from kan_impls import upstream
from tests.cases import MODEL_WIDTHS, ROWS
from tests.helpers import assert_unchanged, random_like

NAN, INF = float("nan"), float("inf")
# Options that are numbers, so that one out of range has the right type.
NUMBERS = ("grid_range", "grid_eps", "scale_noise", "spline_weight_init_scale", "a")

each_variant = pytest.mark.parametrize("name", ROWS)


def assert_raises(error, call, *parts):
    """`call` raises `error` with a message of one sentence that contains `parts` in order."""
    with pytest.raises(error) as raised:
        call()
    message = str(raised.value)
    assert re.search(".*".join(re.escape(part) for part in parts), message), message
    # What came; what was expected: what to do.
    assert re.fullmatch(r"[^;]+; expected [^;]+: [^;]+", message), message
    assert not re.search(r"[.!?]\s+[A-Z]|\n", message), f"more than a sentence: {message}"


@pytest.mark.parametrize("create", [kan_impls.create_layer, kan_impls.create_model])
def test_unknown_implementation(create):
    sizes = (3, 2) if create is kan_impls.create_layer else ([3, 2],)
    assert_raises(
        ValueError,
        lambda: create("fourier", *sizes),
        "'fourier' does not exist; expected one of",
        *kan_impls.list_variants(),
        ": choose",
    )


@each_variant
@pytest.mark.parametrize("size", [0, -3, 2.5, "3", True, None], ids=repr)
def test_sizes_that_are_no_positive_integers(name, size):
    error = ValueError if type(size) is int else TypeError
    for sizes in ((size, 2), (2, size)):
        assert_raises(
            error,
            lambda sizes=sizes: kan_impls.create_layer(name, *sizes),
            f"{size!r}; expected a positive integer: ",
        )
    assert_raises(
        error,
        lambda: kan_impls.create_model(name, [3, size, 2]),
        f"layers[1] is {size!r}; expected a positive integer: ",
    )


@each_variant
@pytest.mark.parametrize("widths", [[], [3]], ids=str)
def test_networks_of_fewer_than_two_widths(name, widths):
    assert_raises(
        ValueError,
        lambda: kan_impls.create_model(name, widths),
        f"layers is {widths}; expected two widths or more: ",
    )


@each_variant
def test_unknown_option(name):
    for call in (
        lambda: kan_impls.create_layer(name, 3, 2, gridsize=5),
        lambda: kan_impls.create_model(name, [3, 2], gridsize=5),
    ):
        assert_raises(
            TypeError, call, f"{name} got the option 'gridsize'; expected some of", "dtype"
        )


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("efficient_kan", {"grid_size": 0}, ("grid_size is 0; expected a positive",)),
        ("efficient_kan", {"spline_order": 0}, ("spline_order is 0; expected a positive",)),
        ("efficient_kan", {"spline_order": 2.0}, ("spline_order is 2.0; expected a positive",)),
        ("efficient_kan", {"grid_range": (1, -1)}, ("grid_range is (1, -1); expected two finite",)),
        ("efficient_kan", {"grid_range": (0, 0)}, ("grid_range is (0, 0); expected two finite",)),
        ("efficient_kan", {"grid_range": 1}, ("grid_range is 1; expected two finite",)),
        (
            "efficient_kan",
            {"grid_range": (0, float("inf"))},
            ("grid_range is (0, inf); expected two finite",),
        ),
        *(
            (
                "efficient_kan",
                {"dtype": dtype, "grid_range": ends},
                (
                    f"grid_range is {ends}, whose 5 intervals and 3 more",
                    f"; expected knots that {dtype} can hold and tell apart: scale",
                ),
            )
            for dtype, ends in (
                (torch.float32, (-3e38, 3e38)),  # inside, but not with 3 more intervals
                (torch.float32, (-1e38, 1.9e38)),  # inside, but not their differences
                (torch.float64, (-1e308, 1e308)),
                (torch.float32, (-1e-40, 1e-40)),  # knots without a reciprocal of their distance
                (torch.float64, (0.0, 1e-310)),
                (torch.float32, (1.0, 1.0000001)),  # the knots of a spline are one number
                (torch.bfloat16, (1000.0, 1001.0)),
                (torch.float16, (-1e5, 1e5)),
            )
        ),
        ("efficient_kan", {"grid_range": "12"}, ("grid_range is '12'; expected two finite",)),
        ("efficient_kan", {"grid_eps": 1.5}, ("grid_eps is 1.5; expected a weight from 0 to 1",)),
        ("fused_efficient_kan", {"grid_eps": -0.5}, ("grid_eps is -0.5; expected a weight",)),
        ("efficient_kan", {"scale_noise": NAN}, ("scale_noise is nan; expected a finite number",)),
        ("jacobi_kan", {"a": INF}, ("a is inf; expected a finite number",)),
        ("jacobi_kan", {"a": 1e200}, ("a is 1e+200; expected one with which a polynomial",)),
        ("fused_jacobi_kan", {"a": 400.0, "degree": 40}, ("a is 400.0; expected one with",)),
        ("fast_kan", {"spline_weight_init_scale": -1}, ("is -1.0; expected a standard deviation",)),
        ("fused_rbf_kan", {"spline_weight_init_scale": -0.1}, ("expected a standard deviation",)),
        ("fourier_kan", {"grid_size": 0}, ("grid_size is 0; expected a positive",)),
        ("fused_fourier_kan", {"grid_size": -1}, ("grid_size is -1; expected a positive",)),
        ("fused_fourier_kan", {"grid_size": "5"}, ("grid_size is '5'; expected a positive",)),
    ],
    ids=str,
)
def test_options_out_of_range(name, options, parts):
    has_type = all(
        name in NUMBERS or type(value) not in (str, float) for name, value in options.items()
    )
    error = ValueError if has_type else TypeError
    assert_raises(error, lambda: kan_impls.create_layer(name, 3, 2, **options), *parts)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("fused_fourier_kan", {"bias": "no"}, "bias is 'no'; expected True or False"),
        ("fast_kan", {"use_layernorm": None}, "use_layernorm is None; expected True or False"),
        ("rbf_kan", {"spline_weight_init_scale": "a"}, "is 'a'; expected a finite number"),
        ("jacobi_kan", {"a": True}, "a is True; expected a finite number"),
        ("fourier_kan", {"dtype": torch.int64}, "dtype is torch.int64; expected one of real"),
        ("mlp", {"dtype": torch.complex64}, "dtype is torch.complex64; expected one of real"),
        ("wav_kan", {"dtype": torch.int64}, "dtype is torch.int64; expected one of real"),
    ],
)
def test_options_of_another_type(name, options, part):
    assert_raises(TypeError, lambda: kan_impls.create_layer(name, 3, 2, **options), part)


@each_variant
def test_widths_that_are_no_sequence(name):
    assert_raises(
        TypeError, lambda: kan_impls.create_model(name, 5), "layers is 5; expected a sequence"
    )


@pytest.mark.parametrize("form", ["", "fused_"])
def test_numbers_are_taken_whatever_their_type(form):
    x = torch.rand(4, 3)
    for a in (1, np.float64(1), 1.0):
        layer = kan_impls.create_layer(f"{form}jacobi_kan", 3, 2, a=a, b=1)
        assert layer.options["a"] == 1.0
        assert layer.basis.text == "JacobiBasis(degree=3, a=1.0, b=1.0)"
        assert layer(x).shape == (4, 2)


@each_variant
@pytest.mark.parametrize("shape", [(4, 2), (3, 4), (), (0,), (4, 3, 1)], ids=str)
def test_wrong_last_dimension(name, shape, device):
    layer = kan_impls.create_layer(name, 3, 2, device=device)
    assert_raises(
        ValueError,
        lambda: layer(torch.zeros(shape, device=device)),
        f"x has shape {shape}; expected (..., 3)",
        "in_features=3: bring",
    )


@each_variant
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_input_that_is_no_real_floating_point_tensor(name, dtype, device):
    layer = kan_impls.create_layer(name, 3, 2, device=device)
    assert_raises(
        TypeError,
        lambda: layer(torch.zeros(4, 3, dtype=dtype, device=device)),
        f"x has dtype {dtype}; expected a real floating-point tensor: convert it",
    )
    assert_raises(
        TypeError,
        lambda: layer([[1.0, 2.0, 3.0]]),
        "x is a list; expected a torch.Tensor: conv",
    )


@each_variant
def test_input_of_another_dtype_than_the_parameters(name, device):
    layer = kan_impls.create_layer(name, 3, 2, device=device)
    assert_raises(
        TypeError,
        lambda: layer(torch.zeros(4, 3, dtype=torch.float64, device=device)),
        "x has dtype torch.float64; expected torch.float32",
        "convert one of them",
    )


def checkpoint(name, device, **changes):
    """A network, and a checkpoint of it that differs in every value."""
    model = kan_impls.create_model(name, MODEL_WIDTHS, device=device)
    state = {key: value + 1 for key, value in upstream.export(model).items()}
    return model, state, [key for key, value in state.items() if value.ndim][-1]


@each_variant
def test_checkpoint_without_a_key(name, device):
    model, state, last = checkpoint(name, device)
    del state[last]
    with assert_unchanged(model):
        assert_raises(
            ValueError,
            lambda: upstream.load(model, state),
            f"the checkpoint lacks '{last}'; expected the keys",
            ": load a checkpoint of",
        )


@each_variant
def test_checkpoint_with_an_unknown_key(name, device):
    model, state, _ = checkpoint(name, device)
    state["frequency"] = torch.zeros(3)
    with assert_unchanged(model):
        assert_raises(
            ValueError,
            lambda: upstream.load(model, state),
            "the checkpoint has the unknown 'frequency'; expected the keys",
            ": remove it",
        )


@each_variant
@pytest.mark.parametrize("shape", [(1,), (7, 7), ()], ids=str)
def test_checkpoint_with_a_tensor_of_another_shape(name, shape, device):
    model, state, last = checkpoint(name, device)
    expected = tuple(state[last].shape)
    state[last] = torch.ones(shape)  # some of these would broadcast
    with assert_unchanged(model):
        assert_raises(
            ValueError,
            lambda: upstream.load(model, state),
            f"'{last}' has shape {shape}; expected {expected}",
            ": build the module",
        )


@pytest.mark.parametrize("name", ["fourier_kan", "fused_fourier_kan"])
def test_checkpoint_in_another_layout_than_stated(name, device):
    layer = kan_impls.create_layer(name, 3, 2, grid_size=4, device=device)
    state = upstream.export(layer, layout="in_out")
    state = {key: value + 1 for key, value in state.items()}
    with assert_unchanged(layer):
        assert_raises(
            ValueError,
            lambda: upstream.load(layer, state, layout="out_in"),
            "'fouriercoeffs' has shape (2, 3, 2, 4); expected (2, 2, 3, 4)",
        )
        for call in (
            lambda: upstream.load(layer, state, layout="rows"),
            lambda: upstream.export(layer, layout="rows"),
        ):
            assert_raises(
                ValueError, call, "'rows' does not exist", "expected one of out_in, in_out"
            )


@pytest.mark.parametrize("margin", [-10, float("nan")])
def test_update_of_a_grid_with_a_margin_that_disorders_it(device, margin):
    layer = kan_impls.create_layer("efficient_kan", 3, 2, device=device)
    with assert_unchanged(layer):
        assert_raises(
            ValueError, lambda: layer.update_grid(random_like(layer, 9, 3), margin), "margin is"
        )


def test_update_of_a_grid_by_samples_of_the_wrong_width(device):
    layer = kan_impls.create_layer("efficient_kan", 3, 2, device=device)
    with assert_unchanged(layer):
        assert_raises(
            ValueError,
            lambda: layer.update_grid(random_like(layer, 4, 2)),
            "x has shape (4, 2); expected (..., 3)",
        )
