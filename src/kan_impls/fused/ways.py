"""Which way a pass of a CPU's library goes, and what memory it takes, by the sizes of the layer.

Few rows, and small layers, take a pass over the rows of weights whose functions are not zero;
weights that take a scale take it in a product of the library's own; few outputs take vectors of
rows. Everywhere else torch's products are as fast. All thresholds are measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from kan_impls.fused.problem import ceil_div

# By rows of weights, with a matrix product of its own, and by vectors of rows.
Way = Literal["direct", "blocks", "few_outputs"]
Direction = Literal["forward", "backward", "backward with x"]

# With more values than this that are not zero, for each input, a product is faster than a pass over
# the weights. A backward pass over weights that the last cache holds is never faster, and with a
# scale a product reads them as often.
FEW_VALUES = 80
FEW_SCALED_VALUES = 16
# So many products of a layer take less time than the operators around them.
SMALL_WORK = 1 << 21
# Passes over the weights take vectors of outputs: fewer outputs than this take as long.
VECTOR = 16
# So many take about as long as to wake a thread; cell.h has the same.
WORK_OF_THREAD = 1 << 15
# Passes in blocks: rows and outputs that are in registers at once (or fewer), as multiply.h has it;
# functions and outputs in a thread's caches, as blocks.h has it; and functions at most of an input.
TILE_ROWS, TILE_OUTPUTS = 12, 32
BLOCK_DEPTH, BLOCK_WIDTH = 256, 256
MOST_FUNCTIONS = 1024
# Rows of which blocks hold the functions at once, as cpu.cpp has it. With more rows than this and
# wide vectors torch's product is as fast: a copy of scaled weights costs it little.
BLOCK_ROWS = 1024
# It takes weights without a scale where they are; with so many rows it is slower all the same. With
# shorter vectors (measured with 8 floats, on an AMD EPYC) it is slower with any, scale or not.
UNSCALED_ROWS = (128, 512)
WIDE_VECTOR = 16
# And with more than these where outputs fill but a part of a tile.
ROWS_OF_PART = 128
# Beyond so many floats of grad_y the second-level cache does not hold what all inputs read.
COTANGENT_FLOATS = 1 << 18
# Vectors are of rows where there are no more outputs, and of so many rows, as few_outputs.h has it.
FEW_OUTPUTS, ROWS_AT_ONCE = 8, 512
# A part of a pass, `Tile` of direct.h, holds so many values, of one input or more.
MOST_VALUES = 8192


class Sizes(NamedTuple):
    """Of a layer and its batch.

    Args:
        functions: of the basis.
        num_active: how many of them differ from zero at most.
        has_scale: whether their weights take one.
        has_base: whether SiLU has weights.
        vector: floats of a vector of the CPU.
    """

    rows: int
    functions: int
    inputs: int
    outputs: int
    num_active: int
    has_scale: bool
    has_base: bool
    vector: int

    @property
    def work(self) -> int:
        """How many products a pass over the weights takes the time of."""
        return self.rows * self.functions * self.inputs * max(self.outputs, VECTOR)

    @property
    def weight_bytes(self) -> int:
        """Of all weights."""
        return 4 * (self.functions + self.has_base) * self.inputs * self.outputs

    def threads(self, most: int) -> int:
        """How many take part: to wake one takes as long as some work."""
        return max(1, min(most, self.work // WORK_OF_THREAD))


@dataclass(frozen=True)
class Plan:
    """A pass of the library's.

    Args:
        way: how it goes.
        threads: how many take part.
        floats: its workspace.
    """

    way: Way
    threads: int
    floats: int


@lru_cache(maxsize=1024)
def plan(
    sizes: Sizes, direction: Direction, threads: int, most_bytes: int, cache_bytes: float
) -> Plan | None:
    """How a pass is taken without torch's products; None where these are faster.

    Args:
        threads: how many there are.
        most_bytes: of the workspace; None where it would be larger.
        cache_bytes: of the last cache of this CPU.
    """
    # They share the inputs among them.
    if sizes.outputs <= FEW_OUTPUTS and sizes.threads(threads) <= sizes.inputs:
        way: Way = "few_outputs"
    elif _is_direct(sizes, direction, cache_bytes):
        way = "direct"
    elif _is_faster_in_blocks(sizes, direction):
        way = "blocks"
    else:
        return None
    found = plan_of(way, sizes, direction, threads)
    return found if 4 * found.floats <= most_bytes else None


def plan_of(way: Way, sizes: Sizes, direction: Direction, threads: int) -> Plan:
    """The plan of this way."""
    threads = sizes.threads(threads)
    shared, own = _floats(way, sizes, direction)
    return Plan(way, threads, shared + threads * own)


def _is_direct(sizes: Sizes, direction: Direction, cache_bytes: float) -> bool:
    if sizes.rows * (sizes.functions + 1) > MOST_VALUES:
        return False
    if sizes.work <= SMALL_WORK:
        return True
    if sizes.outputs < VECTOR:
        return False
    values = sizes.rows * sizes.num_active
    if direction == "forward":
        return values <= FEW_VALUES
    most = FEW_SCALED_VALUES if sizes.has_scale else FEW_VALUES
    return values <= most and sizes.weight_bytes > cache_bytes


def _is_faster_in_blocks(sizes: Sizes, direction: Direction) -> bool:
    """Without a scale torch's product takes the weights where they are, and writes their gradients
    there; for few outputs its operators are the longer part."""
    if sizes.functions >= MOST_FUNCTIONS:
        return False
    if sizes.outputs < TILE_OUTPUTS:
        return sizes.rows <= ROWS_OF_PART
    if direction == "forward":
        fewest, most = (0, BLOCK_ROWS) if sizes.has_scale else UNSCALED_ROWS
        return sizes.vector < WIDE_VECTOR or fewest < sizes.rows <= most
    return sizes.has_scale and _cotangent_floats(sizes, direction) <= COTANGENT_FLOATS


def _floats(way: Way, sizes: Sizes, direction: Direction) -> tuple[int, int]:
    """What a pass takes of memory, all threads together and each of them besides: what `floats` is
    in csrc, and in a forward pass a sum for each thread but one."""
    rows, outputs, is_forward = sizes.rows, sizes.outputs, direction == "forward"
    functions = sizes.functions + sizes.has_base
    shared = own = 0
    if way == "few_outputs":
        own = (2 * functions + outputs + 2) * ROWS_AT_ONCE
    elif way == "direct":
        own = 0 if is_forward else outputs
    elif is_forward:
        rows = ceil_div(rows, ceil_div(rows, BLOCK_ROWS))
        depth = max(1, BLOCK_DEPTH // functions) * functions
        own = depth * (BLOCK_WIDTH + rows + TILE_ROWS) + (functions + 1) * rows
    else:
        shared = _cotangent_floats(sizes, direction)
        own = (_rounded_up(functions, TILE_ROWS) + 2 * functions + 1) * rows
        own += functions * (_rounded_up(rows, TILE_OUTPUTS) + 1)
    own, sums = _rounded_up(own, TILE_OUTPUTS), rows * outputs if is_forward else 0
    return shared - sums, own + sums


def _cotangent_floats(sizes: Sizes, direction: Direction) -> int:
    """Those of `Cotangent` in blocks.h."""
    high, wide = (_rounded_up(size, TILE_OUTPUTS) for size in (sizes.rows, sizes.outputs))
    return wide * sizes.rows + (high * sizes.outputs if direction == "backward with x" else 0)


def _rounded_up(size: int, step: int) -> int:
    return ceil_div(size, step) * step
