"""What is computed, and its packing as the argument of a kernel: struct Problem of problem.cuh.

Plain integers in, bytes out: nothing here needs a GPU, a driver or PyTorch.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol

MAX_PARAMS, MAX_CONSTANTS = 2, 4

# The fields of struct Problem, in its order. Addresses have the names of
# `kan_impls.fused.operands.Operands`, those of gradients with a prefix; 0 where there is none.
ADDRESSES = (
    *("x", "weight", "scale", "base_weight", "bias", "params0", "params1"),
    *("grad_y", "y", "workspace"),
    *("grad_x", "grad_weight", "grad_scale", "grad_base_weight", "grad_params"),
)
NUMBERS = ("rows", "inputs", "outputs", "splits", "stages_per_split", "vectorized")
_PROBLEM = struct.Struct(
    f"<{len(ADDRESSES)}Qq{len(NUMBERS) - 1}i{MAX_PARAMS}i{2 * MAX_CONSTANTS}f4x"
)

# Neither x nor its gradient is read by vectors, nor are bias and parameters.
VECTORS = (
    *("weight", "scale", "base_weight", "grad_y", "y", "workspace"),
    *("grad_weight", "grad_scale", "grad_base_weight"),
)
VECTOR_BYTES = 16


class Precision(Enum):
    """The value is the C++ name."""

    ACCURATE = "ACCURATE"  # as exact as float32: three products of TF32
    TF32 = "TF32"  # operands of 11 bits; the only one for bfloat16 tensors


class Element(Enum):
    """Element type of weights, bias, outputs and their gradients; the value is the C++ name."""

    FLOAT = "float"
    BFLOAT16 = "bfloat16"

    @property
    def size(self) -> int:
        return 4 if self is Element.FLOAT else 2


def error_bound(element: Element, precision: Precision) -> float:
    """The relative error, in the norm, that a result may have.

    The accurate mode is within some roundings of float32. TF32 and bfloat16 round the operands to
    11 and 8 bits: each factor once, a scaled weight and the result once more.
    """
    if element is Element.BFLOAT16:
        return 8 * 2**-9
    return 1e-6 if precision is Precision.ACCURATE else 1e-3


@dataclass(frozen=True)
class Device:
    """`arch` is 90 for sm_90; `sms` is the number of multiprocessors."""

    arch: int
    sms: int


class BasisFacts(Protocol):
    """What a plan needs to know of a `kan_impls.basis.base.Basis`."""

    params: ClassVar[tuple[str, ...]]
    trained: ClassVar[tuple[str, ...]]
    text: str

    @property
    def cuda(self) -> str: ...
    @property
    def num_basis(self) -> int: ...
    @property
    def param_sizes(self) -> tuple[int, ...]: ...
    @property
    def domain(self) -> tuple[float, float]: ...
    @property
    def constants(self) -> tuple[float, ...]: ...
    def tested_params(self, normal: Sequence[Any]) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Functions:
    """The functions of one input, as a struct of bases.cuh: a basis, and what surrounds it.

    Args:
        basis: the basis.
        has_base: whether SiLU is the last function, with weights of its own.
        has_scale: whether the weights of the basis are multiplied by a scale.
    """

    basis: BasisFacts
    has_base: bool = False
    has_scale: bool = False

    @property
    def name(self) -> str:
        name = f"WithSilu<{self.basis.cuda}>" if self.has_base else self.basis.cuda
        return f"Scaled<{name}>" if self.has_scale else name

    @property
    def count(self) -> int:
        return self.basis.num_basis + self.has_base

    def num_chunks(self, max_pairs: int) -> int:
        """As `Chunks` in basis.cuh."""
        return ceil_div(ceil_div(self.count, 2), max_pairs)

    def chunk_size(self, max_pairs: int) -> int:
        """Function pairs in a chunk."""
        return ceil_div(ceil_div(self.count, 2), self.num_chunks(max_pairs))


@dataclass(frozen=True)
class Layer:
    """What is computed, and on what: all that decides the kernels and the workspace.

    Raises:
        ValueError: an empty dimension, or one of 2^31 or more; bfloat16 in ACCURATE.
    """

    functions: Functions
    rows: int
    inputs: int
    outputs: int
    element: Element
    precision: Precision
    device: Device

    def __post_init__(self) -> None:
        for name in ("rows", "inputs", "outputs"):
            size = getattr(self, name)
            if not 1 <= size < 2**31:
                raise ValueError(f"{name} is {size}; expected 1 to 2^31 - 1")
        if self.element is Element.BFLOAT16 and self.precision is not Precision.TF32:
            raise ValueError("bfloat16 in ACCURATE; expected TF32, which holds bfloat16 exactly")

    @property
    def name(self) -> str:
        """The template arguments of its kernels."""
        return f"{self.functions.name}, {self.element.value}, {self.precision.value}"


def pack(
    layer: Layer,
    addresses: Mapping[str, int],
    sets: Sequence[int] = (),
    splits: int = 1,
    stages_per_split: int = 0,
) -> bytes:
    """A struct Problem.

    Args:
        addresses: of the tensors that there are, by their names in `ADDRESSES`.
        sets: in how many sets of inputs each parameter of the basis has its rows.

    Raises:
        ValueError: an address of no name in `ADDRESSES`.
    """
    if unknown := addresses.keys() - set(ADDRESSES):
        raise ValueError(f"the addresses of {sorted(unknown)}; expected some of {ADDRESSES}")
    is_vectorized = layer.outputs * layer.element.size % VECTOR_BYTES == 0 and not any(
        addresses.get(name, 0) % VECTOR_BYTES for name in VECTORS
    )
    numbers = (layer.rows, layer.inputs, layer.outputs, splits, stages_per_split, is_vectorized)
    in_order = [addresses.get(name, 0) for name in ADDRESSES]
    return pack_plain(in_order, numbers, sets, two_floats(layer.functions.basis.constants))


def pack_plain(
    addresses: Sequence[int],
    numbers: Sequence[int],
    sets: Sequence[int],
    constants: Sequence[float],
) -> bytes:
    """The same from numbers in the orders of `ADDRESSES` and `NUMBERS`, and constants as
    `two_floats` gives them."""
    inputs_per_set = [numbers[1] // count for count in sets]
    return _PROBLEM.pack(
        *addresses,
        *numbers,
        *inputs_per_set,
        *[1] * (MAX_PARAMS - len(sets)),
        *constants,
        *[0.0] * (2 * MAX_CONSTANTS - len(constants)),
    )


def two_floats(values: Sequence[float]) -> list[float]:
    """Each value as a float32 and the rest, which is rounded to float32 as it is packed."""
    return [part for value in values for part in _two_floats(value)]


def _two_floats(value: float) -> tuple[float, float]:
    """A float32 and the rest, which is rounded to float32 as it is packed."""
    (high,) = struct.unpack("f", struct.pack("f", value))
    return high, value - high


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
