"""Launch plans of the fused CUDA kernels: which kernels, how many blocks, how much memory.

A plan knows no addresses: it is made once for each shape. Nothing here needs a GPU or a driver. The
kernels, and the mathematics, are in csrc/; see problem.cuh for the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kan_impls.basis.base import BASES
from kan_impls.fused.elementwise import basis_slopes, basis_values
from kan_impls.fused.plan import MAX_GRID, Launch, Plan, checked_grid
from kan_impls.fused.problem import (
    Device,
    Element,
    Functions,
    Layer,
    Precision,
    ceil_div,
)
from kan_impls.fused.splits import split_plans, splits_of
from kan_impls.fused.tiles import (
    FORWARD_TILES,
    INPUT_GRAD_TILES,
    PARAM_GRAD_TILES,
    SUGGESTED,
    RowTile,
    Tiling,
    row_tile,
)

__all__ = [
    "MAX_GRID",
    "Device",
    "Element",
    "Functions",
    "Launch",
    "Layer",
    "Plan",
    "Precision",
    "basis_slopes",
    "basis_values",
]

# Partial sums of the forward pass take at most this much.
WORKSPACE_BYTES = 32 * 2**20

# Steps of 8 products that one sum of the forward pass should have, for its accuracy in float32.
MAX_STEPS = 1024

REDUCE_THREADS = 256

# Stages are counted in 32 bits, and a few beyond the last are asked for.
MAX_FORWARD_STAGES = 2**31 - 16


# As in basis.cuh, and in the struct of each kernel.
MAX_PAIRS, WEIGHT_GRAD_MAX_PAIRS = 8, 6
FORWARD_INPUTS, FORWARD_COLUMNS, FORWARD_STAGES = 4, 64, 4
WEIGHT_GRAD_WARPS, WEIGHT_GRAD_COLUMNS, WEIGHT_GRAD_ROWS, WEIGHT_GRAD_STAGES = 4, 32, 32, 3
WEIGHT_GRAD_TILES_PER_PART = 32
INPUT_GRAD_OUTPUTS, INPUT_GRAD_STAGES = 32, 3

# Columns of outputs are the y axis of the forward pass.
MAX_OUTPUTS = FORWARD_COLUMNS * MAX_GRID[1]


def forward(layer: Layer, tiling: Tiling = SUGGESTED) -> Plan:
    """Plan y from x and the parameters.

    The workspace holds partial sums; it is empty where one block holds a whole sum.

    Args:
        layer: what is computed.
        tiling: its splits are those of another number of rows, maybe, and made to fit.

    Raises:
        ValueError: the layer exceeds the grid of a launch.
    """
    functions, stages = layer.functions, _forward_stages(layer)
    if stages >= MAX_FORWARD_STAGES:
        raise ValueError(
            f"{layer.inputs} inputs of {functions.name} take {stages} stages; "
            f"expected less than {MAX_FORWARD_STAGES}: split the layer"
        )
    tile = tiling.tile or row_tile(FORWARD_TILES, layer.rows)
    splits = splits_of(**_sums(layer, tile), wanted=tiling.splits)
    grid = (ceil_div(layer.rows, tile.rows), ceil_div(layer.outputs, FORWARD_COLUMNS), splits)
    stage_rows = FORWARD_INPUTS * (2 * functions.chunk_size(MAX_PAIRS) + functions.has_scale)
    launches = [
        Launch(
            f"forward<{layer.name}, {tile.warps}, {tile.tiles}>",
            checked_grid(grid, layer),
            tile.warps * 32,
            FORWARD_STAGES * stage_rows * (FORWARD_COLUMNS * layer.element.size + 32),
        )
    ]
    workspace_bytes = 0
    if splits > 1:
        workspace_bytes = splits * layer.rows * layer.outputs * 4
        grid = (ceil_div(layer.rows * layer.outputs, REDUCE_THREADS), 1, 1)
        kernel = f"reduce<{layer.element.value}>"
        launches.append(Launch(kernel, checked_grid(grid, layer), REDUCE_THREADS, 0))
    tensors = _read_by(layer, "y", *(("workspace",) if splits > 1 else ()))
    return Plan(layer, tuple(launches), tensors, workspace_bytes, splits, ceil_div(stages, splits))


def forward_waves(layer: Layer) -> float:
    """Blocks of the forward pass, in those that the GPU runs at a time."""
    grid = forward(layer).launches[0].grid
    places = row_tile(FORWARD_TILES, layer.rows).blocks_per_sm * layer.device.sms
    return grid[0] * grid[1] * grid[2] / places


def weight_grad(layer: Layer) -> Plan:
    """Plan the gradients of weight, base_weight and scale.

    Raises:
        ValueError: as `forward`.
    """
    blocks = ceil_div(layer.inputs, 8 * WEIGHT_GRAD_WARPS)
    grid = (ceil_div(layer.outputs, WEIGHT_GRAD_COLUMNS), *_in_y_and_z(blocks))
    threads = WEIGHT_GRAD_WARPS * 32
    stage_bytes = WEIGHT_GRAD_ROWS * (WEIGHT_GRAD_COLUMNS * layer.element.size + 32)
    shared_bytes = WEIGHT_GRAD_STAGES * stage_bytes
    if layer.rows > WEIGHT_GRAD_ROWS * WEIGHT_GRAD_TILES_PER_PART:
        shared_bytes += layer.functions.chunk_size(WEIGHT_GRAD_MAX_PAIRS) * 16 * threads * 4
    kernel = f"weight_grad<{layer.name}, {WEIGHT_GRAD_WARPS}>"
    launch = Launch(kernel, checked_grid(grid, layer), threads, shared_bytes)
    weights = ("weight", *_surrounding(layer))
    read = weights if layer.functions.has_scale else ()  # the gradient of a scale takes the weights
    written = (f"grad_{name}" for name in weights)
    return Plan(layer, (launch,), ("x", *read, *_params(layer), "grad_y", *written))


def input_grad(layer: Layer, tiling: Tiling = SUGGESTED) -> Plan:
    """Plan the gradient of x, in float32.

    Raises:
        ValueError: as `forward`.
    """
    tile = tiling.tile or row_tile(INPUT_GRAD_TILES, layer.rows)
    launch = _grad_of_values(layer, "input_grad", tile, layer.rows)
    return Plan(layer, (launch,), _read_by(layer, "grad_y", "grad_x"))


def param_grad(
    layer: Layer, size: int, tiling: Tiling = SUGGESTED, most_blocks: int = MAX_GRID[0]
) -> Plan:
    """Plan the gradients of the basis's parameters, `size` numbers for each input.

    They come as float32 of shape `(parts, inputs, size)`, and are the sums over the first
    dimension: a part is of 16 rows at a time.

    Raises:
        ValueError: as `forward`.
    """
    layer = replace(layer, functions=_of_basis(layer.functions))
    tile = row_tile(PARAM_GRAD_TILES, layer.rows)
    if tiling.tile in PARAM_GRAD_TILES:
        tile = tiling.tile
    part_bytes = layer.inputs * size * 4
    affordable = max(1, WORKSPACE_BYTES // (part_bytes * tile.warps))
    blocks = min(ceil_div(layer.rows, tile.rows), affordable, most_blocks)
    launch = _grad_of_values(layer, "param_grad", tile, blocks * tile.rows)
    tensors = _read_by(layer, "grad_y", "grad_params")
    return Plan(layer, (launch,), tensors, blocks * tile.warps * part_bytes)


def forward_tilings(layer: Layer) -> list[Tiling]:
    """Every tile, with every number of splits that fills waves; the suggested ones first."""
    own = row_tile(FORWARD_TILES, layer.rows)
    tiles = sorted(FORWARD_TILES, key=lambda tile: tile != own)
    return [Tiling(tile, splits) for tile in tiles for splits in split_plans(**_sums(layer, tile))]


def backward_tilings(layer: Layer) -> list[Tiling]:
    """Every tile of the gradients of x and of the basis's parameters; the suggested one first."""
    own = row_tile(INPUT_GRAD_TILES, layer.rows)
    return [Tiling(tile) for tile in sorted(INPUT_GRAD_TILES, key=lambda tile: tile != own)]


PASSES = ("forward", "weight_grad", "input_grad", "param_grad")


def _of_basis(functions: Functions) -> Functions:
    """Those that the parameters of the basis act on: SiLU would take products and registers."""
    return replace(functions, has_base=False)


def _surrounding(layer: Layer) -> tuple[str, ...]:
    functions = layer.functions
    return ("scale",) * functions.has_scale + ("base_weight",) * functions.has_base


def _params(layer: Layer) -> tuple[str, ...]:
    return tuple(f"params{n}" for n in range(len(layer.functions.basis.params)))


def _read_by(layer: Layer, *others: str) -> tuple[str, ...]:
    return ("x", "weight", *_surrounding(layer), *_params(layer), *others)


def _grad_of_values(layer: Layer, kernel: str, tile: RowTile, rows: int) -> Launch:
    """A kernel that multiplies grad_y with the weights, on blocks of so many rows in all."""
    functions = layer.functions
    chunk = functions.chunk_size(MAX_PAIRS)
    groups = 2 if chunk <= 5 else 1
    inputs = 4 * groups
    grid = (ceil_div(rows, tile.rows), *_in_y_and_z(ceil_div(layer.inputs, inputs)))
    stage_rows = inputs * (2 * chunk + functions.has_scale) + tile.rows
    pad = 4 if layer.element is Element.FLOAT else 16
    row_bytes = (INPUT_GRAD_OUTPUTS + pad) * layer.element.size
    return Launch(
        f"{kernel}<{layer.name}, {tile.warps}>",
        checked_grid(grid, layer),
        tile.warps * groups * 32,
        INPUT_GRAD_STAGES * stage_rows * row_bytes,
    )


def kernels_of(
    functions: Functions, element: Element, precision: Precision, trained: bool = False
) -> list[str]:
    """Every kernel that a layer of these functions may launch, over all sizes."""
    kind = f"{element.value}, {precision.value}"
    name, of_basis = f"{functions.name}, {kind}", f"{_of_basis(functions).name}, {kind}"
    return [
        *(f"forward<{name}, {tile.warps}, {tile.tiles}>" for tile in FORWARD_TILES),
        f"weight_grad<{name}, {WEIGHT_GRAD_WARPS}>",
        *(f"input_grad<{name}, {tile.warps}>" for tile in INPUT_GRAD_TILES),
        *(f"param_grad<{of_basis}, {tile.warps}>" for tile in PARAM_GRAD_TILES if trained),
        f"reduce<{element.value}>",
    ]


def evaluating(functions: Sequence[Functions] | None = None) -> list[str]:
    """The kernels that evaluate the bases of these or of `standard_functions` for the product form,
    each once."""
    chosen = standard_functions() if functions is None else functions
    structs = [name for each in chosen for name in (each.basis.cuda, *("Silu",) * each.has_base)]
    return [
        f"{kernel}<{struct}>"
        for struct in dict.fromkeys(structs)
        for kernel in ("basis_values", "basis_slopes")
    ]


def standard_functions() -> list[Functions]:
    """What is compiled ahead of every basis that is registered."""
    return [
        Functions(basis(**options), *surroundings)
        for basis in BASES.values()
        for options, *surroundings in basis.standard
    ]


def kernels_of_all(functions: Sequence[Functions] | None = None) -> list[str]:
    """The kernels of these or of `standard_functions`, all element types and precisions, each
    once."""
    kinds = [
        (Element.FLOAT, Precision.ACCURATE),
        (Element.FLOAT, Precision.TF32),
        (Element.BFLOAT16, Precision.TF32),
    ]
    names = [
        name
        for each in (standard_functions() if functions is None else functions)
        for kind in kinds
        for name in kernels_of(each, *kind, trained=bool(each.basis.trained))
    ]
    return list(dict.fromkeys(names))


def _forward_stages(layer: Layer) -> int:
    return ceil_div(layer.inputs, FORWARD_INPUTS) * layer.functions.num_chunks(MAX_PAIRS)


def _sums(layer: Layer, tile: RowTile) -> dict[str, int]:
    """What decides the parts of the sum over K: the arguments of `splits_of`."""
    stages = _forward_stages(layer)
    affordable = max(1, WORKSPACE_BYTES // (layer.rows * layer.outputs * 4))
    # A split shorter than the pipeline would wait for memory most of its time.
    useful = ceil_div(stages, FORWARD_STAGES)
    return {
        "stages": stages,
        "blocks": ceil_div(layer.rows, tile.rows) * ceil_div(layer.outputs, FORWARD_COLUMNS),
        "places": tile.blocks_per_sm * layer.device.sms,
        "least": ceil_div(stages * layer.functions.chunk_size(MAX_PAIRS), MAX_STEPS),
        "most": min(affordable, useful, MAX_GRID[2]),
    }


def _in_y_and_z(blocks: int) -> tuple[int, int]:
    """Two axes for more blocks than one takes; the last ones of a kernel may be idle."""
    depth = ceil_div(blocks, MAX_GRID[1])
    return ceil_div(blocks, depth), depth
