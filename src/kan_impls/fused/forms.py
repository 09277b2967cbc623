"""The forms of a product: how a pass of it is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kan_impls.fused.cpu import Compiled
from kan_impls.fused.tiles import SUGGESTED, Tiling
from kan_impls.fused.workspace import Workspace


@dataclass(frozen=True)
class Kernels:
    """The fused CUDA kernels."""

    tiling: Tiling = SUGGESTED

    def __str__(self) -> str:
        tile, splits = self.tiling
        words = ["kernels"]
        words += [] if tile is None else [f"with tile {tile.warps}x{tile.tiles}"]
        words += [] if splits is None else [f"and {splits} splits"]
        return " ".join(words)


@dataclass(frozen=True)
class Product:
    """The library's product of the values of the basis, cell by cell.

    Args:
        workspace: None is the one that the device suggests.
        is_evaluated: kernels evaluate the basis, instead of PyTorch's operators.
    """

    workspace: Workspace | None = None
    is_evaluated: bool = False

    def __str__(self) -> str:
        words = ["product"]
        words += [] if self.workspace is None else [f"in {self.workspace}"]
        words += ["of an evaluated basis"] if self.is_evaluated else []
        return " ".join(words)


@dataclass(frozen=True)
class CompiledProduct:
    """The product form, compiled for this CPU.

    Args:
        compiled: what is compiled.
    """

    compiled: Compiled

    def __str__(self) -> str:
        return "compiled product"


@dataclass(frozen=True)
class Formula:
    """PyTorch's own operators, which hold all values of the basis at once."""

    def __str__(self) -> str:
        return "formula"


Form = Kernels | Product | CompiledProduct | Formula

# Of the passes that are watched: they are told pass and form.
_watchers: list[Callable[[str, Form], None]] = []


def ran(which: str, form: Form) -> None:
    """Tell those who watch which form a pass takes."""
    for watcher in _watchers:
        watcher(which, form)


@contextmanager
def watched() -> Iterator[dict[str, str]]:
    """The forms of the passes that run meanwhile, in all threads: pass to the names of its forms,
    which several layers may take several of."""
    found: dict[str, str] = {}

    def note(which: str, form: Form) -> None:
        names = found.get(which, "").split("; ") if which in found else []
        found[which] = "; ".join(sorted({*names, str(form)}))

    _watchers.append(note)
    try:
        yield found
    finally:
        _watchers.remove(note)
