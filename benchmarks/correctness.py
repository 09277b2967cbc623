"""Whether what is measured is right: layers from elsewhere by their own definition in float64."""

import torch

from kan_impls.contract.passes import errors, run
from kan_impls.contract.subject import in_float64, usual_bound
from perfgate.network.case import Case

# All passes of an implementation are those of one network.
_found: dict[str, dict[str, float]] = {}


def float64_errors(case: Case, device: torch.device) -> dict[str, float]:
    """The relative errors of output and gradients, by what they are of."""
    key = f"{case.describe()} {device}"
    if key not in _found:
        torch.manual_seed(0)
        model = case.variant.model(case.widths, device=device, **case.options)
        x = torch.rand(case.batch, case.widths[0], device=device) * 2 - 1
        grad_y = torch.full((case.batch, case.widths[-1]), 1 / case.batch, device=device)
        _found[key] = errors(run(model, x, grad_y), in_float64(model, x, grad_y))
    return _found[key]


def check(case: Case, device: torch.device) -> float:
    """The largest error.

    Raises:
        AssertionError: it is more than rounding explains.
    """
    found = float64_errors(case, device)
    bound = usual_bound(torch.float32, torch.empty(0))
    worst = max(found, key=lambda name: found[name])
    assert found[worst] <= bound, (
        f"{worst} is {found[worst]:.1e} from what the layer itself gives in float64; expected at "
        f"most {bound:.1e}"
    )
    return found[worst]
