"""How much memory the product form takes on a device, besides operands and results; and the
last cache of a CPU."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

_MIB = 2**20

# Where Linux says what caches there are.
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

# Of a launch, from the host's call to the next one (an estimate).
LAUNCH_SECONDS = 4e-6

# An operator that moves its share of the workspace should take so many times longer than a launch.
LAUNCHES_HIDDEN = 20

# What a GPU moves in a second, where torch does not say (an estimate, that of the slowest with
# tensor cores for TF32).
LEAST_BYTES_PER_SECOND = 400e9

# A part of all memory, which nobody misses; and the part of the free memory that is taken at most.
SHARE, MOST_OF_FREE = 64, 4


class Workspace(NamedTuple):
    """What a pass holds at most, and how it is used.

    Args:
        most: bytes, which a pass of few rows does not need.
        least: bytes for each product of a cell, beyond which it takes no more than half of the
            values of its functions.
        prepared: bytes of x of which all is prepared at once, if that is all of its rows.
        in_pieces: whether what a basis holds may be cut finer than a cell: less memory, and more
            operators.
    """

    most: int
    least: int
    prepared: int
    in_pieces: bool = True

    def __str__(self) -> str:
        return f"{self.most // _MIB} MiB"


def of_launches(most: int) -> Workspace:
    """A workspace where an operator costs a launch: as few and as large ones as it holds."""
    return Workspace(most, most, most // 8, in_pieces=False)


@lru_cache
def last_cache_bytes(folder: Path = _CACHES) -> float:
    """Of this CPU; infinitely many where the system does not say (Linux does)."""
    try:
        sizes = [path.read_text().strip() for path in folder.glob("index*/size")]
    except OSError:
        return math.inf
    in_kib = [int(size[:-1]) for size in sizes if size.endswith("K") and size[:-1].isdigit()]
    return 1024 * max(in_kib) if in_kib else math.inf


@lru_cache
def of_gpu(index: int) -> Workspace:
    """The workspace that a GPU suggests when a process first asks: hundreds of MiB.

    It is so large that launches take little beside what they launch, and a small part of all
    memory; it is never more than a part of the memory that is free then.
    """
    found = torch.cuda.get_device_properties(index)
    return of_launches(_suggested(found.total_memory, _free(index), _bytes_per_second(found)))


def candidates(index: int) -> list[Workspace]:
    """Workspaces to be measured on a GPU: the suggested one first, then those that are a quarter
    of it, and that stay in the second-level cache."""
    suggested = of_gpu(index)
    cache = int(torch.cuda.get_device_properties(index).L2_cache_size) // 2
    sizes = (suggested.most, suggested.most // 4, cache)
    return [of_launches(size) for size in dict.fromkeys(sizes) if 0 < size <= suggested.most]


def _suggested(total: int, free: int, bytes_per_second: float) -> int:
    hiding = int(LAUNCHES_HIDDEN * LAUNCH_SECONDS * bytes_per_second)
    return max(_MIB, min(max(hiding, total // SHARE), free // MOST_OF_FREE))


def _free(index: int) -> int:
    """Bytes that the driver has, and that torch's allocator keeps for nobody."""
    kept = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return torch.cuda.mem_get_info(index)[0] + kept


def _bytes_per_second(properties: object) -> float:
    clock_khz = getattr(properties, "memory_clock_rate", 0)
    bus_bits = getattr(properties, "memory_bus_width", 0)
    return float(2 * clock_khz * 1000 * bus_bits / 8) or LEAST_BYTES_PER_SECOND
