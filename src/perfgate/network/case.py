"""What is measured: an implementation at a shape, and the arithmetic that this implies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args

from torch import nn

Precision = Literal["accurate", "tf32", "bf16"]
Mode = Literal["eager", "compiled", "graph"]
Pass = Literal["forward", "backward", "backward_with_input_grad", "training_step"]

# `backward` is that of a network whose input needs no gradient, as in training;
# `training_step` is forward, loss and backward.
PASSES: tuple[Pass, ...] = get_args(Pass)

FLOAT_BYTES = 4


class Product(NamedTuple):
    """A matrix product `(m, k) @ (k, n)`."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n


class Implementation(Protocol):
    """What is asked of an implementation.

    Args:
        name: what reports call it.
        model: `model(widths, device=..., **config)` builds a network.
        functions_per_input: from the config to the number of functions that each input passes
            through; an affine layer has 1. With M rows, N outputs and I inputs a layer is a
            product of M x (I * functions) by N.
        bound: what its time is made of, a matrix `product` or an element-wise `stream`; the
            interleaved reference is of the same kind.

    One that computes a pass in several forms may also have `watched`, see `ModulePass`.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> Callable[..., nn.Module]: ...

    @property
    def functions_per_input(self) -> Callable[[Mapping[str, Any]], int]: ...

    @property
    def bound(self) -> Literal["product", "stream"]: ...


@dataclass(frozen=True)
class Case:
    """An implementation at a shape.

    Args:
        name: what the shape is called.
        variant: the implementation.
        batch: number of rows of the input.
        widths: number of features at the input and after each layer.
        config: options of the implementation.
        backend: the form that the implementation is asked for; its own choice if None.
        precision: of float32 products: `accurate`, `tf32`, or bfloat16 by autocast; as torch is
            set if None.
        mode: `eager`, `compiled` by torch.compile, or replayed as a CUDA `graph`.
    """

    name: str
    variant: Implementation
    batch: int
    widths: Sequence[int]
    config: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None
    precision: Precision | None = None
    mode: Mode = "eager"

    @property
    def options(self) -> dict[str, Any]:
        """What the implementation's model is built with."""
        return {**self.config, **({} if self.backend is None else {"backend": self.backend})}

    @property
    def label(self) -> str:
        """The implementation, and how it is run where that is not the usual way."""
        return " ".join([self.variant.name, *map(str, self._unusual().values())])

    def _unusual(self) -> dict[str, Any]:
        """The fields that say how it is run, but for the usual way: figures that were stored
        before these fields were there go on being comparable."""
        ways = {"backend": self.backend, "precision": self.precision, "mode": self.mode}
        return {name: way for name, way in ways.items() if way not in (None, "eager")}

    def describe(self) -> dict[str, Any]:
        """What must be equal for two measurements to be comparable."""
        return {
            "case": self.name,
            "implementation": self.variant.name,
            "batch": self.batch,
            "widths": list(self.widths),
            "config": dict(self.config),
            **self._unusual(),
        }

    def products(self, pass_name: Pass) -> list[Product]:
        """The matrix products that the mathematics asks of a pass, layer by layer."""
        functions = self.variant.functions_per_input(self.config)
        passes = {"training_step": ("forward", "backward")}.get(pass_name, (pass_name,))
        products = []
        for part in passes:
            for index, (width_in, width_out) in enumerate(itertools.pairwise(self.widths)):
                m, k, n = self.batch, functions * width_in, width_out
                if part == "forward":
                    products.append(Product(m, k, n))
                    continue
                products.append(Product(k, m, n))  # gradient of the weights
                if index > 0 or part == "backward_with_input_grad":
                    products.append(Product(m, n, k))  # gradient of the basis
        return products

    def flops(self, pass_name: Pass) -> int:
        """Floating-point operations of the products of a pass."""
        return sum(product.flops for product in self.products(pass_name))

    def compulsory_bytes(self, pass_name: Pass) -> int:
        """Bytes that a pass must at least move: a layer's weights once for every product
        with them, and its input and output (twice in a training step)."""
        # A product of M rows takes 2 M operations for each weight.
        total = self.flops(pass_name) // (2 * self.batch)
        times = 2 if pass_name == "training_step" else 1
        for width_in, width_out in itertools.pairwise(self.widths):
            total += times * self.batch * (width_in + width_out)
        return total * FLOAT_BYTES
