"""How a kernel cuts its work: rows of a block, and parts of the sum over K."""

from __future__ import annotations

from typing import NamedTuple

from kan_impls.fused.problem import ceil_div


class RowTile(NamedTuple):
    """`warps` * `tiles` * 16 rows of the batch in one block."""

    warps: int
    tiles: int

    @property
    def rows(self) -> int:
        return 16 * self.warps * self.tiles

    @property
    def blocks_per_sm(self) -> int:
        """Blocks of the forward pass that run on a multiprocessor at a time at least, as its
        kernel asks the compiler for."""
        return 2 if self.tiles == 1 else 1


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
# With more warps the accurate kernels of bases with many parameters would be short of registers.
PARAM_GRAD_TILES = INPUT_GRAD_TILES[:2]

READ_ROWS = 64  # reading the weights of a block once costs as much as so many rows (an estimate)


class Tiling(NamedTuple):
    """How a pass is cut; None is what the estimates of this package suggest for its shape.

    Args:
        tile: one of `FORWARD_TILES`, or of `INPUT_GRAD_TILES` in a backward pass.
        splits: of the sum over K, in the forward pass.
    """

    tile: RowTile | None = None
    splits: int | None = None


SUGGESTED = Tiling()


def row_tile(tiles: tuple[RowTile, ...], rows: int) -> RowTile:
    """The tile that costs least in all by the estimate: the rows of its blocks, idle or not, and
    for each block the weights that it reads."""
    return min(tiles, key=lambda tile: ceil_div(rows, tile.rows) * (tile.rows + READ_ROWS))
