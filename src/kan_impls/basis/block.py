"""Evaluating a basis a block of functions at a time, for products that never hold all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """Some consecutive functions of a basis at some points.

    Args:
        functions: which ones.
        values: shape `(functions, *x.shape)`.
        slopes: their derivatives, where the basis does not have them from the values.
    """

    functions: slice
    values: Tensor
    slopes: Tensor | None = None


class Scratch:
    """Memory for one tensor at a time, taken once: fresh pages cost more than filling them."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._views: dict[tuple[object, ...], Tensor] = {}

    def empty(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised contiguous tensor on the device of `like`, and of its dtype if none
        is given; it is valid until the next call."""
        key = (*shape, dtype or like.dtype)
        if key not in self._views:
            self._views[key] = self._view(like, shape, dtype or like.dtype)
        return self._views[key]

    def _view(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        if self._memory is None or self._memory.numel() < size:
            self._views.clear()
            self._memory = torch.empty(size, dtype=torch.uint8, device=like.device)
        return self._memory[:size].view(dtype).view(shape)


class BlockBasis(Protocol):
    """What a product needs of a basis.

    x has the shape `(in_features, rows)`, in float32 or float64: in columns the values of a
    function are one contiguous matrix, and those of a block one contiguous operand. What can be
    computed of x alone is prepared once, for all inputs; the functions follow for some of them.
    """

    @property
    def num_basis(self) -> int:
        """Number of functions."""
        ...

    @property
    def elements_per_input(self) -> int:
        """Elements, of x's dtype, that evaluation holds at most for one element of x,
        derivatives included."""
        ...

    def of_inputs(self, inputs: slice) -> BlockBasis:
        """The basis of some of the input features."""
        ...

    def value(self, x: Tensor) -> Tensor:
        """Values by formulas that autograd can differentiate, any number of times:
        shape `(..., in_features)` to `(..., in_features, num_basis)`."""
        ...

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        """What `blocks` needs of x, each of the shape of x."""
        ...

    def blocks(
        self, prepared: Sequence[Tensor], scratch: Scratch, with_slopes: bool = False
    ) -> Iterator[Block]:
        """Yield the values, block by block, in buffers that are reused, of `scratch` or not."""
        ...

    def add_input_grad(self, grad_x: Tensor, block: Block, slots: slice, grad_phi: Tensor) -> None:
        """Add what some functions contribute to the gradient of x, in place.

        Args:
            grad_x: shape of x.
            block: the block that holds the functions, made with `with_slopes`.
            slots: their positions in the block.
            grad_phi: the gradients with respect to their values, shape `(slots, in_features,
                rows)`, or `(slots, in_features, 1)` where it is the same for all rows.
        """
        ...


def add_slopes(
    grad_x: Tensor, block: Block, slots: slice, grad_phi: Tensor, scale: float = 1
) -> None:
    """`BlockBasis.add_input_grad` of a basis whose derivatives are `scale * block.slopes`.

    Each slope is used once: the products take its memory.
    """
    assert block.slopes is not None
    grad_x.add_(block.slopes[slots].mul_(grad_phi).sum(0), alpha=scale)
