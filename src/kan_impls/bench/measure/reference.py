"""The interleaved reference: plain work of the same kind as what it stands beside."""

from __future__ import annotations

import torch

from kan_impls.bench.case import FLOAT_BYTES, Case, Pass
from kan_impls.bench.measure.timing import Interleaved

# A materialising implementation streams gigabytes; a reference of this size already sees
# the same allocator, page faults and memory bus.
STREAM_BYTES = 256 * 2**20


def like_kind_reference(case: Case, pass_name: Pass, device: torch.device) -> Interleaved:
    """Work of the kind that bounds the implementation, at the size of the case.

    For `product` the pass's own matrix products, for `stream` an element-wise product
    of up to `STREAM_BYTES`, summed. Results are allocated anew in each run, as the
    implementation's are.
    """
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device=device, generator=generator)

    products = case.products(pass_name)
    if case.variant.bound == "stream":
        elements = sum(p.m * p.k * p.n for p in products)
        rows = min(elements, STREAM_BYTES // FLOAT_BYTES) // 1024
        column, row = random(max(1, rows), 1), random(1, 1024)
        return Interleaved(lambda: (column * row).sum())
    operands = [(random(m, k), random(k, n)) for m, k, n in products]
    return Interleaved(lambda: [left @ right for left, right in operands])
