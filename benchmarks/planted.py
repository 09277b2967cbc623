"""Makes the fused layers' product form worse where it is imported, to see the gate notice.

As a pytest plugin it does so in one process: `PLANT=alloc pytest -p planted ...`. Where two
revisions take turns it must be a part of one of them: append `import planted` to
`src/kan_impls/fused/product.py`.

`PLANT=slow`: a fifth longer in forward and backward (`slow:0.1`: a tenth).
`PLANT=alloc`: 4 KiB more in forward and backward.
"""

import os
import time

import torch

from kan_impls.fused import product

FAULT, _, FRACTION = os.environ["PLANT"].partition(":")


def _slower(function):
    """Takes longer by a fraction of what it took, whatever that was."""

    def wrapper(*arguments):
        start = time.perf_counter()
        result = function(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        end = time.perf_counter()
        while time.perf_counter() < end + float(FRACTION or 0.2) * (end - start):
            pass
        return result

    return wrapper


def _larger(function):
    def wrapper(*arguments):
        wasted = torch.empty(1024)
        result = function(*arguments)
        del wasted  # only now, so that it counts at the peak
        return result

    return wrapper


_worse = {"slow": _slower, "alloc": _larger}[FAULT]
product.forward = _worse(product.forward)
product.backward = _worse(product.backward)
