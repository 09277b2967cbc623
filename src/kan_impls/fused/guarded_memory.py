"""Tensors in one allocation of a device, each between guard words that show a stray write."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import torch
from torch import Tensor

from kan_impls.fused.problem import ceil_div

_GUARD_BYTE, _GUARD_BYTES = 0xA5, 4096
_ALIGNMENT = 256  # as that of an allocation: tensors are read by vectors

Key = Hashable


class GuardedMemory:
    """Tensors of the CPU, by any keys, copied to a device.

    Args:
        tensors: with the values that they start with.
        outputs: the keys of those that may be written.
    """

    def __init__(
        self, tensors: Mapping[Key, Tensor], outputs: Iterable[Key], device: torch.device
    ) -> None:
        self.tensors, self.outputs = tensors, set(outputs)
        self.starts, end = dict[Key, int](), _GUARD_BYTES
        for key, tensor in tensors.items():
            self.starts[key] = end
            end += ceil_div(tensor.nbytes, _ALIGNMENT) * _ALIGNMENT + _GUARD_BYTES
        self.host = torch.full((end,), _GUARD_BYTE, dtype=torch.uint8, device="cpu")
        for key, tensor in tensors.items():
            self.host[self._place(key)] = tensor.contiguous().view(-1).view(torch.uint8)
        # This copy waits for the stream: what failed before the kernels shows here.
        self.device = torch.empty_like(self.host, device=device).copy_(self.host)
        self.found = self.host.clone()  # now: a lack of memory is no fault of a kernel

    def address(self, key: Key) -> int:
        return self.device.data_ptr() + self.starts[key]

    def read_back(self) -> None:
        """The one synchronisation with the kernels."""
        self.found.copy_(self.device)

    def read(self, key: Key) -> Tensor:
        """In float64."""
        tensor = self.tensors[key]
        return self.found[self._place(key)].view(tensor.dtype).view(tensor.shape).double()

    def overwritten(self) -> bool:
        """Whether anything changed that is no output."""
        changed = self.found != self.host
        for key in self.outputs:
            changed[self._place(key)] = False
        return bool(changed.any())

    def _place(self, key: Key) -> slice:
        return slice(self.starts[key], self.starts[key] + self.tensors[key].nbytes)
