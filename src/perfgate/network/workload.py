"""A case as a workload: model, data, reference and floor; and what it takes without a device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from perfgate.measure import device_free, memory
from perfgate.measure.allocator import return_freed_memory
from perfgate.measure.costs import Formula
from perfgate.measure.cuda_timing import GraphTimer
from perfgate.measure.rounds import REFERENCE
from perfgate.measure.timing import Timed, Timer
from perfgate.network.case import Case, Pass
from perfgate.network.floor import measure_floor
from perfgate.network.passes import ModulePass, Peaks
from perfgate.network.precision import GraphPass, PrecisePass
from perfgate.network.reference import STREAM_BYTES, like_kind_reference, rows_within
from perfgate.workload import NotEnoughMemoryError


def pass_of(
    case: Case,
    pass_name: Pass,
    device: torch.device,
    beside: Case | None = None,
    peaks: Peaks | None = None,
    timer: Timer | None = None,
) -> ModulePass:
    """A pass of a case.

    The input is uniform in [-1, 1]; the target is `exp(sin(pi x0) + x1**2)`, of every
    output; the loss is the mean squared error.

    Args:
        case: the network and the shape.
        pass_name: which pass is timed.
        device: where.
        beside: the case that is shown beside it, by its label; None for none.
        peaks: what other passes of the case took.
        timer: what the floor is timed by; by default the wall clock.

    Raises:
        ValueError: a CUDA graph is asked for on another device, or within that of the timer.
    """
    _refuse_graph_in_graph([case] if beside is None else [case, beside], timer)
    torch.manual_seed(0)
    model = case.variant.model(case.widths, device=device, **case.options)
    if case.mode == "compiled":
        model = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    x = torch.rand(case.batch, case.widths[0], device=device) * 2 - 1
    target = target_of(x).expand(-1, case.widths[-1])
    fewer = _in_few_rows(case)

    def companions() -> dict[str, Timed]:
        found = {REFERENCE: like_kind_reference(case, pass_name, device)}
        if beside is not None and beside != case:
            other = pass_of(beside, pass_name, device)
            found[beside.label] = Timed(other.run, other.prepare, other.release)
        return found

    def facts(median_ns: float) -> dict[str, float]:
        products, num_bytes = case.products(pass_name), case.compulsory_bytes(pass_name)
        floor = measure_floor(device, tuple(products), num_bytes, case.precision, timer)
        return {
            "flops": case.flops(pass_name),
            "floor_product_ns": floor.product_ns,
            "floor_copy_ns": floor.copy_ns,
            "floor_fraction": floor.ns / median_ns,
        }

    kind: Callable[..., ModulePass] = ModulePass
    if case.mode == "graph":
        kind = partial(GraphPass, precision=case.precision)
    elif case.precision is not None:
        kind = partial(PrecisePass, precision=case.precision)
    return kind(
        model,
        x,
        pass_name,
        lambda y: F.mse_loss(y, target),
        target,
        group=f"{case.name} {pass_name}",
        description={
            **case.describe(),
            "reference": case.variant.bound,
            "reference_flops": case.flops(pass_name),
        },
        beside=companions,
        further=facts,
        smaller=None if fewer == case else lambda: pass_of(fewer, pass_name, device),
        peaks={} if peaks is None else peaks,
        watched=getattr(case.variant, "watched", None),
    )


def _refuse_graph_in_graph(cases: Sequence[Case], timer: Timer | None) -> None:
    for case in cases:
        if case.mode == "graph" and isinstance(timer, GraphTimer):
            raise ValueError(
                f"{case.variant.name} at {case.name} came with mode 'graph' and the timer 'graph'; "
                "expected one of them, since CUDA captures no graph within another: take --timer "
                "events, which times the case's replays"
            )


def _in_few_rows(case: Case) -> Case:
    """The case, or as many of its rows as the like-kind reference takes, where every row streams as
    much: gigabytes of new pages are the noisiest of all, and cost seconds."""
    if case.variant.bound != "stream":
        return case
    largest = max(case.products("forward"), key=lambda product: product.flops)
    return replace(case, batch=rows_within(STREAM_BYTES, largest))


def target_of(x: Tensor) -> Tensor:
    """`exp(sin(pi x0) + x1**2)`, shape `(batch, 1)`; x1 is x0 where there is one input."""
    first, second = x[:, 0], x[:, min(1, x.shape[1] - 1)]
    return (math.pi * first).sin().add(second.square()).exp().unsqueeze(1)


class NoEstimateError(Exception):
    """The case does not run on fake tensors; the message says why."""


def estimate_bytes(case: Case) -> int:
    """Memory that the case needs at its peak, parameters included, without running it.

    Raises:
        NoEstimateError: a layer asks for values, which fake tensors do not have, or fails.
    """

    def build_and_run() -> None:
        # Fake tensors know neither graphs nor compiled models, and a backend may know no CPU.
        usual = replace(case, mode="eager", backend=None)
        workload = pass_of(usual, "backward_with_input_grad", torch.device("cpu"))
        workload.prepare()
        workload.run()

    try:
        return device_free.estimate_peak_bytes(build_and_run)
    except Exception as error:  # whatever it is: a fault of the layer shows when it is measured
        reason = str(error).strip().partition("\n")[0]
        raise NoEstimateError(f"{type(error).__name__}: {reason}") from error


_not_estimated: set[str] = set()


def check_memory(case: Case, device: torch.device) -> None:
    """Raise NotEnoughMemoryError, with the estimate, if the case would not fit.

    Of an implementation that has no estimate this is said once, and it is measured all the same.
    """
    return_freed_memory()
    try:
        needed, free = estimate_bytes(case), memory.free_bytes(device)
    except NoEstimateError as error:
        if case.variant.name not in _not_estimated:
            _not_estimated.add(case.variant.name)
            warnings.warn(
                f"{case.variant.name} is measured without an estimate of its memory, because it "
                f"does not run on tensors without values ({error}); a case that does not fit "
                "fails: choose smaller ones if so",
                stacklevel=2,
            )
        return
    if needed > free:
        raise NotEnoughMemoryError(
            f"{case.variant.name} at {case.name} needs an estimated {needed / 1e9:.2f} GB, but "
            f"{free / 1e9:.2f} GB are free on {device}: free memory or use a larger machine"
        )


def device_free_figures(
    case: Case,
    pass_name: Pass,
    max_operators: int | None = None,
    declared: Mapping[str, Formula] = MappingProxyType({}),
) -> device_free.PassFigures:
    """`ModulePass.measure_memory()` without a device, kernels' scratch left out, and what the
    operators cost.

    Args:
        case, pass_name: as of `pass_of`.
        max_operators, declared: see `track_passes`.

    Raises:
        TooManyOperatorsError: more operators would run.
        UndeclaredCostError: an opaque operator runs whose cost is not declared.
    """
    return device_free.track_passes(
        lambda: pass_of(case, pass_name, torch.device("cpu")).passes(),
        max_operators,
        declared,
    )
