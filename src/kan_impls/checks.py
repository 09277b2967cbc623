"""Argument checks shared by every implementation.

Each message says what came, what was expected and what to do.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def check_size(name: str, value: object) -> int:
    """Return `value` if it is a positive integer.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is zero or negative.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; expected a positive integer: pass one of 1 or more")
    if value < 1:
        raise ValueError(f"{name} is {value}; expected a positive integer: pass one of 1 or more")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Return `value` as a bool.

    Raises:
        TypeError: it is neither True nor False, nor 1 or 0.
    """
    if not isinstance(value, numbers.Integral) or value not in (0, 1):
        raise TypeError(f"{name} is {value!r}; expected True or False: pass one of them")
    return bool(value)


def check_number(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number.

    Raises:
        TypeError: it is no real number.
        ValueError: it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a finite number: pass one such as 0.5")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number: pass one such as 0.5")
    return float(value)


def check_deviation(name: str, value: float) -> float:
    """Return `value` if it can be a standard deviation.

    Raises:
        ValueError: it is negative.
    """
    if value < 0:
        raise ValueError(
            f"{name} is {value}; expected a standard deviation, of 0 or more: pass one such as 0.1"
        )
    return value


def check_dtype(dtype: torch.dtype | None) -> None:
    """Check that parameters can have a dtype; None is torch's default.

    Raises:
        TypeError: it holds no real floating-point numbers.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(
            f"dtype is {dtype}; expected one of real floating-point numbers: pass, for example, "
            "torch.float32"
        )


def check_widths(widths: Sequence[int]) -> list[int]:
    """Return the widths of a network as a list.

    Raises:
        TypeError, ValueError: fewer than two widths, or one that is no positive integer.
    """
    if not isinstance(widths, Iterable):
        raise TypeError(
            f"layers is {widths!r}; expected a sequence of two widths or more: pass, for example, "
            "[64, 32, 1]"
        )
    checked = [check_size(f"layers[{index}]", width) for index, width in enumerate(widths)]
    if len(checked) < 2:
        raise ValueError(
            f"layers is {checked}; expected two widths or more: pass the number of inputs, "
            "any hidden widths, and the number of outputs"
        )
    return checked


def check_interval(name: str, interval: object) -> tuple[float, float]:
    """Return the interval `(low, high)` as floats.

    Raises:
        ValueError: `interval` is not two finite numbers with low < high.
    """
    try:
        low, high = (check_number(name, end) for end in interval)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low = high = float("nan")
    if not (low < high and abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError(
            f"{name} is {interval!r}; expected two finite numbers, the first below the second: "
            "pass, for example, (-1, 1)"
        )
    return low, high


def check_norm(option: str, in_features: int) -> None:
    """Check that a LayerNorm leaves something of its input.

    Raises:
        ValueError: there is one input, of which it makes a constant.
    """
    if in_features == 1:
        raise ValueError(
            f"in_features is 1 with {option}=True; expected 2 or more, because a LayerNorm makes a "
            f"constant of a single input: pass {option}=False"
        )


def check_knots(
    grid_range: tuple[float, float], grid_size: int, spline_order: int, dtype: torch.dtype
) -> None:
    """Check that a dtype can hold the equally spaced knots of a grid, and tell them apart.

    Every difference of knots must be finite, its reciprocal too, and every spline must keep a
    support, which are `spline_order + 1` steps, after its knots were rounded.

    Raises:
        ValueError: it cannot.
    """
    low, high = grid_range
    step = (high - low) / grid_size
    width = high - low + 2 * spline_order * step
    largest = max(abs(low), abs(high)) + spline_order * step
    limits = torch.finfo(dtype)
    is_finite = max(width, largest) <= limits.max and step >= limits.tiny
    if not (is_finite and (spline_order + 1) * step > limits.eps * largest):
        raise ValueError(
            f"grid_range is {grid_range!r}, whose {grid_size} intervals and {spline_order} more on "
            f"either side make knots up to {largest:.3g} that are {step:.3g} apart; expected knots "
            f"that {dtype} can hold and tell apart: scale or shift the inputs, or take another "
            "grid_range, grid_size or dtype"
        )


def check_input(x: Tensor, in_features: int, weight: object) -> None:
    """Check an input of shape `(..., in_features)` against the parameters it will meet.

    Of weights that are no tensor, as after `quantize_dynamic`, the dtype is not known.

    Raises:
        TypeError: x is no real floating-point tensor, or differs in dtype from
            `weight` outside autocast.
        ValueError: the last dimension of x is not `in_features`.
    """
    if isinstance(x, torch.fx.Proxy):
        raise TypeError(
            "x is a Proxy of torch.fx.symbolic_trace, which has no shape to check; expected a "
            "torch.Tensor: trace with torch.export.export, or let is_leaf_module of a "
            "torch.fx.Tracer keep the layer as a whole"
        )
    if not isinstance(x, Tensor):
        raise TypeError(
            f"x is a {type(x).__name__}; expected a torch.Tensor: convert it with torch.as_tensor"
        )
    if not x.dtype.is_floating_point:
        raise TypeError(
            f"x has dtype {x.dtype}; expected a real floating-point tensor: "
            f"convert it, for example with x.to({getattr(weight, 'dtype', torch.float32)})"
        )
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; expected (..., {in_features}), because the layer "
            f"has in_features={in_features}: bring the features into the last dimension"
        )
    dtype = weight.dtype if isinstance(weight, Tensor) else x.dtype
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"x has dtype {x.dtype}; expected {dtype}, the dtype of the parameters: "
            f"convert one of them with .to(...), or run under torch.autocast"
        )
