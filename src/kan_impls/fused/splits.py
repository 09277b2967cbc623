"""Into how many parts the sum of a product is split, so that its blocks fill whole waves.

A wave is as many blocks as a GPU runs at a time. A few blocks beyond a whole number of waves take
as long as a wave more.
"""

from __future__ import annotations

from kan_impls.fused.problem import ceil_div

# A split costs as much as so many stages more, to fill its pipeline and to write its partial sums
# (an estimate).
STAGES_OF_A_SPLIT = 4

# More waves than this gain less than a tenth by being whole.
MAX_WAVES = 4


def splits_of(
    stages: int,
    blocks: int,
    places: int,
    least: int = 1,
    most: int = 2**31,
    wanted: int | None = None,
) -> int:
    """The number of splits that takes the shortest time by the estimate, or about as many as are
    wanted; the arguments are those of `split_plans`."""
    if wanted is not None:
        return _within(wanted, stages, least, most)
    return split_plans(stages, blocks, places, least, most)[0]


def split_plans(
    stages: int, blocks: int, places: int, least: int = 1, most: int = 2**31
) -> list[int]:
    """Numbers of splits that fill one wave, two and so on, each once.

    Args:
        stages: of the pipeline, in the whole sum.
        blocks: of one split.
        places: blocks that the GPU runs at a time.
        least, most: splits that accuracy asks for, and that memory and grid allow; `most` wins.

    Returns:
        The one that takes the shortest time by the estimate first, the smallest of several. None of
        the splits is empty.
    """

    def time(splits: int) -> tuple[int, int]:
        waves = ceil_div(blocks * splits, places)
        return waves * (ceil_div(stages, splits) + STAGES_OF_A_SPLIT), splits

    # Rounded down: one more would begin another wave.
    wholes = (waves * places // blocks for waves in range(1, MAX_WAVES + 1))
    return sorted({_within(splits, stages, least, most) for splits in wholes}, key=time)


def _within(splits: int, stages: int, least: int, most: int) -> int:
    splits = max(1, min(max(splits, least), most, stages))
    return ceil_div(stages, ceil_div(stages, splits))
