"""One benchmark: a case and a pass, measured through pytest-benchmark's fixture."""

from __future__ import annotations

from typing import Any

import torch

from kan_impls.bench.case import Case, Pass
from kan_impls.bench.measure import memory
from kan_impls.bench.measure.floor import measure_floor
from kan_impls.bench.measure.reference import like_kind_reference
from kan_impls.bench.measure.timing import (
    Interleaved,
    SynchronizedTimer,
    median_and_uncertainty,
    rounds_within,
)
from kan_impls.bench.workload import Workload, estimate_bytes

# Runs before the rounds are counted: lazy initialisation, thread pools, the allocator's
# first pages. The memory pass has been one already.
WARMUP_ROUNDS = 2
# One warm-up is enough for what takes this long.
SLOW_SECONDS = 1.0


class NotEnoughMemoryError(Exception):
    """The case needs more memory than is free."""


def check_memory(case: Case, device: torch.device) -> None:
    """Raise NotEnoughMemoryError, with the estimate, if the case would not fit."""
    needed, free = estimate_bytes(case), memory.free_bytes(device)
    if needed > free:
        raise NotEnoughMemoryError(
            f"{case.variant.name} at {case.name} needs an estimated {needed / 1e9:.2f} GB, but "
            f"{free / 1e9:.2f} GB are free on {device}: free memory or use a larger machine"
        )


def run_benchmark(
    benchmark: Any,
    case: Case,
    beside: Case | None,
    pass_name: Pass,
    device: torch.device,
    max_seconds: float,
    min_rounds: int,
) -> None:
    """Measure time and memory of a pass, and describe them in `benchmark.extra_info`.

    Args:
        benchmark: pytest-benchmark's fixture.
        case: what is measured.
        beside: the MLP's case, interleaved as well for the table; None for none.
        pass_name: which pass.
        device: where.
        max_seconds: how much time the rounds of the case itself may take.
        min_rounds: how many rounds there are at least.

    Raises:
        NotEnoughMemoryError: the case would not fit.
    """
    check_memory(case, device)
    workload = Workload(case, pass_name, device)
    if not benchmark.enabled:
        workload.prepare()
        benchmark(workload.run)
        return

    bytes_used = workload.measure_memory()
    reference = like_kind_reference(case, pass_name, device)
    companions = {"ratio": reference}
    if beside is not None and beside != case:
        mlp = Workload(beside, pass_name, device)
        companions["ratio_to_mlp"] = Interleaved(mlp.run, mlp.prepare, mlp.release)
    timer = SynchronizedTimer(device)

    def start_round() -> None:
        workload.release()
        for companion in companions.values():
            companion.time_once(timer)
        workload.prepare()

    own = Interleaved(workload.run, workload.prepare, workload.release)
    for _ in range(WARMUP_ROUNDS):
        for companion in companions.values():
            companion.time_once(timer)
        own.time_once(timer)
        if own.seconds[-1] > SLOW_SECONDS:
            break
    rounds = rounds_within(max_seconds, min_rounds, own.seconds[-1])
    for companion in companions.values():
        companion.seconds.clear()
    benchmark.pedantic(workload.run, setup=start_round, rounds=rounds, iterations=1)
    workload.release()

    seconds = benchmark.stats.stats.data
    parameters, trainable = workload.parameter_counts()
    floor = measure_floor(device, tuple(case.products(pass_name)), case.compulsory_bytes(pass_name))
    median_ns = benchmark.stats.stats.median * 1e9
    info = {
        "measured": {**case.describe(), "pass": pass_name, "reference": case.variant.bound},
        "median_ns": median_ns,
        "memory": bytes_used,
        "parameters": parameters,
        "trainable_parameters": trainable,
        "flops": case.flops(pass_name),
        "floor_product_ns": floor.product_ns,
        "floor_copy_ns": floor.copy_ns,
        "floor_fraction": floor.ns / median_ns,
    }
    if beside == case:
        info["ratio_to_mlp"] = 1.0
    for name, companion in companions.items():
        ratio, uncertainty = median_and_uncertainty(companion.ratios_of(seconds))
        info[name], info[f"{name}_uncertainty"] = ratio, uncertainty
    benchmark.extra_info.update(info)
