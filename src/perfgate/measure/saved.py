"""What a forward pass keeps for backward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class SavedStorages:
    """The storages of what autograd saves, each once.

    Args:
        not_counted: what lives anyway, as parameters do.
    """

    def __init__(self, not_counted: Iterable[Tensor]) -> None:
        self._known = {StorageWeakRef(tensor.untyped_storage()) for tensor in not_counted}
        self._saved: dict[StorageWeakRef, int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it a forward pass runs."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # A weak reference, whose address nothing else takes: a result that nobody uses lets go of
        # what it saved, and neither counts nor hides what comes after it.
        reference = StorageWeakRef(storage)
        if reference not in self._known:
            self._saved[reference] = storage.nbytes()
        return tensor.detach()  # an output that holds itself would never be released

    def nbytes(self) -> int:
        """Of what is still held."""
        return sum(size for held, size in self._saved.items() if not held.expired())
