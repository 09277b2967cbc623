"""Published checkpoints in, and published checkpoints and gradients out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.optim.swa_utils import AveragedModel

from kan_impls.published import UNCHANGED, Layout

_WRAPPERS = (AveragedModel, DataParallel, DistributedDataParallel)


def load(module: nn.Module, state_dict: Mapping[str, Tensor], layout: str | None = None) -> None:
    """Copy a checkpoint of the published implementation into `module`.

    Everything is checked before the first tensor is copied.

    Args:
        module: a layer or model of this package, also compiled, averaged or distributed by torch.
        state_dict: published keys to tensors, shaped as published.
        layout: which of several published layouts the tensors are in, such as `"in_out"`
            for the `(2, in, out, grid)` coefficients of fused FourierKAN layers. Without
            it the shape decides, and where several fit (in_features equal to
            out_features), the first of them, `"out_in"`.

    Raises:
        ValueError: a key is missing, unknown, or its tensor has the wrong shape or, where it
            follows from the options or decides more than is stored, other values; or a layer is
            pruned or parametrized.
    """
    module = _unwrapped(module)
    slots = dict(_slots(module))
    _check_keys(slots, state_dict)
    values = {key: _native(key, slots[key], state_dict[key], layout) for key in slots}
    _check_derived(slots, values)
    _check_params(module, values)
    with torch.no_grad():
        for key, value in values.items():
            slots[key].tensor.copy_(value)
    for child in module.modules():
        if grid_changed := getattr(child, "grid_changed", None):
            grid_changed()


def export(module: nn.Module, grads: bool = False, layout: str | None = None) -> dict[str, Tensor]:
    """The parameters and buffers of `module` as the published implementation stores them.

    Args:
        module: a layer or model of this package, also compiled, averaged or distributed by torch.
        grads: the parameters' gradients instead; those without one are left out.
        layout: which of several published layouts to write; the first if None.

    Returns:
        Published key to a copy of the tensor.

    Raises:
        ValueError: an unknown layout; or a layer that is pruned or parametrized.
    """
    result = {}
    module = _unwrapped(module)
    for key, slot in _slots(module):
        value = slot.tensor.grad if grads else slot.tensor
        if value is not None:
            result[key] = slot.chosen(key, layout).to_published(value.detach()).clone()
    return result


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch's wrappers, whose keys would begin with the wrapper's name."""
    while isinstance(module, _WRAPPERS) or _is_compiled(module):
        module = cast(nn.Module, module._orig_mod if _is_compiled(module) else module.module)
    for name, child in module.named_modules():
        if _is_compiled(child) or parametrize.is_parametrized(child) or _is_pruned(child):
            raise ValueError(
                f"{name or 'the module'} is compiled, parametrized or pruned by itself, and its "
                "tensors have other names than published ones; expected plain layers: pass the "
                "module before compilation, or make it permanent by parametrize."
                "remove_parametrizations or prune.remove"
            )
    return module


def _is_compiled(module: nn.Module) -> bool:
    # By its content: to import the compiler for its class takes a second.
    return "_orig_mod" in module._modules


def _is_pruned(module: nn.Module) -> bool:
    return any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values())


class _Slot:
    """A tensor of the module, or one that follows from its options, and the layouts that it is
    published in."""

    def __init__(
        self, tensor: Tensor, layouts: Mapping[str, Layout], is_derived: bool = False
    ) -> None:
        self.tensor = tensor
        self.layouts = layouts
        self.is_derived = is_derived

    def chosen(self, key: str, layout: str | None) -> Layout:
        if layout is None or len(self.layouts) == 1:
            return next(iter(self.layouts.values()))
        if layout not in self.layouts:
            raise ValueError(
                f"the layout {layout!r} does not exist for {key!r}; expected one of "
                f"{', '.join(self.layouts)}: choose one of these"
            )
        return self.layouts[layout]


def _slots(module: nn.Module) -> Iterator[tuple[str, _Slot]]:
    native = module.state_dict(keep_vars=True)
    for prefix, child in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        published = getattr(child, "published", {})
        renamed = {name: (key, layouts) for key, (name, layouts) in published.items()}
        for name in (*child._parameters, *child._buffers):
            tensor = native.get(dot + name)
            if tensor is not None:
                key, layouts = renamed.get(name, (name, {"as_is": UNCHANGED}))
                yield dot + key, _Slot(tensor, layouts)
        for key, tensor in getattr(child, "derived", {}).items():
            yield dot + key, _Slot(tensor, {"as_is": UNCHANGED}, is_derived=True)


def _check_keys(slots: Mapping[str, _Slot], state_dict: Mapping[str, Tensor]) -> None:
    for found, wanted, problem, remedy in (
        (state_dict, slots, "lacks", "load a checkpoint of the same implementation and options"),
        (slots, state_dict, "has the unknown", "remove it, or build the module it belongs to"),
    ):
        wrong = [key for key in wanted if key not in found]
        if wrong:
            raise ValueError(
                f"the checkpoint {problem} {_enumerate(wrong)}; expected the keys "
                f"{_enumerate(slots)}: {remedy}"
            )


def _check_derived(slots: Mapping[str, _Slot], values: Mapping[str, Tensor]) -> None:
    """Other values would be those of another function."""
    for key, value in values.items():
        expected = slots[key].tensor
        if slots[key].is_derived and not torch.equal(value.to(expected), expected):
            raise ValueError(
                f"the checkpoint's {key!r} is {value.tolist()}; expected {expected.tolist()}, as "
                "follows from the options: build the module with those of the checkpoint"
            )


def _check_params(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Of what the options say besides, as the width of functions, a checkpoint holds nothing."""
    for prefix, child in module.named_modules():
        if hasattr(child, "misfit"):
            dot = f"{prefix}." if prefix else ""
            own = {key.removeprefix(dot): v for key, v in values.items() if key.startswith(dot)}
            if why := child.misfit(own):
                raise ValueError(f"of {prefix or 'the checkpoint'} {why}")


def _native(key: str, slot: _Slot, value: Tensor, layout: str | None) -> Tensor:
    value = torch.as_tensor(value)
    stored = slot.tensor.detach().to("meta")
    shapes = {name: tuple(each.to_published(stored).shape) for name, each in slot.layouts.items()}
    # Layouts of different rank cannot be mixed up: any of them will do, whatever is named.
    is_any = layout is None or len({len(shape) for shape in shapes.values()}) == len(shapes)
    for name, candidate in slot.layouts.items():
        if (is_any or layout == name) and tuple(value.shape) == shapes[name]:
            return candidate.from_published(value)
    slot.chosen(key, layout)  # an unknown layout is an error of its own
    expected = " or ".join(str(shape) for shape in dict.fromkeys(shapes.values()))
    raise ValueError(
        f"the checkpoint's {key!r} has shape {tuple(value.shape)}; expected {expected}: "
        "build the module with the sizes of the checkpoint"
    )


def _enumerate(keys: Mapping[str, object] | list[str], limit: int = 6) -> str:
    names = [repr(key) for key in keys]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
