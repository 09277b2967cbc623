"""Passes in a precision of their own, and passes that are replays of a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from perfgate.measure.cuda_timing import captured
from perfgate.measure.timing import Timed
from perfgate.network.case import Precision
from perfgate.network.passes import ModulePass


def element_of(precision: Precision | None) -> torch.dtype:
    """The type of a product's operands."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


@contextlib.contextmanager
def products_in(precision: Precision | None) -> Iterator[None]:
    """What torch does with float32 products, as long as this lasts; as it is set if None."""
    if precision is None:
        yield
        return
    newer: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    values = [interface.fp32_precision for interface in newer]
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody set the newer interface, by which torch 2.13 cannot tell it
        older = None
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older)
        else:
            for interface, value in zip(newer, values, strict=True):
                interface.fp32_precision = value


@dataclass
class PrecisePass(ModulePass):
    """A pass whose products have a precision, whatever torch is set to.

    Args:
        precision: see `perfgate.network.case.Case`. The loss is computed in float32.
    """

    precision: Precision | None = None

    def forward(self) -> Tensor:
        # Without autocast's cache: no weight is cast twice, and a graph could not keep it.
        with torch.autocast(
            self.x.device.type,
            torch.bfloat16,
            enabled=self.precision == "bf16",
            cache_enabled=False,
        ):
            y = super().forward()
        return y.float()

    def prepare(self) -> None:
        with products_in(self.precision):
            super().prepare()

    def run(self) -> None:
        with products_in(self.precision):
            super().run()

    def measure_memory(self) -> dict[str, int]:
        with products_in(self.precision):
            return super().measure_memory()


@dataclass
class GraphPass(PrecisePass):
    """A pass that is captured at its first run, and then replayed.

    Raises:
        ValueError: it is not on a CUDA device.
    """

    _replays: Timed | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.x.device.type != "cuda":
            raise ValueError(
                f"the mode is 'graph' and the device {self.x.device}; expected a CUDA device, "
                "which alone has graphs: take mode 'eager', or --device cuda"
            )

    def prepare(self) -> None:
        if self._replays is None:
            eager = Timed(super().run, super().prepare, super().release)
            self._replays = captured(eager, self.x.device)
        self._replays.prepare()

    def run(self) -> None:
        assert self._replays is not None, "prepare comes first"
        self._replays.run()
