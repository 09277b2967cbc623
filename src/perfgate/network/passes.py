"""Passes over a network, as workloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from perfgate.measure import device_free, memory
from perfgate.measure.timing import Timed
from perfgate.network.case import PASSES, Pass

# Sizes by what they are of, of passes that were measured before.
Peaks = MutableMapping[str, Mapping[str, int]]


@dataclass
class ModulePass:
    """A pass over a module, ready to run over and over: a `perfgate.workload.Workload`.

    Args:
        model: any module that takes one tensor and returns one.
        x: its input. It needs a gradient where the pass asks for it.
        pass_name: which pass is timed.
        loss: from the output to a scalar; the mean square if None.
        target: what `loss` compares with, so that it counts for no pass.
        group: the heading; by default the class and the pass.
        description: what must be equal for two measurements to be comparable.
        beside: makes the companions.
        further: makes facts from the median time in ns, beside the parameters.
        smaller: makes what takes turns in its place, if not itself.
        peaks: what passes over the same took, which does not depend on what of them is timed.
        watched: within it the forms that passes take are noted, by their passes; None where
            there is but one.

    Raises:
        ValueError: there is no such pass.
    """

    model: nn.Module
    x: Tensor
    pass_name: Pass = "forward"
    loss: Callable[[Tensor], Tensor] = lambda y: y.square().mean()
    target: Tensor | None = None
    group: str = ""
    description: Mapping[str, Any] = field(default_factory=dict)
    beside: Callable[[], Mapping[str, Timed]] = dict
    further: Callable[[float], Mapping[str, float]] = lambda median_ns: {}
    smaller: Callable[[], ModulePass] | None = None
    peaks: Peaks = field(default_factory=dict)
    watched: Callable[[], AbstractContextManager[Mapping[str, str]]] | None = None
    _result: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.pass_name not in PASSES:
            raise ValueError(
                f"the pass is {self.pass_name!r}; expected one of {', '.join(PASSES)}: correct it"
            )
        self.group = self.group or f"{type(self.model).__name__} {self.pass_name}"
        if self.x.is_floating_point():
            self.x.requires_grad_(self.pass_name == "backward_with_input_grad")

    def describe(self) -> dict[str, Any]:
        return {**self._work(), "pass": self.pass_name}

    def _work(self) -> Mapping[str, Any]:
        return self.description or {
            "implementation": type(self.model).__name__,
            "shape": list(self.x.shape),
            "dtype": str(self.x.dtype).removeprefix("torch."),
            "parameters": self.parameter_counts()[0],
        }

    def in_turns(self) -> ModulePass:
        return self if self.smaller is None else self.smaller()

    def companions(self) -> Mapping[str, Timed]:
        return self.beside()

    def peak_bytes(self) -> Mapping[str, int]:
        # How much the reference multiplies depends on the pass, and what passes take does not.
        work = {name: value for name, value in self._work().items() if name != "reference_flops"}
        key = repr((work, self.x.requires_grad, self.x.device))
        if key not in self.peaks:
            self.peaks[key] = self.measure_memory()
        return self.peaks[key]

    def facts(self, median_ns: float) -> dict[str, Any]:
        parameters, trainable = self.parameter_counts()
        return {
            "parameters": parameters,
            "trainable_parameters": trainable,
            **self.further(median_ns),
            **self._forms(),
        }

    def _forms(self) -> dict[str, Mapping[str, str]]:
        """Those of one more run; the replay of a graph takes none anew."""
        if self.watched is None:
            return {}
        self.prepare()
        with self.watched() as found:
            self.run()
        self.release()
        return {"forms": found} if found else {}

    def forward(self) -> Tensor:
        y: Tensor = self.model(self.x)
        return y

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
        fixed = [self.x] if self.target is None else [self.x, self.target]
        return [*self.model.parameters(), *self.model.buffers(), *fixed]

    def passes(self) -> device_free.Passes:
        """What `measure_memory` runs, to be followed without a device."""
        return device_free.Passes(
            self.forward, lambda y: self.loss(y).backward(), self.lives_anyway()
        )

    def measure_memory(self) -> dict[str, int]:
        """Peaks of forward and backward, and the bytes saved in between."""
        self.release()
        # At first use libraries take their workspaces, and kernels are compiled and proven.
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
