"""What is launched: kernels, blocks and memory, for tensors at any addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kan_impls.fused.problem import Layer, pack

# Blocks of one launch: x, y and z.
MAX_GRID = (2**31 - 1, 65535, 65535)


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel whose only argument is a struct Problem, by value."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    arguments: bytes = b""


@dataclass(frozen=True)
class Plan:
    """The launches of a pass, for tensors at any addresses.

    Args:
        layer: what they compute.
        launches: without arguments.
        tensors: names of those that the kernels read or write.
        workspace_bytes: of the tensor `workspace`, or of `grad_params`, that they need besides.
        splits, stages_per_split: of the forward pass.
    """

    layer: Layer
    launches: tuple[Launch, ...]
    tensors: tuple[str, ...]
    workspace_bytes: int = 0
    splits: int = 1
    stages_per_split: int = 0

    def at(self, addresses: Mapping[str, int], sets: Sequence[int] = ()) -> Iterator[Launch]:
        """The launches on tensors at these addresses, see `kan_impls.fused.problem.pack`.

        Raises:
            ValueError: an address is missing.
        """
        for name in self.tensors:
            if not addresses.get(name):
                raise ValueError(f"{name} has the address 0; expected that of a tensor")
        arguments = pack(self.layer, addresses, sets, self.splits, self.stages_per_split)
        for part in self.launches:
            yield replace(part, arguments=arguments)


def checked_grid(grid: tuple[int, int, int], layer: Layer) -> tuple[int, int, int]:
    """The grid.

    Raises:
        ValueError: it exceeds what a launch takes.
    """
    if any(size > limit for size, limit in zip(grid, MAX_GRID, strict=True)):
        raise ValueError(
            f"{layer.rows} rows, {layer.inputs} inputs and {layer.outputs} outputs take a grid "
            f"of {grid} blocks; expected at most {MAX_GRID}: split the batch or the layer"
        )
    return grid
