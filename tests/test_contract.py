"""The contract of every implementation, and what only our own promise beyond it.

What differs between implementations is data, in the rows of cases.py.
"""

import pytest
import torch
from torch._functorch import config as functorch_config

import kan_impls
from kan_impls import registry
from kan_impls.contract import habits, numerics
from kan_impls.contract.clauses import CLAUSES
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
    rounding_bound,
    run,
    run_ref,
    subject_of,
)

BATCH = 9

every_case = pytest.mark.parametrize("case", cases(), ids=str)
each_once = pytest.mark.parametrize("case", first_cases(), ids=str)

# Relative errors in 16 bits mean little where there are few outputs.
OF_THE_LARGEST = (numerics.bfloat16_agrees, habits.autocast_keeps_dtypes)
# What takes long, or does not depend on the configuration.
ONCE = (
    numerics.derivatives_are_finite_differences,
    numerics.gradients_add_up_over_rows,
    numerics.any_leading_shape_is_a_batch,
    numerics.strides_do_not_matter,
    numerics.is_finite_far_outside,
    habits.unwanted_gradients_change_nothing,
    habits.forward_mode,
    habits.trace_is_the_layer,
    habits.compiles_for_any_batch,
    habits.exports_for_any_batch,
)


def cases_of(clause):
    if clause in OF_THE_LARGEST:
        return largest_cases()
    return first_cases() if clause in ONCE else cases()


CONTRACT = [(case, clause) for clause in CLAUSES for case in cases_of(clause)]


@pytest.mark.parametrize(
    ("case", "clause"), CONTRACT, ids=[f"{case}-{clause.name}" for case, clause in CONTRACT]
)
def test_contract(case, clause, device):
    clause.check(subject_of(case), device)


@pytest.mark.parametrize("name", [variant.name for variant in registry.BUILT_IN])
def test_has_a_row(name):
    assert name in ROWS, f"{name} is registered without an oracle: add a row to tests/cases.py"


@every_case
@pytest.mark.parametrize("batch", [1, BATCH])
def test_output_and_all_gradients_are_those_of_the_oracle(case, batch, device):
    module = build(case, device)
    x, grad_y = inputs(case, module, batch)
    expected = run_ref(case.row.layer_ref, module, x, grad_y)
    assert_close(run(module, x, grad_y), expected, FLOAT64)


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
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_far_outside_the_grid(case, dtype, scale, device):
    module = build(case, device, dtype)
    x, grad_y = inputs(case, module, BATCH, scale=scale)
    expected = run_ref(case.row.layer_ref, module, x, grad_y)
    norms = norms_of_terms(case.row.layer_ref, module, x, grad_y)
    # float64 rounds an angle of 1e5 to 1e-11: no more than FLOAT64 allows.
    assert_close(run(module, x, grad_y), expected, rounding_bound(case, x, dtype), norms)


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
