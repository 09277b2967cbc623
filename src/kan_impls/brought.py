"""Implementations that somebody brings: by `--variant` for one run, by an entry point for good."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kan_impls.model import KAN
from kan_impls.variant import COMMON, Variant

# Options that the number of functions grows with, by the names that are usual.
SIZES = ("grid_size", "degree", "num_grids")

# A layer of so many inputs and outputs tells by its parameters how many functions an edge has.
PROBE = 32

FORMS = "path/file.py:factory or package.module:factory"


class BroughtError(ValueError):
    """A reference names nothing that can be brought; the message says what was expected."""


def variant_at(reference: str) -> Variant:
    """The implementation at `path/file.py:factory` or `package.module:factory`.

    `factory(in_features, out_features, **options)` builds a layer: a class or a function. It may
    also be a `Variant`. A file or module that raises gives a variant that raises the same whenever
    a layer is built, so that a run goes on with all others.

    Raises:
        BroughtError: there is no such file, module or name, or it is nothing of the kind.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise BroughtError(f"{reference!r} names no factory; expected {FORMS}: correct it")
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else _import(place)
    except BroughtError:
        raise
    except Exception as error:  # whatever somebody's module does
        return _broken(name, error)
    try:
        found = operator.attrgetter(name)(module)
    except AttributeError as error:
        raise BroughtError(
            f"{place} has no {name!r}; expected a class, function or Variant of that name: "
            "correct the reference"
        ) from error
    return as_variant(name, found)


def variant_of(point: EntryPoint) -> Variant:
    """The implementation of an entry point; one that raises if the entry point cannot be loaded."""
    try:
        return as_variant(point.name, point.load())
    except Exception as error:
        return _broken(point.name, error)


def as_variant(name: str, found: object) -> Variant:
    """A `Variant` as it is, or one of the name around the factory of a layer.

    Its networks refuse an output of another shape than their widths say.

    Raises:
        BroughtError: it is neither.
    """
    if isinstance(found, Variant):
        return replace(found, model=partial(_checked_model, found.name, found.model))
    if not callable(found):
        raise BroughtError(
            f"{name!r} is a {type(found).__name__}; expected a Variant or a function "
            "factory(in_features, out_features, **options) that builds a layer: name one"
        )
    layers = Layers(name, found)
    return Variant(
        name=name.rpartition(".")[2],
        formula=(inspect.getdoc(found) or "not stated").partition("\n")[0],
        paper="not stated",
        layer=layers,
        model=partial(_checked_model, name, partial(KAN, layers)),
        functions_per_input=layers.functions_per_input,
        options=(*layers.own_options(), *COMMON),
        size=next((size for size in SIZES if size in layers.own_options()), None),
    )


@dataclass(frozen=True)
class Layers:
    """Layers of a factory that need not know of devices and dtypes.

    Args:
        name: what users call it.
        factory: `factory(in_features, out_features, **options)` builds a layer.
    """

    name: str
    factory: Callable[..., object]

    def __call__(
        self,
        in_features: int,
        out_features: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **config: Any,
    ) -> nn.Module:
        """One layer, on the device and in the dtype.

        Raises:
            TypeError: the factory returned no module.
        """
        where = {"device": device, "dtype": dtype}
        accepted = {name: where[name] for name in COMMON if name in self._parameters()}
        layer = self.factory(in_features, out_features, **accepted, **config)
        return _placed(_checked_module(self.name, layer), device, dtype)

    def own_options(self) -> list[str]:
        """Names of the factory's options, device and dtype left out."""
        return [name for name in self._parameters()[2:] if name not in COMMON]

    def functions_per_input(self, config: Mapping[str, Any]) -> int:
        """How many functions an edge has, by the number of parameters of a small layer."""
        layer = self(PROBE, PROBE, **config)
        return max(1, round(sum(p.numel() for p in layer.parameters()) / PROBE**2))

    def _parameters(self) -> list[str]:
        try:
            return list(inspect.signature(self.factory).parameters)
        except (TypeError, ValueError):  # one that is not written in Python
            return []


def _placed(
    layer: nn.Module, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Module:
    """The layer on the device and in the dtype; untouched if it is there, since the tensors without
    values that estimate memory cannot be moved."""
    tensors = [*layer.parameters(), *layer.buffers()]
    is_there = device is None or all(each.device == torch.device(device) for each in tensors)
    is_so = dtype is None or all(t.dtype == dtype for t in tensors if t.is_floating_point())
    return layer if is_there and is_so else layer.to(device=device, dtype=dtype)


def _checked_module(name: str, made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(
            f"the factory of {name} returned a {type(made).__name__}; expected a torch.nn.Module: "
            "return the layer"
        )
    return made


def _checked_model(
    name: str, build: Callable[..., object], widths: Sequence[int], **config: Any
) -> nn.Module:
    model = _checked_module(name, build(widths, **config))
    model.register_forward_hook(partial(_check_shape, name, widths[-1]))
    return model


def _check_shape(name: str, width: int, model: nn.Module, given: tuple[Any], y: object) -> None:
    expected = (*given[0].shape[:-1], width)
    shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
    if shape != expected:
        raise ValueError(
            f"{name} returned {shape} for x of shape {tuple(given[0].shape)}; expected a tensor "
            f"{expected}: return (..., out_features)"
        )


def _broken(name: str, error: Exception) -> Variant:
    """One that raises whenever something is built."""

    def fail(*sizes: Any, **config: Any) -> nn.Module:
        raise RuntimeError(
            f"{name} cannot be loaded ({type(error).__name__}: {error}); expected its module to "
            "import: correct it"
        ) from error

    return Variant(
        name=name.rpartition(".")[2],
        formula="not known",
        paper="not known",
        layer=fail,
        model=fail,
        functions_per_input=lambda config: 1,
        options=COMMON,
    )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that it needs
        raise BroughtError(
            f"the module {name!r} is not found; expected {FORMS}: correct it, or install its "
            "package"
        ) from error


def _import_file(path: Path) -> Any:
    """The file as a module of its own name, under which what it defines can be pickled."""
    path = path.resolve()
    if not path.is_file():
        raise BroughtError(f"the file {path} does not exist; expected {FORMS}: correct it")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    # Another module of that name keeps it.
    name = path.stem if loaded is None else f"{path.stem}_brought"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for what it imports from beside itself
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
