"""The contract of every implementation: one module, parametrised over all of them.

What differs between implementations is data, in the rows of cases.py.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch._functorch import config as functorch_config
from torch.autograd import forward_ad

import kan_impls
from perfgate.measure.memory import measure_saved_bytes
from tests.cases import MODEL_WIDTHS, ROWS, cases, first_cases, largest_cases
from tests.helpers import (
    FLOAT64,
    assert_close,
    assert_same_state,
    build,
    inputs,
    norms_of_terms,
    random_like,
    randomize,
    relative_error,
    rounding_bound,
    run,
    run_ref,
    to_numpy,
    used_parameters,
)
from tests.reference import Passes

BATCH = 9
# The same sum in another order or shape of product: some roundings of 1.1e-16.
REORDERED = 1e-13

every_case = pytest.mark.parametrize("case", cases(), ids=str)
each_once = pytest.mark.parametrize("case", first_cases(), ids=str)
each_largest = pytest.mark.parametrize("case", largest_cases(), ids=str)


@pytest.mark.parametrize("name", kan_impls.list_variants())
def test_has_a_row(name):
    assert name in ROWS, f"{name} is registered without an oracle: add a row to tests/cases.py"


@every_case
@pytest.mark.parametrize("batch", [1, BATCH])
def test_output_and_all_gradients_are_those_of_the_oracle(case, batch, device):
    module = build(case, device)
    x, grad_y = inputs(case, module, batch)
    expected = run_ref(case.row.layer_ref, module, x, grad_y)
    assert_close(run(module, x, grad_y), expected, FLOAT64)


@every_case
def test_float32_agrees_with_the_oracle_up_to_rounding(case, device):
    module = build(case, device, torch.float32)
    x, grad_y = inputs(case, module, BATCH)
    expected = run_ref(case.row.layer_ref, module, x, grad_y)
    norms = norms_of_terms(case.row.layer_ref, module, x, grad_y)
    assert module(x).dtype == torch.float32
    assert_close(run(module, x, grad_y), expected, rounding_bound(case, x, torch.float32), norms)


@each_largest
def test_bfloat16_agrees_with_the_oracle_of_the_rounded_parameters(case, device):
    module = build(case, device, torch.bfloat16)
    x, grad_y = inputs(case, module, BATCH)
    expected = run_ref(case.row.layer_ref, module, x, grad_y)
    assert module(x).dtype == torch.bfloat16
    assert_close(run(module, x, grad_y), expected, rounding_bound(case, x, torch.bfloat16))


@pytest.mark.parametrize("name", ROWS)
def test_a_network_has_the_output_and_gradients_of_the_oracle(name, device):
    model = randomize(
        kan_impls.create_model(name, MODEL_WIDTHS, device=device, dtype=torch.float64)
    )
    x, grad_y = random_like(model, BATCH, 5), random_like(model, BATCH, 3)
    expected = run_ref(ROWS[name].network_ref, model, x, grad_y)
    assert_close(run(model, x, grad_y), expected, FLOAT64)


@pytest.mark.parametrize("name", ROWS)
def test_parameter_count_is_the_published_one(name):
    variant = kan_impls.get_variant(name)
    model = kan_impls.create_model(
        name, variant.reference_widths, **variant.reference_config, device="meta"
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == ROWS[name].parameters


@each_once
def test_first_and_second_derivatives_are_finite_differences(case, device):
    module = build(case, device)
    names, parameters = zip(*used_parameters(module).items(), strict=True)
    x, _ = inputs(case, module, 2)

    def function(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), x)

    arguments = (x.requires_grad_(), *(p.detach().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


@each_once
@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (2, 1, 2), (2, 0, 3)], ids=str)
def test_any_leading_shape_is_a_batch(case, leading, device):
    module = build(case, device)
    x, grad_y = inputs(case, module, *leading)
    actual = run(module, x, grad_y)
    expected = run(module, x.reshape(-1, x.shape[-1]), grad_y.reshape(-1, grad_y.shape[-1]))
    shaped = Passes(
        expected.y.reshape(grad_y.shape), expected.grad_x.reshape(x.shape), expected.grads
    )
    assert_close(actual, shaped, REORDERED)


@every_case
def test_empty_batch_gives_empty_output_and_zero_gradients(case, device):
    module = build(case, device)
    x, grad_y = inputs(case, module, 0)
    actual = run(module, x, grad_y)
    assert actual.y.shape == (0, case.config["out_features"])
    assert actual.grad_x.shape == (0, case.config["in_features"])
    assert actual.grads.keys() == run_ref(case.row.layer_ref, module, x, grad_y).grads.keys()
    assert not any(grad.any() for grad in actual.grads.values())


@each_once
@pytest.mark.parametrize("of", ["x", "cotangent"])
@pytest.mark.parametrize("stride", ["0", "2", "transposed"])
def test_strides_do_not_matter(case, of, stride, device):
    module = build(case, device)
    x, grad_y = inputs(case, module, BATCH)
    arguments = {"x": x, "cotangent": grad_y}
    value = arguments[of]
    if stride == "0":  # what `.sum()` sends back
        value = arguments[of] = value[:1].clone().expand_as(value)[:, :1].expand_as(value)
    plain = run(module, *(argument.clone().contiguous() for argument in arguments.values()))
    if stride == "2":
        arguments[of] = value.repeat_interleave(2, dim=1)[:, ::2]
    elif stride == "transposed":
        arguments[of] = value.t().contiguous().t()
    assert case.config["out_features"] == 1 or not arguments[of].is_contiguous()
    assert_close(run(module, *arguments.values()), plain, REORDERED)


@each_once
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_far_outside_the_grid(case, dtype, scale, device):
    module = build(case, device, dtype)
    x, grad_y = inputs(case, module, BATCH, scale=scale)
    expected = run_ref(case.row.layer_ref, module, x, grad_y)
    norms = norms_of_terms(case.row.layer_ref, module, x, grad_y)
    # float64 rounds an angle of 1e5 to 1e-11: no more than FLOAT64 allows.
    assert_close(run(module, x, grad_y), expected, rounding_bound(case, x, dtype), norms)


@every_case
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_input_spoils_its_row_and_no_other(case, value, device):
    module = build(case, device, torch.float32)
    x, grad_y = inputs(case, module, BATCH)
    clean = run(module, x, grad_y)
    x[4, -1] = value
    spoilt = run(module, x, grad_y)
    is_normed = getattr(module, "layernorm", None) is not None  # which has no limit
    if case.row.has_limits and not is_normed and not np.isnan(value):
        x[4, -1] = np.sign(value) * 1e30
        limit = run(module, x, grad_y)
        assert np.isfinite(limit.y[4]).all()
        np.testing.assert_array_equal(spoilt.y[4], limit.y[4])
        np.testing.assert_array_equal(spoilt.grad_x[4], limit.grad_x[4])
    else:
        assert not np.isfinite(spoilt.y[4]).any()
    others = np.arange(BATCH) != 4
    np.testing.assert_array_equal(spoilt.y[others], clean.y[others])
    np.testing.assert_array_equal(spoilt.grad_x[others], clean.grad_x[others])


@every_case
def test_saves_no_more_for_backward_than_stated(case, device):
    module = build(case, device)
    x, _ = inputs(case, module, 64)
    x.requires_grad_()
    saved = measure_saved_bytes(lambda: module(x), (x, *module.parameters(), *module.buffers()))
    # Besides it, the product of weights and scales, which the batch does not enlarge.
    weights = sum(parameter.numel() for parameter in module.parameters())
    allowed = case.row.saved_per_input(case.config) * x.numel()
    assert saved <= 8 * (allowed + (weights if allowed else 0))


@each_once
def test_gradients_that_are_not_asked_for_do_not_change_the_others(case, device):
    module = build(case, device)
    x, grad_y = inputs(case, module, BATCH)
    full = run(module, x, grad_y)
    for name, parameter in used_parameters(module).items():
        others = [p for p in used_parameters(module).values() if p is not parameter]
        wanted = torch.autograd.grad(module(x.detach()), parameter, grad_y)[0]
        module.zero_grad()
        for other in others:
            other.requires_grad_(False)
        alone = torch.autograd.grad(module(x.detach()), parameter, grad_y)[0]
        for other in others:
            other.requires_grad_(True)
        assert torch.equal(alone, wanted), name
    module.requires_grad_(False)
    x.requires_grad_()
    grad_x = torch.autograd.grad(module(x), x, grad_y)[0]
    assert relative_error(to_numpy(grad_x), full.grad_x) <= REORDERED


@each_once
def test_forward_mode_derivatives_are_those_of_torch_func(case, device):
    module = build(case, device)
    x, _ = inputs(case, module, BATCH)
    tangent = random_like(module, *x.shape)
    expected = torch.func.jvp(module, (x,), (tangent,))[1]
    with forward_ad.dual_level():
        y = module(forward_ad.make_dual(x, tangent))
        found = forward_ad.unpack_dual(y).tangent
        assert torch.equal(module(x), forward_ad.unpack_dual(module(x)).primal)  # and no tangent
    assert relative_error(to_numpy(found), to_numpy(expected)) <= REORDERED


@each_once
@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_trace_is_the_layer_at_any_batch(case, grad_mode, device):
    module = build(case, device)
    x, _ = inputs(case, module, BATCH)
    more, _ = inputs(case, module, BATCH + 4)
    with grad_mode():
        traced = torch.jit.trace(module, x)
    assert relative_error(to_numpy(traced(more)), to_numpy(module(more))) <= REORDERED


@pytest.mark.filterwarnings("ignore:.*quantization:DeprecationWarning")
def test_the_perceptron_runs_after_dynamic_quantisation():
    model = kan_impls.create_model("mlp", MODEL_WIDTHS).eval()
    linear = {torch.nn.Linear}
    small = torch.ao.quantization.quantize_dynamic(model, linear, dtype=torch.qint8)
    x = random_like(model, BATCH, MODEL_WIDTHS[0])
    # Weights of 8 bits, in sums of five and four terms below 3, before a sigmoid of slope 1/4.
    assert (small(x) - model(x)).abs().max() <= 0.05


@pytest.mark.parametrize("name", ROWS)
def test_a_layer_built_on_meta_starts_by_reset_parameters(name, device):
    # As FSDP and loaders of large models initialise.
    model = kan_impls.create_model(name, MODEL_WIDTHS, device="meta").to_empty(device=device)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else -7)  # as fresh memory
    twin = kan_impls.create_model(name, MODEL_WIDTHS, device=device)
    for module in (model, twin):
        torch.manual_seed(3)
        for child in module.modules():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
    assert_same_state(model, twin.state_dict())
    x = random_like(model, BATCH, MODEL_WIDTHS[0])
    assert torch.equal(model(x), twin(x))
    assert model(x).isfinite().all()


@each_once
def test_compiles_without_graph_break(case, device):
    module = build(case, device, torch.float32)
    x, grad_y = inputs(case, module, BATCH)
    expected = run(module, x, grad_y)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True)
    # The key of this cache knows nothing of an operator's gradient formula, and so the
    # cache would hide changes of it.
    with functorch_config.patch(enable_autograd_cache=False):
        actual = run(module, x, grad_y, forward=compiled)
    # Both orders of evaluation are within the bound of the oracle.
    assert_close(actual, expected, 2 * rounding_bound(case, x, torch.float32))


@each_once
def test_compiles_for_any_batch(case, device):
    module = build(case, device)
    torch.compiler.reset()
    # No code generation: what is tested are the shapes that tracing derives.
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (BATCH, 4):
        x, grad_y = inputs(case, module, batch)
        actual = run(module, x, grad_y, forward=compiled)
        assert_close(actual, run(module, x, grad_y), REORDERED)


@each_largest
def test_autocast_to_16_bits_keeps_the_gradients_dtypes(case, device):
    module = build(case, device, torch.float32)
    x, grad_y = inputs(case, module, BATCH)
    expected = run_ref(case.row.layer_ref, module, x, grad_y)

    def forward(x):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return module(x)

    actual = run(module, x, grad_y, forward=forward)
    assert {p.grad.dtype for p in used_parameters(module).values()} == {torch.float32}
    assert_close(actual, expected, rounding_bound(case, x, torch.bfloat16))


@every_case
def test_copies_are_the_same_layer(case, device):
    module = build(case, device)
    x, _ = inputs(case, module, BATCH)
    state = module.state_dict()
    restored = case.create(device=device, dtype=torch.float64).train(module.training)
    restored.load_state_dict(state)
    for twin in (restored, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same_state(twin, state)
        assert torch.equal(twin(x), module(x))
        assert repr(twin) == repr(module)
        with torch.no_grad():
            next(twin.parameters()).add_(1)
        assert not torch.equal(next(twin.parameters()), next(module.parameters()))


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_inference_mode_and_a_second_run_give_the_same_bits(case, dtype, device):
    module = build(case, device, dtype)
    x, _ = inputs(case, module, BATCH)
    before = x.clone()
    with torch.inference_mode():
        y = module(x)
    assert torch.equal(y, module(x))
    assert torch.equal(x, before)
