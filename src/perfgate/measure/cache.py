"""Cold caches: overwrite what the last run left in them, outside the timed window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch

Cache = Literal["warm", "cold"]
CACHES: tuple[Cache, ...] = get_args(Cache)

# Where the system does not say how large its last cache is.
ASSUMED_BYTES = 64 * 2**20


def default_cache(device: torch.device) -> Cache:
    """Cold on a GPU, whose L2 holds a small layer's weights from one run to the next as no
    training step finds them; warm on a CPU."""
    return "cold" if device.type == "cuda" else "warm"


def flusher(device: torch.device, cache: Cache) -> Callable[[], None]:
    """What empties the last cache of the device; nothing for warm ones.

    A buffer of twice the cache's size is written, since one of its size can leave lines behind.
    """
    if cache == "warm":
        return lambda: None
    buffer = torch.empty(2 * cache_bytes(device) // 4, dtype=torch.int32, device=device)

    def flush() -> None:
        buffer.zero_()

    return flush


def cache_bytes(device: torch.device) -> int:
    """Size of the device's last cache."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = []
    for path in folder.glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * 1024)
    return max(sizes, default=ASSUMED_BYTES)
