"""What an operator costs, from the shapes of its operands: calls, FLOPs, bytes read and written.

The rules, which make the figures the same on every machine:

- Views and allocations move nothing and are not counted.
- Every operand is read once and every result written once. An operand that is given twice is read
  once, and so are the elements that a broadcast (stride 0) repeats: memory delivers them once, and
  the repeats come from caches or registers.
- An operand that only lends its shape and type, as to `zeros_like`, is not read.
- In place an operand is read and written; what `out=` names is only written, and so is what is
  overwritten without a look, as by `zero_()` or by a product with `beta=0`.
- A matrix product `(m, k) @ (k, n)` counts 2mkn FLOPs. All other work is counted by its bytes,
  which is what bounds it; so is that of a fused operator which torch's own counter does not know.

Where indices pick some elements of an operand, all of it counts: a shape does not tell which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

# Operators whose parts are not seen are those of other namespaces.
TRANSPARENT = ("aten", "prim", "prims")

_ALLOCATIONS = {
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
}

# Their first operand only lends its shape and type.
_FILLED_ANEW = {
    "full_like",
    "new_full",
    "new_ones",
    "new_zeros",
    "ones_like",
    "rand_like",
    "randint_like",
    "randn_like",
    "zeros_like",
}

# In place, and without a look at what was there.
_OVERWRITES = {
    "copy_",
    "zero_",
    "fill_",
    "bernoulli_",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "normal_",
    "random_",
    "uniform_",
}

# Of the form `beta * self + alpha * product`.
_ADD_PRODUCT = {"addmm", "baddbmm", "addbmm", "addmv", "addr"}

# Products that torch's own counter of FLOPs leaves out, from their operands.
_VECTOR_PRODUCTS: dict[Any, Callable[..., int]] = {
    aten.mv: lambda matrix, vector, **_: 2 * matrix.numel(),
    aten.addmv: lambda total, matrix, vector, **_: 2 * matrix.numel(),
    aten.dot: lambda left, right, **_: 2 * left.numel(),
    aten.vdot: lambda left, right, **_: 2 * left.numel(),
    aten.addr: lambda total, left, right, **_: 2 * left.numel() * right.numel(),
    aten.addbmm: lambda total, left, right, **_: 2 * left.numel() * right.shape[2],
}


class Cost(NamedTuple):
    """What operators cost together.

    Args:
        operators: calls that read or write.
        flops: floating-point operations of matrix products.
        bytes_read, bytes_written: traffic between operators and memory.
    """

    operators: int = 0
    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(*map(sum, zip(self, other, strict=True)))


# From an operator's arguments to the fields of its `Cost`.
Formula = Callable[..., tuple[int, int, int, int]]


class UndeclaredCostError(Exception):
    """What an opaque operator costs is not known."""


class CostCounter:
    """Sums what operators cost.

    Args:
        declared: the formulas of opaque operators by name, such as `"kan_impls::basis_product"`.
    """

    def __init__(self, declared: Mapping[str, Formula]) -> None:
        self._declared = declared
        self._total = Cost()

    def take(self) -> Cost:
        """The sum since the last call."""
        total, self._total = self._total, Cost()
        return total

    def add(self, func: Any, args: Iterable[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Count one call.

        Args:
            func: an overload of an operator.
            args, kwargs: what it was called with.
            result: what it returned.

        Raises:
            UndeclaredCostError: the operator is opaque, and no formula of it is declared.
        """
        if func.namespace not in TRANSPARENT:
            # Without any tensor it is no work on data, as the marks of a profiler.
            if any(True for _ in _tensors([*args, *kwargs.values(), result])):
                self._total = self._total.plus(self._cost_of_opaque(func, args, kwargs))
            return
        access = _access(func)
        if access is None:
            return
        read, written = access.operands(args, kwargs, result)
        if not read and not written:  # a view that the schema does not call one
            return
        formula = _flops_of(func)
        flops = 0 if formula is None else formula(*args, **kwargs, out_val=result)
        own = Cost(1, flops, sum(map(touched_bytes, read)), sum(map(touched_bytes, written)))
        self._total = self._total.plus(own)

    def _cost_of_opaque(self, func: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Cost:
        name = func._schema.name
        if name not in self._declared:
            raise UndeclaredCostError(
                f"the operator {name} is opaque and declares no cost; expected a formula of its "
                "operators, FLOPs, bytes read and written: declare one, as "
                "kan_impls.fused.cost does for its operators"
            )
        return Cost(*self._declared[name](*args, **kwargs))


def touched_bytes(tensor: Tensor) -> int:
    """Bytes of the elements that a tensor has in memory, each counted once.

    A broadcast counts what it repeats, and windows that overlap count no more than they span.
    """
    if tensor.is_contiguous():
        return tensor.numel() * tensor.element_size()
    if not tensor.numel():
        return 0
    held = [(n, abs(stride)) for n, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    distinct = math.prod(n for n, stride in held if stride)
    span = 1 + sum((n - 1) * stride for n, stride in held)
    return min(distinct, span) * tensor.element_size()


class _Access(NamedTuple):
    """How an operator uses its arguments, each known by its position and by its name.

    Args:
        written: those that it writes to.
        unread: those that it does not read.
        returns_new: whether it returns a tensor that is none of them.
        adds_product: whether it is `beta * self` plus a product.
    """

    written: frozenset[int | str]
    unread: frozenset[int | str]
    returns_new: bool
    adds_product: bool

    def operands(
        self, args: Iterable[Any], kwargs: Mapping[str, Any], result: Any
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors that are read, and those that are written."""
        unread = self.unread
        if self.adds_product and kwargs.get("beta") == 0:
            unread = unread | {0, "self"}
        read: dict[int, Tensor] = {}
        written: dict[int, Tensor] = {}
        for key, value in itertools.chain(enumerate(args), kwargs.items()):
            for tensor in _tensors(value):
                if key not in unread:
                    read[id(tensor)] = tensor
                if key in self.written:
                    written[id(tensor)] = tensor
        if self.returns_new:
            theirs = {id(tensor.untyped_storage()) for tensor in read.values()}
            results = list(_tensors(result))
            new = [t for t in results if id(t.untyped_storage()) not in theirs]
            if results and not new and not written:
                return [], []
            written |= {id(tensor): tensor for tensor in new}
        return list(read.values()), list(written.values())


@cache
def _access(func: Any) -> _Access | None:
    """None of an operator that neither reads nor writes."""
    name = func._overloadpacket.__name__
    if func.is_view or torch.Tag.inplace_view in func.tags or name in _ALLOCATIONS:
        return None
    written: set[int | str] = set()
    unread: set[int | str] = {0, "self"} if name in _FILLED_ANEW else set()
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        written |= {position, argument.name}
        if argument.is_out or name in _OVERWRITES:
            unread |= {position, argument.name}
    returns_new = any(returned.alias_info is None for returned in func._schema.returns)
    adds_product = name.removesuffix("_") in _ADD_PRODUCT
    return _Access(frozenset(written), frozenset(unread), returns_new, adds_product)


def _tensors(value: Any) -> Iterator[Tensor]:
    """A tensor, or those of a list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


@cache
def _flops_of(func: Any) -> Callable[..., int] | None:
    """From arguments and `out_val` to FLOPs; None of what is no product.

    In place and with `out=` a product costs what it costs elsewhere.
    """
    packet = func._overloadpacket
    packet = getattr(aten, packet.__name__.removesuffix("_"), packet)
    if packet in _VECTOR_PRODUCTS:
        return lambda *args, out_val, **kwargs: _VECTOR_PRODUCTS[packet](*args, **kwargs)
    return flop_registry.get(packet)
