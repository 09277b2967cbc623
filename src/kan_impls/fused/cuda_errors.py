"""What a status of the CUDA driver means for a kernel: unusable, or a failure of something else.

Only an error that says that this kernel cannot be had here disables it. Memory that has run out
returns, and after a sticky error nothing works any more: both stay what they are.
"""

from __future__ import annotations

import torch

from kan_impls.fused.compiler import KernelUnavailable

OUT_OF_MEMORY = 2

# The values of CUresult, which are part of the driver's binary interface, where the image is at
# fault: invalid, of another architecture, of an unsupported PTX version, without the symbol.
BAD_IMAGE = frozenset({200, 209, 218, 221, 222, 223, 300, 301, 302, 303, 500, 801})

# Those of a launch that this device never takes: an invalid value, and too many resources.
BAD_LAUNCH = frozenset({1, 701})

# A thread without a context, and one where another library's is current: its handles are foreign.
FOREIGN_CONTEXT = frozenset({201, 400})


# What another thread or the end of the process causes: not initialised, shutting down, and a stream
# that is being captured. The device goes on.
TRANSIENT = frozenset({3, 4, *range(900, 909)})


class TransientError(RuntimeError):
    """The driver failed with one of `TRANSIENT`."""


def error(status: int, message: str, unusable: frozenset[int] = frozenset()) -> RuntimeError:
    """The error of a status: `KernelUnavailable` for one of `unusable`."""
    if status == OUT_OF_MEMORY:
        return torch.OutOfMemoryError(message)
    if status in unusable:
        return KernelUnavailable(message)
    return TransientError(message) if status in TRANSIENT else RuntimeError(message)
