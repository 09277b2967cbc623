"""The one KAN layer: a base branch, and a basis times weights, as its `Spec` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kan_impls.basis.base import Basis
from kan_impls.basis.silu import SILU
from kan_impls.checks import (
    check_dtype,
    check_flag,
    check_input,
    check_interval,
    check_norm,
    check_number,
    check_size,
)
from kan_impls.fused.dispatch import check_backend
from kan_impls.fused.forms import watched
from kan_impls.fused.op import basis_product
from kan_impls.fused.operands import Operands, of_inputs
from kan_impls.published import Layout, Rearrangement, Stored, shape_of
from kan_impls.variant import COMMON, Spec, Variant


class KANLayer(nn.Module):
    """A KAN layer, `y_o = bias_o + sum_i base_io SiLU(x_i) + sum_ik phi_k(x_i) scale_io w_kio`.

    The direct form evaluates the basis, and PyTorch keeps it for the backward pass. Its tensors
    are stored as published. The fused form saves only its input and evaluates the basis again; its
    product takes a workspace of at most `kan_impls.fused.cells.workspace_of(device)`, whatever the
    batch, its CUDA kernels one of at most `kan_impls.fused.kernels.WORKSPACE_BYTES`. Its weights
    are stored function by function, outputs side by side: those of all functions are one matrix.
    `kan_impls.upstream` reads and writes the published layouts. With the same seed both
    forms start as the same function.

    Args:
        spec: the variant.
        is_fused: which form.
        in_features, out_features: sizes of the last dimension of input and output.
        backend: of the fused form, how the product is taken, see `kan_impls.fused.dispatch`.
        options: those of the variant.

    Shapes: `(..., in_features)` to `(..., out_features)`.

    Raises:
        ValueError: a size that is not positive, an interval that is none, or a number that is not
            finite.
        TypeError: an option that the variant does not have, or of another type; or a dtype that
            holds no real floating-point numbers.
    """

    def __init__(
        self,
        spec: Spec,
        is_fused: bool,
        in_features: int,
        out_features: int,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.spec, self.is_fused = spec, is_fused
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.backend = check_backend(backend)
        check_dtype(dtype)
        self.options = _checked(spec.options, options)
        self.basis = spec.basis_of(self.options)
        self._sizes = spec.sizes(self.options, self.basis, in_features, out_features)
        self._stored = spec.stored(self.options)
        self.names = {name: stored.named(is_fused) for name, stored in self._stored.items()}
        # What the direct formula takes, from what the layer stores.
        self._plain: dict[str, Rearrangement] = {}
        for name, stored in self._stored.items():
            self._plain[name] = self._between(stored, _plain_letters(name, stored))
            shape = shape_of(stored.own(is_fused), self._sizes)
            value = torch.empty(shape, device=device, dtype=dtype)
            if name in spec.params and name not in self.basis.trained:
                self.register_buffer(stored.named(is_fused), value)
            else:
                parameter = nn.Parameter(value, requires_grad=not stored.frozen)
                self.register_parameter(stored.named(is_fused), parameter)
        for missing in (spec.base, spec.weight, spec.scale, spec.bias):
            if missing is not None and missing not in self._stored.values():
                self.register_parameter(missing.named(is_fused), None)
        self.layernorm: nn.LayerNorm | None = None
        if spec.norm and self.options[spec.norm]:
            check_norm(spec.norm, in_features)
            self.layernorm = nn.LayerNorm(in_features, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the tensors anew."""
        with torch.no_grad():
            self.spec.init(self)

    def stored(self, name: str) -> Tensor | None:
        """A tensor by its name in `Operands` or in the basis, in the layer's own layout."""
        own = self.names.get(name)
        return None if own is None else getattr(self, own)

    def as_published(self, name: str) -> Tensor:
        """The same, in the published layout: a view, where that merges no axes."""
        stored = self._stored[name]
        return self._between(stored, stored.letters)(cast(Tensor, self.stored(name)))

    def start(self, name: str, draw: Callable[[Tensor], Any]) -> None:
        """Give the tensor the values that `draw` writes to one in the published layout, so that
        the same seed gives the same function in both forms."""
        stored, value = self._stored[name], cast(Tensor, self.stored(name))
        values = value.new_empty(shape_of(stored.letters, self._sizes))
        draw(values)
        value.copy_(stored.layouts(self.is_fused, self._sizes)["out_in"].from_published(values))

    def start_uniform(self, bound: float, *names: str) -> None:
        """Give those of the tensors that there are uniform values between the bound and its
        opposite; `nn.Linear` starts so with one over the root of the number of its inputs."""
        for name in names:
            if name in self._stored:
                self.start(name, lambda value: nn.init.uniform_(value, -bound, bound))

    def operand(self, name: str) -> Tensor | None:
        """A tensor as `Operands` takes it: that of an edge behind the mask, where there is one."""
        value, mask = self.stored(name), self.stored("mask")
        if value is None or mask is None or name not in ("scale", "base_weight"):
            return value
        return value * mask

    def as_formula(self, name: str) -> Tensor | None:
        """The same, outputs first; parameters of the basis as it takes them."""
        value = self.operand(name)
        return None if value is None else self._plain[name](value)

    def _between(self, stored: Stored, letters: str) -> Rearrangement:
        return Rearrangement.between(stored.own(self.is_fused), letters, self._sizes)

    @property
    def published(self) -> Mapping[str, tuple[str, Mapping[str, Layout]]]:
        """See `kan_impls.published.Layout`."""

        def entry(stored: Stored) -> tuple[str, Mapping[str, Layout]]:
            return stored.named(self.is_fused), stored.layouts(self.is_fused, self._sizes)

        return {stored.key: entry(stored) for stored in self._stored.values()}

    def misfit(self, values: Mapping[str, Tensor]) -> str | None:
        """Why a checkpoint, by published keys and in the layer's own layouts, has parameters of
        the basis that belong to other options."""
        names = self.basis.params
        return self.basis.misfit(
            *(self._plain[name](values[self._stored[name].key]) for name in names)
        )

    @property
    def derived(self) -> dict[str, Tensor]:
        """What published checkpoints have besides, see `Spec.derived`."""
        found = self.spec.derived(self.options) if self.spec.derived else {}
        return {
            key: value.to(cast(Tensor, self.stored("weight")).device)
            for key, value in found.items()
        }

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_features, self.stored("weight"))
        if not self.is_fused:
            return (self.spec.direct or direct_form)(self, x)
        chosen = self.spec.fused_basis
        return fused_form(self, x, self.basis if chosen is None else chosen(self))

    def extra_repr(self) -> str:
        sizes = {"in_features": self.in_features, "out_features": self.out_features}
        return ", ".join(f"{name}={value}" for name, value in {**sizes, **self.options}.items())


# What an option may be, by the type of its default.
_CHECKS: dict[type, Callable[[str, object], object]] = {
    int: check_size,
    float: check_number,
    bool: check_flag,
    tuple: check_interval,
}


def _checked(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := options.keys() - defaults.keys():
        raise TypeError(
            f"the layer got the options {sorted(unknown)}; expected some of "
            f"{', '.join((*defaults, *COMMON))}: correct their names or leave them out"
        )
    checked = {**defaults, **options}
    for name, default in defaults.items():
        check = _CHECKS.get(type(default))
        if check is not None:
            checked[name] = check(name, checked[name])
    return checked


def direct_form(layer: KANLayer, x: Tensor) -> Tensor:
    """The definition, as one matrix product for SiLU and one for the basis."""
    inner = x if layer.layernorm is None else layer.layernorm(x)
    # 16-bit parameters and differences of them would cost the basis most of its digits.
    wide = torch.promote_types(x.dtype, torch.float32)
    params = [
        of_inputs(cast(Tensor, layer.as_formula(name)), layer.in_features).to(wide)
        for name in layer.basis.params
    ]
    phi = layer.basis.value(inner.to(wide), *params).to(inner.dtype)
    weight, scale = cast(Tensor, layer.as_formula("weight")), layer.as_formula("scale")
    base_weight, bias = layer.as_formula("base_weight"), layer.as_formula("bias")
    base = None if base_weight is None else F.linear(F.silu(x), base_weight)
    if scale is not None:
        weight = weight * scale.unsqueeze(-1)
    y = F.linear(phi.flatten(-2), weight.flatten(1))
    y = y if base is None else base + y
    # Not wider than the product: autocast makes that in 16 bits.
    return y if bias is None else y + bias.to(y.dtype)


def fused_form(layer: KANLayer, x: Tensor, basis: Basis) -> Tensor:
    """The product of `kan_impls.fused`, of this basis."""
    names = ("weight", "scale", "base_weight", "bias")
    weight, scale, base_weight, bias = (layer.operand(name) for name in names)
    params = [layer.stored(name) for name in basis.params]
    if layer.layernorm is None:
        operands = Operands.of([x, weight, scale, base_weight, bias, *params])
        return basis_product(operands, basis, layer.backend)
    inner = layer.layernorm(x)
    operands = Operands.of([inner, weight, scale, None, bias, *params])
    y = basis_product(operands, basis, layer.backend)
    if base_weight is None:
        return y
    # SiLU takes what LayerNorm has not seen: a product of its own.
    return y + basis_product(Operands(x, base_weight.unsqueeze(0)), SILU, layer.backend)


def _plain_letters(name: str, stored: Stored) -> str:
    """The layout in which the direct formula takes a tensor."""
    if name == "weight":
        return f"o i {stored.fused.removesuffix(' i o')}"
    return "o i" if name in ("scale", "base_weight") else stored.fused


def both_forms(name: str, spec: Spec) -> tuple[Variant, Variant]:
    """The direct form of a variant, called `name`, and the fused form, called `fused_` and so."""
    layer = spec.layer or KANLayer

    def variant(is_fused: bool) -> Variant:
        own = partial(layer, spec, is_fused)
        return Variant(
            name=f"fused_{name}" if is_fused else name,
            formula=spec.formula,
            paper=spec.paper,
            layer=own,
            model=partial(spec.model, own),
            functions_per_input=partial(_functions_per_input, spec),
            reference_widths=spec.reference_widths,
            reference_config=spec.reference_config,
            bound="product" if is_fused else spec.bound,
            options=(*spec.options, *(("backend",) if is_fused else ()), *COMMON),
            size=spec.size,
            is_fused=is_fused,
            watched=watched if is_fused else None,
        )

    return variant(False), variant(True)


def _functions_per_input(spec: Spec, config: Mapping[str, Any]) -> int:
    return spec.basis_of(config).num_basis + (spec.base is not None)
