"""From what a benchmark hands to `measure` to a workload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perfgate.measure import memory
from perfgate.measure.timing import Timer
from perfgate.network.case import PASSES, Case, Pass
from perfgate.network.passes import ModulePass, Peaks
from perfgate.network.workload import check_memory, pass_of
from perfgate.workload import Workload

EXPECTED = (
    "expected measure(module, x), measure(case, pass_name), measure(function) without arguments, "
    "or a perfgate.workload.Workload"
)


@dataclass
class Function:
    """A call, as a workload: whatever it does is timed."""

    function: Callable[[], object]
    device: torch.device
    group: str = "functions"

    def describe(self) -> dict[str, Any]:
        return {}

    def in_turns(self) -> Function:
        return self

    def prepare(self) -> None:
        pass

    def run(self) -> object:
        return self.function()

    def release(self) -> None:
        pass

    def companions(self) -> dict[str, Any]:
        return {}

    def peak_bytes(self) -> dict[str, int]:
        # At first use it may fill caches and take workspaces, if no other benchmark did.
        self.function()
        peaks = memory.measure_peaks(self.device, self.function, lambda result: None)
        return {"peak_bytes": peaks.forward_peak_bytes}

    def facts(self, median_ns: float) -> dict[str, float]:
        return {}


def workload_from(
    work: object,
    argument: Tensor | Pass | None,
    pass_name: Pass | None,
    beside: Case | None,
    loss: Callable[[Tensor], Tensor] | None,
    device: torch.device,
    peaks: Peaks,
    checks_memory: bool = True,
    timer: Timer | None = None,
) -> Workload:
    """The workload that the arguments of `measure` mean.

    Args:
        work, argument, pass_name, beside, loss: those of `measure`.
        device: where.
        peaks: what passes of the run took so far.
        checks_memory: refuse a case that would not fit.
        timer: what the floor of a case is timed by.

    Raises:
        TypeError, ValueError: they mean none.
        NotEnoughMemoryError: the case would not fit.
    """
    if isinstance(work, Case):
        wanted = argument if pass_name is None else pass_name
        if wanted not in PASSES:
            raise ValueError(
                f"measure got the case {work.name!r} and the pass {wanted!r}; expected one of "
                f"{', '.join(PASSES)}: measure(case, {PASSES[0]!r})"
            )
        if checks_memory:
            check_memory(work, device)
        return pass_of(work, wanted, device, beside, peaks, timer)  # type: ignore[arg-type]
    if isinstance(work, nn.Module):
        if not isinstance(argument, Tensor):
            wanted = argument if argument in PASSES else "backward"
            raise TypeError(
                f"measure got a module and {_named(argument)}; expected its input, a tensor: "
                f"measure(module, x), or measure(module, x, {wanted!r})"
            )
        options = {} if loss is None else {"loss": loss}
        module = work.to(device)
        return ModulePass(module, argument.to(device), pass_name or "forward", **options)  # type: ignore[arg-type]
    if isinstance(work, type):
        raise TypeError(
            f"measure got the class {work.__name__}; expected one of its instances: "
            f"measure({work.__name__}(...), x)"
        )
    if argument is None and pass_name is None and loss is None and beside is None:
        if isinstance(work, Workload):
            return work
        if callable(work):
            return Function(work, device)
    if isinstance(work, Workload):
        raise TypeError("measure got a workload and more; expected measure(workload): it knows all")
    if callable(work):
        raise TypeError(
            "measure got a function and what belongs to a module; expected a call without "
            "arguments: measure(lambda: function(x))"
        )
    raise TypeError(f"measure got {_named(work)} and {_named(argument)}; {EXPECTED}")


def _named(value: object) -> str:
    """A value in a sentence: a tensor by its shape, since its numbers fill lines."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
