"""Global memory, and the kernel's parameter: bounds, alignment, and who wrote what."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from tests.ptx.parse import Fault

NOBODY = -1


def check_aligned(addresses: np.ndarray, size: int) -> None:
    """Pass where each address is a multiple of the size.

    Raises:
        Fault: one is not.
    """
    wrong = addresses[addresses % size != 0]
    if len(wrong):
        raise Fault(f"misaligned: {hex(int(wrong[0]))} for {size} bytes")


def words(data: np.ndarray, offsets: np.ndarray, width: int, count: int) -> np.ndarray:
    """(threads, count) unsigned numbers of `width` bytes, each thread's at its offset."""
    return data.view(f"uint{8 * width}")[offsets[:, None] // width + np.arange(count)]


class Parameter:
    """The struct that a kernel takes; its address is 0."""

    def __init__(self, struct: bytes) -> None:
        self._data = np.frombuffer(struct, np.uint8)

    def load(self, threads: np.ndarray, addresses: np.ndarray, width: int, count: int):
        check_aligned(addresses, width * count)
        if addresses.min() < 0 or addresses.max() + width * count > len(self._data):
            raise Fault(f"outside of the parameter of {len(self._data)} bytes")
        return words(self._data, addresses, width, count)


class Global:
    """Tensors at their own addresses.

    Args:
        tensors: bytes, which change, by name.
        addresses: by name.
        outputs: names of those that are written; all others are read only. What they hold at
            first is nobody's.
        begun: those outputs that are added to: they may be read.
    """

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        addresses: Mapping[str, int],
        outputs: set[str],
        begun: Collection[str] = (),
    ) -> None:
        names = sorted(tensors, key=addresses.__getitem__)
        self._tensors = {name: tensors[name] for name in names}
        self._outputs = outputs
        self._starts = np.array([addresses[name] for name in names])
        sizes = np.array([len(tensors[name]) for name in names])
        self._ends = self._starts + sizes
        # All tensors in one array, each at its own distance from multiples of 16.
        room = (sizes + 47) // 16 * 16
        self._places = np.cumsum(room) - room + self._starts % 16
        self._writable = np.array([name in outputs for name in names])
        self._data = np.zeros(room.sum(), np.uint8)
        # By halfword. A writer is a thread of the running launch.
        self._is_known = np.zeros(len(self._data) // 2, bool)
        self._stores = np.zeros(len(self._data) // 2, np.uint16)
        self._writer = np.full(len(self._data) // 2, NOBODY)
        for name, place in zip(names, self._places, strict=True):
            self._data[place : place + len(tensors[name])] = tensors[name]
            self._is_known[self._halfwords(name, place)] = name not in outputs or name in begun

    def _halfwords(self, name: str, place: int) -> slice:
        return slice(place // 2, (place + len(self._tensors[name])) // 2)

    def begin_launch(self) -> None:
        self._writer[:] = NOBODY

    def finish(self, accumulated: set[str]) -> None:
        """Hand the outputs over.

        Args:
            accumulated: outputs that a thread may write to more than once.

        Raises:
            Fault: a part of an output was not written, or more than once.
        """
        for (name, tensor), place in zip(self._tensors.items(), self._places, strict=True):
            if name not in self._outputs:
                continue
            stores = self._stores[self._halfwords(name, place)]
            if not stores.all():
                raise Fault(f"{2 * (stores == 0).sum()} bytes of {name} are never written")
            if name not in accumulated and (stores > 1).any():
                raise Fault(f"{2 * (stores > 1).sum()} bytes of {name} are written more than once")
            tensor[:] = self._data[place : place + len(tensor)]

    def load(self, threads: np.ndarray, addresses: np.ndarray, width: int, count: int):
        offsets, _ = self._place(addresses, width * count)
        cells = _cells(offsets, width * count)
        if not self._is_known[cells].all():
            raise Fault("a read of global memory that nobody wrote")
        writer = self._writer[cells]
        if ((writer != NOBODY) & (writer != threads[:, None])).any():
            raise Fault("a read of what another thread writes in the same launch")
        return words(self._data, offsets, width, count)

    def store(self, threads: np.ndarray, addresses: np.ndarray, values: np.ndarray) -> None:
        """Values: (threads, count) unsigned numbers."""
        width, count = values.itemsize, values.shape[1]
        offsets, tensors = self._place(addresses, width * count)
        if not self._writable[tensors].all():
            raise Fault("a write to a tensor that is an input")
        cells = _cells(offsets, width * count)
        writer = self._writer[cells]
        if ((writer != NOBODY) & (writer != threads[:, None])).any():
            raise Fault("two threads write to one address")
        self._writer[cells] = threads[:, None]
        if (self._writer[cells] != threads[:, None]).any():
            raise Fault("two threads write to one address at once")
        self._is_known[cells] = True
        self._stores[cells] += 1
        self._data.view(values.dtype)[offsets[:, None] // width + np.arange(count)] = values

    def _place(self, addresses: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Offsets into the data, and which tensors."""
        check_aligned(addresses, size)
        tensors = np.searchsorted(self._starts, addresses, side="right") - 1
        is_inside = (tensors >= 0) & (addresses + size <= self._ends[tensors])
        if not is_inside.all():
            index = int(np.flatnonzero(~is_inside)[0])
            name = [*self._tensors][max(0, tensors[index])]
            distance = int(addresses[index] - self._starts[max(0, tensors[index])])
            raise Fault(f"global memory out of bounds: byte {distance} from the start of {name}")
        return addresses - self._starts[tensors] + self._places[tensors], tensors


def _cells(offsets: np.ndarray, size: int) -> np.ndarray:
    """(threads, halfwords)."""
    return offsets[:, None] // 2 + np.arange(size // 2)
