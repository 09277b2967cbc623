"""Memory and costs of a pass without a device, and without allocating any.

Operators run on fake tensors, which have a shape, a device and no memory; the storage of every
result is followed until nothing refers to it, and what each call costs is summed
(`perfgate.measure.costs`). The figures are the same on every machine, and a case may be
larger than any.

What is seen are the tensors that operators return, and no scratch that a kernel takes inside an
operator: `ModulePass.measure_memory()` on a CPU finds the same bytes and that scratch, a few
kilobytes (tests/perfgate/test_device_free.py says which).
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from perfgate.measure.costs import Cost, CostCounter, Formula
from perfgate.measure.saved import SavedStorages


class Passes(NamedTuple):
    """A network with its data, ready to run.

    Args:
        forward: returns what `backward` takes.
        backward: the backward pass from the forward's result.
        not_counted: tensors that live anyway, such as parameters and the input: keeping them for
            the backward pass costs nothing.
    """

    forward: Callable[[], Any]
    backward: Callable[[Any], None]
    not_counted: Iterable[Tensor] = ()


class PassBytes(NamedTuple):
    """Bytes above the level before the forward pass, and those that forward keeps for backward."""

    forward_peak_bytes: int
    backward_peak_bytes: int
    saved_bytes: int


class PassFigures(NamedTuple):
    """All that is known of a forward and a backward pass without a device."""

    bytes: PassBytes
    forward: Cost
    backward: Cost

    def by_kind(self) -> dict[str, int]:
        """Figures by name: `forward_operators`, ..., `backward_bytes_written`, and the bytes."""
        costs = {"forward": self.forward, "backward": self.backward}
        flat = {f"{name}_{kind}": n for name, c in costs.items() for kind, n in c._asdict().items()}
        return {**self.bytes._asdict(), **flat}


class TooManyOperatorsError(Exception):
    """The passes run more operators than allowed."""


def track_passes(
    build: Callable[[], Passes],
    max_operators: int | None = None,
    declared: Mapping[str, Formula] = MappingProxyType({}),
) -> PassFigures:
    """Run forward and backward once on fake tensors; follow their storages, and sum their costs.

    Args:
        build: makes the network and its data on the CPU device; called where all tensors are fake.
        max_operators: how many operators may run, building included; None for any number.
        declared: what opaque operators cost, see `CostCounter`.

    Raises:
        UndeclaredCostError: an opaque operator runs whose cost is not declared.
        TooManyOperatorsError: more of them would run, as in a layer that takes a large case in
            small blocks.
    """
    # An operator that has no fake would run on real memory: an error instead.
    counter = CostCounter(declared)
    with _following(max_operators, allow_fallback_kernels=False) as live:
        passes = build()
        live.counter = counter
        start = live.begin_peak()
        saved = SavedStorages(passes.not_counted)
        with saved.watching():
            result = passes.forward()
        forward_peak, forward, kept = live.peak - start, counter.take(), saved.nbytes()
        live.begin_peak()
        passes.backward(result)
        found = PassBytes(forward_peak, live.peak - start, kept)
        return PassFigures(found, forward, counter.take())


def estimate_peak_bytes(build_and_run: Callable[[], object]) -> int:
    """The peak of all tensors that `build_and_run` makes, without allocating any.

    Args:
        build_and_run: builds a model and runs its passes on the CPU device.
    """
    with _following() as live:
        build_and_run()
    return live.peak


@contextmanager
def _following(
    max_operators: int | None = None, allow_fallback_kernels: bool = True
) -> Iterator[_LiveBytes]:
    """All tensors made in the block are fake, and followed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    # When a cycle of references is found depends on all that the process did before; so that the
    # bytes do not, such a cycle lives on.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        fake_mode = FakeTensorMode(allow_fallback_kernels=allow_fallback_kernels)
        with fake_mode, _LiveBytes(max_operators) as live:
            yield live
    finally:
        if was_enabled:
            gc.enable()


class _LiveBytes(TorchDispatchMode):
    """Follows the storages of all results of operators until they are collected; where it has a
    counter, sums costs as well."""

    def __init__(self, max_operators: int | None) -> None:
        super().__init__()
        self.counter: CostCounter | None = None
        self.level = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._max_operators = max_operators
        self._operators = 0

    def begin_peak(self) -> int:
        """Forget the peak up to now; returns the level."""
        self.peak = self.level
        return self.level

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:  # every other call, a third of the time
            return args[0].fake_device
        kwargs = kwargs or {}
        self._count()
        target = _written_argument(func)
        if target is not None:
            position, name = target
            written = kwargs[name] if name in kwargs else args[position]
            # Not where there is nothing yet, which `out=` would enlarge, nor a single number,
            # whose value a fake tensor may know.
            if written.numel() > 1:
                return self._counted(func, args, kwargs, written)
        result = func(*args, **kwargs)
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return self._counted(func, args, kwargs, result)

    def _counted(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        if self.counter is not None:
            self.counter.add(func, args, kwargs, result)
        return result

    def _count(self) -> None:
        self._operators += 1
        if self._max_operators is not None and self._operators > self._max_operators:
            raise TooManyOperatorsError(
                f"the passes run more than {self._max_operators:,} operators; expected at most so "
                "many, to be done in seconds: choose a case that takes fewer blocks"
            )

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self._sizes:
            weakref.finalize(storage, self._release, key)
        self.level += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self.peak = max(self.peak, self.level)

    def _release(self, key: int) -> None:
        self.level -= self._sizes.pop(key)


@cache
def _written_argument(func: Any) -> tuple[int, str] | None:
    """Position and name of the argument that an operator writes to and returns; None if it does
    neither.

    Such an operator makes no storage, and passing over it saves most of the time that a layer of
    many blocks takes.
    """
    aliases = [returned.alias_info for returned in func._schema.returns]
    if torch.Tag.inplace_view in func.tags or len(aliases) != 1 or aliases[0] is None:
        return None
    for position, argument in enumerate(func._schema.arguments):
        alias = argument.alias_info
        if alias is not None and alias.is_write and alias.before_set == aliases[0].before_set:
            return position, argument.name
    return None
