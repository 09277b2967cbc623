"""Time and memory of each pass; `pytest --benchmark-only` measures them."""

import pytest
import torch
from my_layer import MyLayer


@pytest.mark.parametrize("pass_name", ["forward", "training_step"])
def test_layer(measure, pass_name):
    torch.manual_seed(0)
    measure(MyLayer(256, 256), torch.rand(64, 256), pass_name)
