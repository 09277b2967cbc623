"""What an implementation states: `Variant` is what others ask, `Spec` is a KAN layer as data."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from kan_impls.basis.base import Basis
from kan_impls.model import KAN
from kan_impls.published import Stored, axes_of

Bound = Literal["product", "stream"]

REFERENCE_WIDTHS = (1000, 1000, 1)


@dataclass(frozen=True)
class Variant:
    """One implementation: how to build it, and what a measurement must know of it.

    Args:
        name: what users call it.
        formula: the mathematics, in one line.
        paper: where it comes from.
        layer: `layer(in_features, out_features, **config)` builds one layer.
        model: `model(widths, **config)` builds a network.
        functions_per_input: from the config to the number of functions that each input
            passes through, base branch included; an affine layer has 1. With M rows, N
            outputs and I inputs a layer is a product of M x (I * functions) by N.
        reference_widths: widths of the network of about 10M parameters that is compared.
        reference_config: options of that network where they differ from the defaults.
        bound: what its time is made of, a matrix `product` or an element-wise `stream`;
            the interleaved reference is of the same kind.
        options: names of what `config` may hold; those of the signature of `layer` if None.
        size: the option that the number of functions grows with; None if there is none.
        is_fused: whether nothing of the basis outlives its block.
        watched: within it the forms that passes take are noted, by their passes; None where
            there is but one.
    """

    name: str
    formula: str
    paper: str
    layer: Callable[..., nn.Module]
    model: Callable[..., nn.Module]
    functions_per_input: Callable[[Mapping[str, Any]], int]
    reference_widths: Sequence[int] = REFERENCE_WIDTHS
    reference_config: Mapping[str, Any] = field(default_factory=dict)
    bound: Bound = "product"
    options: Sequence[str] | None = None
    size: str | None = None
    is_fused: bool = False
    watched: Callable[[], AbstractContextManager[Mapping[str, str]]] | None = None

    def option_names(self) -> Sequence[str]:
        """What `config` may hold."""
        if self.options is not None:
            return self.options
        return list(inspect.signature(self.layer).parameters)[2:]  # after the two sizes


# What every layer takes besides the options of its variant.
COMMON = ("device", "dtype")


@dataclass(frozen=True)
class Spec:
    """All that a KAN layer states. Functions are those of a module, so that layers can be pickled.

    Args:
        formula, paper: the mathematics in one line, and where it comes from.
        basis: makes the basis from those of the options that it names.
        weight: the weights of the basis, in the fused form `"k i o"` with k their functions.
        init: draws the tensors of a layer anew.
        options: names and defaults. One whose default is an integer must be positive, and one
            whose default is a pair must be an interval.
        groups: the option that says how many groups of inputs, axis `s`, share parameters; where
            it does not divide the inputs, their greatest common divisor.
        size: the option that growth varies; None if there is none.
        base, scale, bias: the weights of SiLU(x), a factor of all other weights of an edge, and
            a bias; None where the variant has none.
        mask: a factor of `base` and `scale`, in their layouts, that is not trained; None as well.
        params: the parameters of the basis, by their names there. Those that the basis does not
            train are buffers.
        derived: from the options, buffers that published checkpoints have and layers do not need,
            by their keys.
        kept: what published checkpoints have, and the function does not need, by names of its own.
        norm: the option that puts a LayerNorm in front of the basis, but not of SiLU.
        direct: the direct form, if it is another than the basis times the weights.
        fused_basis: the basis that the fused form takes now, if it is another one.
        layer, model: the classes of its layers and networks.
        reference_widths, reference_config, bound: see `Variant`; the bound is that of the direct
            form.
    """

    formula: str
    paper: str
    basis: Callable[..., Basis]
    weight: Stored
    init: Callable[[Any], None]
    options: Mapping[str, Any]
    size: str | None = None
    groups: str = ""
    base: Stored | None = None
    scale: Stored | None = None
    bias: Stored | None = None
    mask: Stored | None = None
    params: Mapping[str, Stored] = field(default_factory=dict)
    derived: Callable[[Mapping[str, Any]], dict[str, Tensor]] | None = None
    kept: Mapping[str, Stored] = field(default_factory=dict)
    norm: str = ""
    direct: Callable[[Any, Tensor], Tensor] | None = None
    fused_basis: Callable[[Any], Basis] | None = None
    layer: type[nn.Module] | None = None
    model: type[KAN] = KAN
    reference_widths: Sequence[int] = REFERENCE_WIDTHS
    reference_config: Mapping[str, Any] = field(default_factory=dict)
    bound: Bound = "product"

    def basis_of(self, options: Mapping[str, Any]) -> Basis:
        """The basis that these options, or the defaults of missing ones, make."""
        named = inspect.signature(self.basis).parameters
        return self.basis(**{name: {**self.options, **options}[name] for name in named})

    def stored(self, options: Mapping[str, Any]) -> dict[str, Stored]:
        """What a layer of these options stores, by the names of `Operands`, in the order of its
        parameters."""
        given = {
            "base_weight": self.base,
            "weight": self.weight,
            "scale": self.scale,
            "bias": self.bias,
            "mask": self.mask,
            **self.params,
            **self.kept,
        }
        return {
            name: each
            for name, each in given.items()
            if each is not None and (not each.option or options[each.option])
        }

    def sizes(
        self, options: Mapping[str, Any], basis: Basis, in_features: int, out_features: int
    ) -> dict[str, int]:
        """The sizes of the axes of all tensors, by their letters."""
        sizes = {"i": in_features, "o": out_features}
        if self.groups:
            sizes["s"] = math.gcd(options[self.groups], in_features)
        functions = axes_of(self.weight.fused)[0]
        (letter,) = [axis for axis in functions if not axis.isdigit()]
        sizes[letter] = basis.num_basis
        for axis in functions:
            sizes[letter] //= int(axis) if axis.isdigit() else 1
        for stored, size in zip(self.params.values(), basis.param_sizes, strict=True):
            own = {axis for axes in axes_of(stored.letters) for axis in axes}
            sizes |= {axis: size for axis in own - set(sizes) if not axis.isdigit()}
        return sizes
