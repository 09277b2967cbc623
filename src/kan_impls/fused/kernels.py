"""Launch plans of the fused CUDA kernels: which kernels, how many blocks, packed arguments.

Plain integers in, launches out: nothing here needs a GPU, a driver or PyTorch. The kernels,
and the mathematics, are in csrc/; see problem.cuh for the shapes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

# Blocks of one launch: x, y and z.
MAX_GRID = (2**31 - 1, 65535, 65535)

# Partial sums of the forward pass take at most this much.
WORKSPACE_BYTES = 32 * 2**20

# Steps of 8 products that one sum of the forward pass should have, for its accuracy in float32.
MAX_STEPS = 1024

# Blocks that one multiprocessor should get: two run at a time, and waves of unequal length fill.
BLOCKS_PER_SM = 2

REDUCE_THREADS = 256

# Stages are counted in 32 bits, and a few beyond the last are asked for.
MAX_FORWARD_STAGES = 2**31 - 16


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


@dataclass(frozen=True)
class Device:
    """`arch` is 90 for sm_90; `sms` is the number of multiprocessors."""

    arch: int
    sms: int


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel whose only argument is a struct Problem, by value."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    arguments: bytes


@dataclass(frozen=True)
class Basis:
    """A struct of bases.cuh, and the floats of Problem that it reads."""

    name: str
    num_functions: int
    has_base: bool
    center: float = 0.0
    inverse_step: float = 0.0

    def num_chunks(self, max_pairs: int) -> int:
        """As `Chunks` in bases.cuh."""
        return _ceil(self.num_pairs, max_pairs)

    def chunk_size(self, max_pairs: int) -> int:
        """Function pairs in a chunk."""
        return _ceil(self.num_pairs, self.num_chunks(max_pairs))

    @property
    def num_pairs(self) -> int:
        return _ceil(self.num_functions, 2)


def fourier(grid_size: int) -> Basis:
    """cos(x), sin(x), cos(2x) and so on, `2 * grid_size` functions."""
    if grid_size < 1:
        raise ValueError(f"grid_size is {grid_size}; expected at least 1")
    return Basis(f"Fourier<{grid_size}>", 2 * grid_size, has_base=False)


def bspline(grid_size: int, order: int, low: float, high: float) -> Basis:
    """SiLU, then the `grid_size + order` B-splines on uniform knots over `low` to `high`."""
    if grid_size < 1 or order not in (1, 2, 3):
        raise ValueError(
            f"grid_size is {grid_size} and order {order}; expected at least 1, and 1, 2 or 3: "
            "higher orders run outside these kernels"
        )
    if not low < high:
        raise ValueError(f"the grid is from {low} to {high}; expected low < high")
    return Basis(
        f"BSpline<{grid_size}, {order}>",
        1 + grid_size + order,
        has_base=True,
        center=(low + high) / 2,
        inverse_step=grid_size / (high - low),
    )


@dataclass(frozen=True)
class Layer:
    """What is computed, and on what: all that decides the kernels and the workspace.

    Raises:
        ValueError: an empty dimension, or one of 2^31 or more; bfloat16 in ACCURATE.
    """

    basis: Basis
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


class RowTile(NamedTuple):
    """`warps` * `tiles` * 16 rows of the batch in one block."""

    warps: int
    tiles: int

    @property
    def rows(self) -> int:
        return 16 * self.warps * self.tiles


# Every block reads the weights of its columns, so one block should hold the whole batch where it
# can, with few idle rows. Two tiles per warp halve the shared-memory reads and splits of the
# weights per product, at 60% more registers: for batches that fill the GPU anyway.
FORWARD_TILES = (
    RowTile(1, 1),  # single rows
    RowTile(4, 1),
    RowTile(7, 1),  # batches around 100 in one block
    RowTile(8, 2),
)
INPUT_GRAD_TILES = (RowTile(1, 1), RowTile(4, 1), RowTile(7, 1))
READ_ROWS = 64  # reading the weights of a block once costs as much as so many rows (an estimate)

# As in bases.cuh, and in the struct of each kernel.
MAX_PAIRS, WEIGHT_GRAD_MAX_PAIRS = 8, 6
FORWARD_INPUTS, FORWARD_COLUMNS, FORWARD_STAGES = 4, 64, 4
WEIGHT_GRAD_WARPS, WEIGHT_GRAD_COLUMNS, WEIGHT_GRAD_ROWS, WEIGHT_GRAD_STAGES = 4, 32, 32, 3
WEIGHT_GRAD_TILES_PER_PART = 32
INPUT_GRAD_OUTPUTS, INPUT_GRAD_STAGES = 32, 3

# Columns of outputs are the y axis of the forward pass.
MAX_OUTPUTS = FORWARD_COLUMNS * MAX_GRID[1]


def workspace_bytes(layer: Layer) -> int:
    """Bytes of the workspace that `forward` needs; 0 where one block holds a whole sum."""
    splits = _splits(layer)
    return 0 if splits == 1 else splits * layer.rows * layer.outputs * 4


def forward(
    layer: Layer,
    *,
    x: int,
    weight: int,
    y: int,
    base: int = 0,
    scale: int = 0,
    bias: int = 0,
    workspace: int = 0,
) -> list[Launch]:
    """Plan y from x and the parameters.

    All but `layer` are addresses, 0 for none; `workspace` has `workspace_bytes(layer)` bytes.

    Raises:
        ValueError: an address is missing, or the layer exceeds the grid of a launch.
    """
    _check_parameters(layer, x=x, weight=weight, base=base, scale=scale, y=y)
    if _forward_stages(layer) >= MAX_FORWARD_STAGES:
        raise ValueError(
            f"{layer.inputs} inputs of {layer.basis.name} take {_forward_stages(layer)} stages; "
            f"expected less than {MAX_FORWARD_STAGES}: split the layer"
        )
    splits = _splits(layer)
    if splits > 1 and workspace == 0:
        raise ValueError(f"no workspace; expected {workspace_bytes(layer)} bytes")
    tile = _row_tile(FORWARD_TILES, layer.rows)
    grid = (_ceil(layer.rows, tile.rows), _ceil(layer.outputs, FORWARD_COLUMNS), splits)
    stage_rows = FORWARD_INPUTS * (2 * layer.basis.chunk_size(MAX_PAIRS) + layer.basis.has_base)
    arguments = _pack(
        layer,
        x=x,
        weight=weight,
        base=base,
        scale=scale,
        bias=bias,
        y=y,
        workspace=workspace,
        splits=splits,
        stages_per_split=_ceil(_forward_stages(layer), splits),
    )
    launches = [
        Launch(
            f"forward<{_name(layer)}, {tile.warps}, {tile.tiles}>",
            _checked_grid(grid, layer),
            tile.warps * 32,
            FORWARD_STAGES * stage_rows * (FORWARD_COLUMNS * layer.element.size + 32),
            arguments,
        )
    ]
    if splits > 1:
        blocks = _ceil(layer.rows * layer.outputs, REDUCE_THREADS)
        grid = _checked_grid((blocks, 1, 1), layer)
        kernel = f"reduce<{layer.element.value}>"
        launches.append(Launch(kernel, grid, REDUCE_THREADS, 0, arguments))
    return launches


def weight_grad(
    layer: Layer,
    *,
    x: int,
    grad_y: int,
    grad_weight: int,
    grad_base: int = 0,
    grad_scale: int = 0,
    weight: int = 0,
    base: int = 0,
    scale: int = 0,
) -> list[Launch]:
    """Plan the gradients of weight, base and scale; weight is read only where scale is.

    Raises:
        ValueError: as `forward`.
    """
    if layer.basis.has_base and not grad_base:
        raise ValueError("no grad_base; expected its address: the basis has SiLU")
    if scale and not (weight and grad_scale):
        raise ValueError("a scale without weight or grad_scale; expected all three")
    _check_parameters(layer, x=x, grad_y=grad_y, grad_weight=grad_weight, scale=scale)
    blocks = _ceil(layer.inputs, 8 * WEIGHT_GRAD_WARPS)
    grid = (_ceil(layer.outputs, WEIGHT_GRAD_COLUMNS), *_in_y_and_z(blocks))
    threads = WEIGHT_GRAD_WARPS * 32
    stage_bytes = WEIGHT_GRAD_ROWS * (WEIGHT_GRAD_COLUMNS * layer.element.size + 32)
    shared_bytes = WEIGHT_GRAD_STAGES * stage_bytes
    if layer.rows > WEIGHT_GRAD_ROWS * WEIGHT_GRAD_TILES_PER_PART:
        shared_bytes += layer.basis.chunk_size(WEIGHT_GRAD_MAX_PAIRS) * 16 * threads * 4
    return [
        Launch(
            f"weight_grad<{_name(layer)}, {WEIGHT_GRAD_WARPS}>",
            _checked_grid(grid, layer),
            threads,
            shared_bytes,
            _pack(
                layer,
                x=x,
                weight=weight,
                base=base,
                scale=scale,
                grad_y=grad_y,
                grad_weight=grad_weight,
                grad_base=grad_base,
                grad_scale=grad_scale,
            ),
        )
    ]


def input_grad(
    layer: Layer,
    *,
    x: int,
    weight: int,
    grad_y: int,
    grad_x: int,
    base: int = 0,
    scale: int = 0,
) -> list[Launch]:
    """Plan the gradient of x, in float32.

    Raises:
        ValueError: as `forward`.
    """
    _check_parameters(layer, x=x, weight=weight, base=base, scale=scale, grad_y=grad_y, y=grad_x)
    tile = _row_tile(INPUT_GRAD_TILES, layer.rows)
    chunk = layer.basis.chunk_size(MAX_PAIRS)
    groups = 2 if chunk <= 5 else 1
    inputs = 4 * groups
    grid = (_ceil(layer.rows, tile.rows), *_in_y_and_z(_ceil(layer.inputs, inputs)))
    stage_rows = inputs * (2 * chunk + layer.basis.has_base) + tile.rows
    pad = 4 if layer.element is Element.FLOAT else 16
    row_bytes = (INPUT_GRAD_OUTPUTS + pad) * layer.element.size
    arguments = _pack(
        layer, x=x, weight=weight, base=base, scale=scale, grad_y=grad_y, grad_x=grad_x
    )
    return [
        Launch(
            f"input_grad<{_name(layer)}, {tile.warps}>",
            _checked_grid(grid, layer),
            tile.warps * groups * 32,
            INPUT_GRAD_STAGES * stage_rows * row_bytes,
            arguments,
        )
    ]


def kernels_of(basis: Basis, element: Element, precision: Precision) -> list[str]:
    """Every kernel that a layer of this basis may launch, over all sizes."""
    name = f"{basis.name}, {element.value}, {precision.value}"
    return [
        *(f"forward<{name}, {tile.warps}, {tile.tiles}>" for tile in FORWARD_TILES),
        f"weight_grad<{name}, {WEIGHT_GRAD_WARPS}>",
        *(f"input_grad<{name}, {tile.warps}>" for tile in INPUT_GRAD_TILES),
        f"reduce<{element.value}>",
    ]


def standard_kernels() -> list[str]:
    """The kernels of common bases, all element types and precisions, each once."""
    bases = [fourier(5), fourier(300)]
    return kernels_of_all(
        [*bases, *(bspline(size, order, -1, 1) for size, order in ((5, 3), (8, 2), (3, 1)))]
    )


def kernels_of_all(bases: Sequence[Basis]) -> list[str]:
    """The kernels of these bases, all element types and precisions, each once."""
    kinds = [
        (Element.FLOAT, Precision.ACCURATE),
        (Element.FLOAT, Precision.TF32),
        (Element.BFLOAT16, Precision.TF32),
    ]
    names = [name for basis in bases for kind in kinds for name in kernels_of(basis, *kind)]
    return list(dict.fromkeys(names))


def _name(layer: Layer) -> str:
    return f"{layer.basis.name}, {layer.element.value}, {layer.precision.value}"


def _row_tile(tiles: tuple[RowTile, ...], rows: int) -> RowTile:
    """The tile that costs least in all: the rows of its blocks, idle or not, and for each block
    the weights that it reads."""
    return min(tiles, key=lambda tile: _ceil(rows, tile.rows) * (tile.rows + READ_ROWS))


def _forward_stages(layer: Layer) -> int:
    return _ceil(layer.inputs, FORWARD_INPUTS) * layer.basis.num_chunks(MAX_PAIRS)


def _splits(layer: Layer) -> int:
    """Parts of the sum over K: as many as keep all multiprocessors busy, within the workspace."""
    tile = _row_tile(FORWARD_TILES, layer.rows)
    blocks = _ceil(layer.rows, tile.rows) * _ceil(layer.outputs, FORWARD_COLUMNS)
    stages = _forward_stages(layer)
    busy = _ceil(BLOCKS_PER_SM * layer.device.sms, blocks)
    accurate = _ceil(stages * layer.basis.chunk_size(MAX_PAIRS), MAX_STEPS)
    wanted = max(busy, accurate)
    affordable = max(1, WORKSPACE_BYTES // (layer.rows * layer.outputs * 4))
    # A split shorter than the pipeline would wait for memory most of its time.
    useful = _ceil(stages, FORWARD_STAGES)
    splits = min(wanted, affordable, useful, MAX_GRID[2])
    return _ceil(stages, _ceil(stages, splits))  # none of them empty


def _check_parameters(layer: Layer, **addresses: int) -> None:
    needs_base = layer.basis.has_base and "base" in addresses
    for name, address in addresses.items():
        optional = name == "scale" or (name == "base" and not needs_base)
        if address == 0 and not optional:
            raise ValueError(f"{name} has the address 0; expected that of a tensor")
    if addresses.get("scale") and not layer.basis.has_base:
        raise ValueError(f"{layer.basis.name} takes no scale; expected the address 0")


def _in_y_and_z(blocks: int) -> tuple[int, int]:
    """Two axes for more blocks than one takes; the last ones of a kernel may be idle."""
    depth = _ceil(blocks, MAX_GRID[1])
    return _ceil(blocks, depth), depth


def _checked_grid(grid: tuple[int, int, int], layer: Layer) -> tuple[int, int, int]:
    if any(size > limit for size, limit in zip(grid, MAX_GRID, strict=True)):
        raise ValueError(
            f"{layer.rows} rows, {layer.inputs} inputs and {layer.outputs} outputs take a grid "
            f"of {grid} blocks; expected at most {MAX_GRID}: split the batch or the layer"
        )
    return grid


# struct Problem in csrc/problem.cuh: 12 addresses, rows, 5 ints, 4 floats, padded to 8 bytes.
_PROBLEM = struct.Struct("<12Qq5i4f4x")

# Vector copies are of 16 bytes; x and grad_x are read and written by single elements.
_VECTOR_BYTES = 16


def _pack(
    layer: Layer,
    *,
    x: int,
    weight: int = 0,
    base: int = 0,
    scale: int = 0,
    bias: int = 0,
    grad_y: int = 0,
    y: int = 0,
    workspace: int = 0,
    grad_weight: int = 0,
    grad_base: int = 0,
    grad_scale: int = 0,
    grad_x: int = 0,
    splits: int = 1,
    stages_per_split: int = 0,
) -> bytes:
    in_vectors = (weight, base, scale, grad_y, y, workspace, grad_weight, grad_base, grad_scale)
    vectorized = all(address % _VECTOR_BYTES == 0 for address in in_vectors)
    vectorized = vectorized and layer.outputs * layer.element.size % _VECTOR_BYTES == 0
    return _PROBLEM.pack(
        *(x, weight, base, scale, bias, grad_y, y, workspace),
        *(grad_weight, grad_base, grad_scale, grad_x),
        layer.rows,
        *(layer.inputs, layer.outputs, splits, stages_per_split, vectorized),
        *_two_floats(layer.basis.center),
        *_two_floats(layer.basis.inverse_step),
    )


def _two_floats(value: float) -> tuple[float, float]:
    """A float32 and the rest, which is rounded to float32 as it is packed."""
    (high,) = struct.unpack("f", struct.pack("f", value))
    return high, value - high


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
