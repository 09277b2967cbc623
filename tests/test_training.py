"""Each implementation learns exp(sin(pi x0) + x1^2), the target of the published comparison."""

import math

import pytest
import torch

import kan_impls
from tests.cases import ROWS

# The target runs from exp(-1) to exp(2) = 7.4; an eighth of it lies in the range of the
# perceptron's sigmoid.
SCALE = 1 / 8


def target(x):
    return SCALE * torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)


@pytest.mark.parametrize("name", ROWS)
def test_fits_the_target(name, device):
    generator = torch.Generator().manual_seed(0)
    x, unseen = (2 * torch.rand(n, 2, generator=generator).to(device) - 1 for n in (1000, 500))
    row = ROWS[name]
    model = kan_impls.create_model(name, row.fit_widths, device=device, **row.fit_options)
    model.eval()  # a BatchNorm of the statistics of 1000 rows would be another function of 500
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=250,
        max_eval=400,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimizer.zero_grad()
        error = (model(x) - target(x)).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    expected = target(unseen)
    error = (model(unseen) - expected).square().mean().sqrt() / expected.std()
    assert error.item() <= row.fit_error
