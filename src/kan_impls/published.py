"""How a parameter is laid out in published checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Two inverse reorderings, without arithmetic: they serve values and gradients alike.

    A layer whose parameters are not shaped as published has a class attribute `published`:
    published key to `(own name, {name of the layout: Layout})`, the usual layout first.
    """

    to_published: Callable[[Tensor], Tensor]
    from_published: Callable[[Tensor], Tensor]


UNCHANGED = Layout(lambda value: value, lambda value: value)
