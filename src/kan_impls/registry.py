"""The table of implementations."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from kan_impls import mlp, variants
from kan_impls.brought import BroughtError, variant_at, variant_of
from kan_impls.variant import Variant

# The original comparison; the others follow.
FIRST = ("mlp", "efficient_kan", "fourier_kan", "fused_fourier_kan")


def _built_in() -> tuple[Variant, ...]:
    """The perceptron, and those of every module of `kan_impls.variants`."""
    found = [mlp.VARIANT]
    for module in pkgutil.iter_modules(variants.__path__):
        found += importlib.import_module(f"{variants.__name__}.{module.name}").VARIANTS
    return (
        *(variant for name in FIRST for variant in found if variant.name == name),
        *(variant for variant in found if variant.name not in FIRST),
    )


BUILT_IN = _built_in()

# An installed package adds variants by entry points of this group, each a `Variant` or a factory.
ENTRY_POINT_GROUP = "kan_impls.variants"

# Those that this process brings.
_brought: list[Variant] = []


def table_of(variants: Sequence[Variant]) -> dict[str, Variant]:
    """The variants by name.

    Raises:
        ValueError: two of them have the same name.
    """
    table: dict[str, Variant] = {}
    for variant in variants:
        if variant.name in table:
            raise ValueError(
                f"the variant {variant.name!r} is registered twice; expected different names "
                f"from {', '.join(table)}: rename one of the two"
            )
        table[variant.name] = variant
    return table


@cache
def _table() -> dict[str, Variant]:
    added = [variant_of(point) for point in entry_points(group=ENTRY_POINT_GROUP)]
    return table_of((*BUILT_IN, *added, *_brought))


def bring(references: Sequence[str]) -> list[str]:
    """Add implementations to the table of this process; their names.

    Args:
        references: of each, `path/file.py:factory` or `package.module:factory`, or a name that the
            table has already.

    Raises:
        BroughtError: a reference names nothing that can be brought, or its name is taken.
    """
    found = [_table().get(each) or variant_at(each) for each in references]
    added = [variant for variant in found if variant not in _table().values()]
    try:
        table_of((*_table().values(), *added))
    except ValueError as error:
        raise BroughtError(str(error)) from error
    _brought.extend(added)
    _table.cache_clear()
    return [variant.name for variant in found]


def brought() -> list[str]:
    """Names of the implementations that others brought: installed packages, and this process."""
    own = {variant.name for variant in BUILT_IN}
    return [name for name in list_variants() if name not in own]


def list_variants() -> list[str]:
    """Names of all implementations."""
    return list(_table())


def get_variant(name: str) -> Variant:
    """The implementation called `name`.

    Raises:
        ValueError: there is none of that name; the message lists what exists.
    """
    try:
        return _table()[name]
    except KeyError:
        raise ValueError(
            f"the implementation {name!r} does not exist; expected one of "
            f"{', '.join(list_variants())}: choose one of these, or register yours "
            f"as an entry point of the group {ENTRY_POINT_GROUP!r}"
        ) from None


def create_layer(name: str, in_features: int, out_features: int, **config: Any) -> nn.Module:
    """Build one layer, `(..., in_features)` to `(..., out_features)`.

    Args:
        name: one of `list_variants()`.
        in_features, out_features: positive sizes.
        config: options of the implementation, such as `grid_size`, `device` and `dtype`.

    Raises:
        ValueError: an unknown name, or a size out of range.
        TypeError: an option that the implementation does not have.
    """
    variant = get_variant(name)
    _check_options(variant, config)
    return variant.layer(in_features, out_features, **config)


def create_model(
    name: str,
    layers: Sequence[int],
    per_layer: Sequence[Mapping[str, Any]] | None = None,
    **config: Any,
) -> nn.Module:
    """Build a network of the given widths, `(..., layers[0])` to `(..., layers[-1])`.

    Args:
        name: one of `list_variants()`.
        layers: number of features at the input and after each layer.
        per_layer: options of each layer alone, such as `[{"grid_size": 8}, {}]`, which go before
            those of every layer.
        config: options of every layer.

    Raises:
        ValueError: an unknown name, a size out of range, or `per_layer` of another number of
            layers.
        TypeError: an option that the implementation does not have.
    """
    variant = get_variant(name)
    for options in (config, *(per_layer or ())):
        _check_options(variant, options)
    if per_layer is None:
        return variant.model(layers, **config)
    taken = inspect.signature(variant.model).parameters.values()
    if not any(p.name == "per_layer" or p.kind is p.VAR_KEYWORD for p in taken):
        raise TypeError(
            f"a network of {name} takes no options per layer; expected none: leave per_layer out"
        )
    return variant.model(layers, per_layer=per_layer, **config)


def _check_options(variant: Variant, config: Mapping[str, Any]) -> None:
    accepted = variant.option_names()
    for option in config:
        if option not in accepted:
            raise TypeError(
                f"{variant.name} got the option {option!r}; expected some of "
                f"{', '.join(accepted)}: correct its name or leave it out"
            )
