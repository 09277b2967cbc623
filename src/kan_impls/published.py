"""How tensors are laid out, in a layer and in published checkpoints, written in letters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Two inverse reorderings, without arithmetic: they serve values and gradients alike.

    A layer whose tensors are not named or shaped as published has an attribute `published`:
    published key to `(own name, {name of the layout: Layout})`, the usual layout first.
    """

    to_published: Callable[[Tensor], Tensor]
    from_published: Callable[[Tensor], Tensor]

    @classmethod
    def between(cls, own: str, published: str, sizes: Mapping[str, int], shape: str = "") -> Layout:
        """Between two layouts in letters, see `Stored`."""
        there = Rearrangement.between(own, published, sizes)
        back = Rearrangement.between(published, own, sizes)
        if shape:
            there = replace(there, merged=tuple(shape_of(shape, sizes)), is_nothing=False)
            back = replace(back, is_nothing=False)
        return cls(there, back)


UNCHANGED = Layout(lambda value: value, lambda value: value)


@dataclass(frozen=True)
class Stored:
    """A tensor of a layer: its name and layout, published and own.

    Letters name axes: `i` inputs, `o` outputs, any other what belongs to the basis. A digit is an
    axis of this length, and axes in brackets are one, as in `"o (i g)"`.

    Args:
        key: published key.
        letters: published layout. The direct form stores the tensor so.
        fused: layout of the fused form, see `kan_impls.fused.operands.Operands`.
        name: name in the fused form, the key if empty.
        also: further published layouts, by their names; that of `letters` is `"out_in"`.
        option: the boolean option that decides whether there is one; always if empty.
        shape: published shape in letters, where it does not show in which order the numbers are.
        frozen: whether a trained one, or one that is kept, starts without a gradient.
    """

    key: str
    letters: str
    fused: str
    name: str = ""
    also: Mapping[str, str] = field(default_factory=dict)
    option: str = ""
    shape: str = ""
    frozen: bool = False

    def named(self, is_fused: bool) -> str:
        """The name in a form of the layer."""
        return (self.name if is_fused and self.name else self.key).replace(".", "_")

    def own(self, is_fused: bool) -> str:
        """The layout in a form of the layer."""
        return self.fused if is_fused else self.letters

    def layouts(self, is_fused: bool, sizes: Mapping[str, int]) -> dict[str, Layout]:
        """The published layouts, by name."""
        named = {"out_in": self.letters, **self.also}
        own = self.own(is_fused)
        return {
            name: Layout.between(own, letters, sizes, self.shape) for name, letters in named.items()
        }


def axes_of(letters: str) -> list[list[str]]:
    """The axes of each dimension: `"o (i g)"` to `[["o"], ["i", "g"]]`."""
    return [group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", letters)]


def shape_of(letters: str, sizes: Mapping[str, int]) -> list[int]:
    """The shape of a tensor in a layout."""
    shape = []
    for axes in axes_of(letters):
        size = 1
        for axis in axes:
            size *= int(axis) if axis.isdigit() else sizes[axis]
        shape.append(size)
    return shape


@dataclass(frozen=True)
class Rearrangement:
    """From one layout to another, worked out beforehand; a view where no axes are merged."""

    split: tuple[int, ...]
    order: tuple[int, ...]
    merged: tuple[int, ...]
    is_nothing: bool

    @classmethod
    def between(cls, source: str, target: str, sizes: Mapping[str, int]) -> Rearrangement:
        own, wanted = (
            [axis for axes in axes_of(letters) for axis in axes if axis != "1"]
            for letters in (source, target)
        )
        return cls(
            tuple(shape_of(" ".join(own), sizes)),
            tuple(own.index(axis) for axis in wanted),
            tuple(shape_of(target, sizes)),
            source == target,
        )

    def __call__(self, value: Tensor) -> Tensor:
        if self.is_nothing:
            return value
        return value.reshape(self.split).permute(self.order).reshape(self.merged)
