"""Huge pages for large results."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from torch import Tensor

HUGE_PAGE_BYTES = 2 * 2**20
_MADV_HUGEPAGE = 14  # linux/mman.h


def advise_huge_pages(tensor: Tensor) -> Tensor:
    """Ask for huge pages behind a large CPU tensor before it is first written; return it.

    The C library gives tensors of tens of megabytes fresh pages each time, and the kernel
    fills each with zeros when it is first touched: a weight gradient of 40 MB costs 10,000
    page faults, about a third of the time of the matrix product that writes it. With
    2 MB pages there are 20. It is a hint: where it has no meaning, nothing happens.
    """
    # Only memory that exists: subclasses such as fake tensors have no address.
    if type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.is_contiguous():
        start = -(-tensor.data_ptr() // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        end = (tensor.data_ptr() + tensor.nbytes) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
        if start < end and (madvise := _madvise()) is not None:
            madvise(start, end - start, _MADV_HUGEPAGE)
    return tensor


@cache
def _madvise():
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
