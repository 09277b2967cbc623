"""A pytest plugin that makes the fused layers' product form worse, to see the gate notice.

`PLANT=slow pytest -p planted ...`: a fifth more matrix product in forward and backward.
`PLANT=alloc pytest -p planted ...`: 4 KiB more in forward and backward.
"""

import os

import torch

from kan_impls.fused import product

FAULT = os.environ["PLANT"]


def _waste(x, terms):
    if FAULT == "alloc":
        return torch.empty(1024)
    # A fifth of the layer's own product: as many rows and outputs, a fifth of the depth.
    matrix = terms[0].weight.detach().flatten(0, 1)
    part = matrix[: max(1, matrix.shape[0] // 5)]
    return torch.ones(x.shape[0], part.shape[0]) @ part


def _worse(function, position_of_x):
    def wrapper(*arguments):
        wasted = _waste(arguments[position_of_x], arguments[position_of_x + 1])
        if FAULT == "slow":
            wasted = None  # time only
        result = function(*arguments)
        del wasted  # only now, so that it counts at the peak
        return result

    return wrapper


product.forward = _worse(product.forward, 0)
product.backward = _worse(product.backward, 1)
