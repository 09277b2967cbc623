"""How time stands to an MLP's at every batch, and in small networks."""

import pytest
from cases import BATCH_SIZES, SMALL, implementations, scaled, variant_called

CASES = BATCH_SIZES | SMALL
# A step with the input's gradient is the first and the last of them.
PASSES = ("forward", "training_step", "backward_with_input_grad")

pytestmark = pytest.mark.batch


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("implementation", implementations())
@pytest.mark.parametrize("name", CASES)
def test_batch(measure, name, implementation, pass_name):
    case = scaled(name, variant_called(implementation), **CASES[name])
    measure(case, pass_name, beside=scaled(name, variant_called("mlp"), **CASES[name]))
