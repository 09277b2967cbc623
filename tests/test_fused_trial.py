"""The known-answer tests of all kernels have shapes that no tile fits, and measure errors."""

import math

import pytest
import torch

from kan_impls.fused import kernels, trial
from kan_impls.fused.kernels import Device, Element, Layer, Precision
from kan_impls.fused.tiles import PARAM_GRAD_TILES
from kan_impls.fused.trial import error_of

FUNCTIONS = kernels.standard_functions()
KINDS = [
    (Element.FLOAT, Precision.ACCURATE),
    (Element.FLOAT, Precision.TF32),
    (Element.BFLOAT16, Precision.TF32),
]


def options_of(which, functions):
    return {"size": sum(functions.basis.param_sizes)} if which == "param_grad" else {}


def plans(functions, element, precision):
    """One plan for every kernel that a layer may launch: pass and plan by the kernel's name."""
    passes = [name for name in kernels.PASSES if name != "param_grad" or functions.basis.trained]
    found = {}
    for rows in (1, 20, 60, 100, 200, 256, 500, 5000):
        layer = Layer(functions, rows, 100, 100, element, precision, Device(90, 132))
        for which in passes:
            plan = getattr(kernels, which)(layer, **options_of(which, functions))
            found.setdefault(plan.launches[0].kernel, (which, plan))
    return found


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("functions", FUNCTIONS, ids=lambda functions: functions.name)
def test_every_kernel_has_shapes_that_fit_no_tile(functions, kind):
    found = plans(functions, *kind)
    trained = bool(functions.basis.trained)
    wanted = kernels.kernels_of(functions, *kind, trained=trained)
    assert {*found, f"reduce<{kind[0].value}>"} == set(wanted)
    for kernel, (which, plan) in found.items():
        trials = trial.plans_of(which, plan, **options_of(which, functions))
        launched = {launch.kernel for same in trials for part in same for launch in part.launches}
        assert launched == set(trial.kernels_of(which, plan))
        assert {part.launches[0].kernel for same in trials for part in same} == {kernel}
        layers = [same[0].layer for same in trials]
        assert all(layer.rows % 2 and layer.inputs % 2 for layer in layers)
        vectors = 16 // kind[0].size
        assert {layer.outputs % vectors == 0 for layer in layers} == {True, False}
        assert all(layer.outputs % 32 for layer in layers)
        if which == "forward":
            stages = kernels._forward_stages(layers[0])
            assert all(one.splits == 1 < several.splits for one, several in trials)
            assert stages > kernels.FORWARD_STAGES
        elif which == "weight_grad":
            few, many = kernels.WEIGHT_GRAD_STAGES, kernels.WEIGHT_GRAD_TILES_PER_PART
            tiles = [math.ceil(layer.rows / kernels.WEIGHT_GRAD_ROWS) for layer in layers]
            assert min(tiles) > few
            assert max(tiles) > many
        else:
            stages = layers[0].outputs / kernels.INPUT_GRAD_OUTPUTS
            assert stages > kernels.INPUT_GRAD_STAGES


def test_an_error_is_that_of_the_norm_or_of_the_worst_element():
    expected = torch.ones(100, 100, dtype=torch.float64)
    assert error_of(expected, expected) == 0
    assert error_of(1.001 * expected, expected) == pytest.approx(1e-3)
    one = expected.clone()
    one[7, 8] = 2
    assert error_of(one, expected) == pytest.approx(1 / 16)  # in the norm, it is 1/100
    one[7, 8] = math.nan
    assert error_of(one, expected) == math.inf
    one[7, 8] = math.inf
    assert error_of(one, expected) == math.inf


def test_an_error_where_all_are_to_be_zero():
    zero = torch.zeros(3, 4, dtype=torch.float64)
    assert error_of(zero, zero) == 0
    for value in (1e-30, math.nan):
        assert error_of(zero + value, zero) == math.inf


@pytest.mark.parametrize("functions", FUNCTIONS, ids=lambda functions: functions.name)
def test_one_shape_has_no_bias_and_parameters_that_inputs_share(functions):
    plan = kernels.forward(Layer(functions, 20, 100, 100, *KINDS[0], Device(90, 132)))
    usual, bare = (
        trial.values(plans[0].layer, is_bare)[0]
        for is_bare, plans in enumerate(trial.plans_of("forward", plan))
    )
    assert usual.bias is not None
    assert bare.bias is None
    for param in usual.params:
        assert param.shape[0] == usual.x.shape[1]
    for param in bare.params:
        assert bare.x.shape[1] % param.shape[0] == 0
        assert param.shape[0] < bare.x.shape[1]


def test_one_shape_gives_the_blocks_of_the_parameters_gradient_more_than_one_turn():
    functions = next(each for each in kernels.standard_functions() if each.basis.trained)
    layer = Layer(functions, 65_536, 64, 64, Element.FLOAT, Precision.ACCURATE, Device(90, 132))
    size = sum(functions.basis.param_sizes)
    plan = kernels.param_grad(layer, size)
    (last,) = trial.plans_of("param_grad", plan, size=size)[-1]
    rows_at_once = last.launches[0].grid[0] * next(
        tile.rows for tile in PARAM_GRAD_TILES if f", {tile.warps}>" in last.launches[0].kernel
    )
    assert last.launches[0].kernel == plan.launches[0].kernel
    assert last.layer.rows / rows_at_once > 1


def test_a_kernel_that_no_shape_takes_says_so(monkeypatch):
    layer = Layer(FUNCTIONS[0], 200, 100, 100, *KINDS[0], Device(90, 132))
    plan = kernels.forward(layer)
    monkeypatch.setattr(kernels, "FORWARD_TILES", kernels.FORWARD_TILES[:2])
    with pytest.raises(trial.jit.KernelUnavailable, match="has no known-answer test"):
        trial.plans_of("forward", plan)


def test_outputs_start_as_no_numbers():
    plan = kernels.forward(Layer(FUNCTIONS[0], 20, 100, 100, *KINDS[0], Device(90, 132)))
    trials = [trial._trial("forward", plans) for plans in trial.plans_of("forward", plan)]
    memory = trial._memory(trials, torch.device("cpu"))
    assert {name for *_, name in memory.outputs} == {"y", "workspace"}
    assert all(memory.read(key).isnan().all() for key in memory.outputs)
