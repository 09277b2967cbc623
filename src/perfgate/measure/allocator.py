"""What the C library does with freed memory, which decides how much of a time is page faults."""

from __future__ import annotations

import ctypes
import sys

# From malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next allocations, as CUDA's allocator does.

    By default glibc returns every block beyond 32 MiB to the system, and the next one is made
    of new pages, whose faults cost a third of a pass over such a block, and between two processes
    on a virtual machine up to twice as much. The number and size of allocations is what memory is
    measured by, not time.

    Returns:
        whether the C library does so from now on; other ones than glibc are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> None:
    """Give what is freed and kept back to the system, where another case or process needs it."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
