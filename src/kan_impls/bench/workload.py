"""A network with its data, and the passes over it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kan_impls.bench.case import Case, Pass
from kan_impls.bench.measure import device_free, memory
from kan_impls.fused import cost


class Workload:
    """A case on a device, ready to run one pass over and over.

    The input is uniform in [-1, 1]; the target is `exp(sin(pi x0) + x1**2)`, of every
    output; the loss is the mean squared error.
    """

    def __init__(self, case: Case, pass_name: Pass, device: torch.device) -> None:
        torch.manual_seed(0)
        self.pass_name = pass_name
        self.model: nn.Module = case.variant.model(case.widths, device=device, **case.config)
        x = torch.rand(case.batch, case.widths[0], device=device) * 2 - 1
        self.target = target_of(x).expand(-1, case.widths[-1])
        self.x = x.requires_grad_(pass_name == "backward_with_input_grad")
        self._result: Any = None

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
        workload = Workload(case, "backward_with_input_grad", torch.device("cpu"))
        workload.prepare()
        workload.run()

    try:
        return device_free.estimate_peak_bytes(build_and_run)
    except Exception as error:  # whatever it is: a fault of the layer shows when it is measured
        reason = str(error).strip().partition("\n")[0]
        raise NoEstimateError(f"{type(error).__name__}: {reason}") from error


def device_free_figures(
    case: Case, pass_name: Pass, max_operators: int | None = None
) -> device_free.PassFigures:
    """`Workload.measure_memory()` without a device, kernels' scratch left out, and what the
    operators cost.

    Args:
        case, pass_name: as of `Workload`.
        max_operators: see `track_passes`.

    Raises:
        TooManyOperatorsError: more operators would run.
        UndeclaredCostError: an opaque operator runs whose cost is not declared.
    """
    return device_free.track_passes(
        lambda: Workload(case, pass_name, torch.device("cpu")).passes(),
        max_operators,
        cost.DECLARED,
    )
