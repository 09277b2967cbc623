"""A network with its data, and the passes over it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perfgate.measure import device_free, memory
from perfgate.measure.allocator import return_freed_memory
from perfgate.measure.costs import Formula
from perfgate.measure.timing import Timed
from perfgate.network.case import Case, Pass
from perfgate.network.floor import measure_floor
from perfgate.network.reference import STREAM_BYTES, like_kind_reference, rows_within
from perfgate.workload import NotEnoughMemoryError

# What passes of a case, with or without the input's gradient, take on a device.
_peaks: dict[str, dict[str, int]] = {}


class NetworkPass:
    """A case on a device, ready to run one pass over and over: a `perfgate.workload.Workload`.

    The input is uniform in [-1, 1]; the target is `exp(sin(pi x0) + x1**2)`, of every
    output; the loss is the mean squared error.

    Args:
        case: the network and the shape.
        pass_name: which pass is timed.
        device: where.
        beside: the case that is shown beside it, as the figure `ratio_to_mlp`; None for none.
    """

    def __init__(
        self, case: Case, pass_name: Pass, device: torch.device, beside: Case | None = None
    ) -> None:
        torch.manual_seed(0)
        self.case, self.pass_name, self.device, self.beside = case, pass_name, device, beside
        self.model: nn.Module = case.variant.model(case.widths, device=device, **case.config)
        x = torch.rand(case.batch, case.widths[0], device=device) * 2 - 1
        self.target = target_of(x).expand(-1, case.widths[-1])
        self.x = x.requires_grad_(pass_name == "backward_with_input_grad")
        self._result: Any = None

    @property
    def group(self) -> str:
        return f"{self.case.name} {self.pass_name}"

    def describe(self) -> dict[str, Any]:
        return {
            **self.case.describe(), "pass": self.pass_name, "reference": self.case.variant.bound,
            "reference_flops": self.case.flops(self.pass_name),
        }  # fmt: skip

    def in_turns(self) -> NetworkPass:
        """The pass over as many rows as the like-kind reference takes, where every row streams as
        much: gigabytes of new pages are the noisiest of all, and cost seconds."""
        case = self.case
        if case.variant.bound != "stream":
            return self
        largest = max(case.products("forward"), key=lambda product: product.flops)
        rows = rows_within(STREAM_BYTES, largest)
        if rows == case.batch:
            return self
        return NetworkPass(replace(case, batch=rows), self.pass_name, self.device)

    def companions(self) -> dict[str, Timed]:
        companions = {"ratio": like_kind_reference(self.case, self.pass_name, self.device)}
        if self.beside is not None and self.beside != self.case:
            other = NetworkPass(self.beside, self.pass_name, self.device)
            companions["ratio_to_mlp"] = Timed(other.run, other.prepare, other.release)
        return companions

    def peak_bytes(self) -> dict[str, int]:
        """The peaks, which do not depend on what of the passes is timed."""
        key = repr((self.case.describe(), self.x.requires_grad, self.device))
        if key not in _peaks:
            _peaks[key] = self.measure_memory()
        return _peaks[key]

    def facts(self, median_ns: float) -> dict[str, float]:
        products, num_bytes = (
            self.case.products(self.pass_name),
            self.case.compulsory_bytes(self.pass_name),
        )
        floor = measure_floor(self.device, tuple(products), num_bytes)
        parameters, trainable = self.parameter_counts()
        return {
            "parameters": parameters,
            "trainable_parameters": trainable,
            "flops": self.case.flops(self.pass_name),
            "floor_product_ns": floor.product_ns,
            "floor_copy_ns": floor.copy_ns,
            "floor_fraction": floor.ns / median_ns,
        }

    def forward(self) -> Tensor:
        return self.model(self.x)

    def loss(self, y: Tensor) -> Tensor:
        return F.mse_loss(y, self.target)

    def prepare(self) -> None:
        """Untimed: drop what the last run left, and bring a backward pass to its start."""
        self.release()
        if self.pass_name.startswith("backward"):
            self._result = self.loss(self.forward())

    def run(self) -> None:
        """The timed pass."""
        if self.pass_name == "forward":
            self._result = self.forward()
        elif self.pass_name == "training_step":
            self.loss(self.forward()).backward()
        else:
            self._result.backward()

    def release(self) -> None:
        """Let go of gradients and graph."""
        self._result = None
        self.model.zero_grad(set_to_none=True)
        self.x.grad = None

    def parameter_counts(self) -> tuple[int, int]:
        """All parameters, and those that are trained."""
        sizes = [(p.numel(), p.requires_grad) for p in self.model.parameters()]
        return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)

    def lives_anyway(self) -> list[Tensor]:
        """Tensors that live on whether or not a pass keeps them."""
        return [*self.model.parameters(), *self.model.buffers(), self.x, self.target]

    def passes(self) -> device_free.Passes:
        """What `measure_memory` runs, to be followed without a device."""
        return device_free.Passes(
            self.forward, lambda y: self.loss(y).backward(), self.lives_anyway()
        )

    def measure_memory(self) -> dict[str, int]:
        """Peaks of forward and backward, and the bytes saved in between."""
        self.release()
        if self.x.device.type == "cuda":  # the libraries take their workspaces at first use
            self.loss(self.forward()).backward()
            self.release()
        peaks = memory.measure_peaks(self.x.device, self.forward, lambda y: self.loss(y).backward())
        self.release()
        saved = memory.measure_saved_bytes(self.forward, self.lives_anyway())
        return {
            "forward_peak_bytes": peaks.forward_peak_bytes,
            "backward_peak_bytes": peaks.backward_peak_bytes,
            "saved_bytes": saved,
        }


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
        workload = NetworkPass(case, "backward_with_input_grad", torch.device("cpu"))
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
    """`NetworkPass.measure_memory()` without a device, kernels' scratch left out, and what the
    operators cost.

    Args:
        case, pass_name: as of `NetworkPass`.
        max_operators, declared: see `track_passes`.

    Raises:
        TooManyOperatorsError: more operators would run.
        UndeclaredCostError: an opaque operator runs whose cost is not declared.
    """
    return device_free.track_passes(
        lambda: NetworkPass(case, pass_name, torch.device("cpu")).passes(),
        max_operators,
        declared,
    )
