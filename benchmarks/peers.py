"""Packages of others, measured beside ours wherever they are installed.

Each is brought as anybody's layer is, by a factory: `--variant benchmarks/peers.py:inkan` holds one
to the contract. Default options give layers of as many parameters as ours at the reference.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from kan_impls import Variant


def inkan(in_features, out_features, grid_size=6):
    """Splines by their pieces, and SiLU; no scaler, so that one more interval fits."""
    from inkan import KANLayer

    return KANLayer(in_features, out_features, grid_size=grid_size)


def flashkan(in_features, out_features, grid_size=6):
    """Splines by truncated powers, and SiLU."""
    from flashkan.layer import KANLayer

    return KANLayer(in_features, out_features, grid_size=grid_size)


def kanditioned(in_features, out_features, num_control_points=10):
    """Linear interpolation between control points."""
    from KANditioned.kan_layer import KANLayer

    # Not its default way, a sparse product that 1.0.4 gives a weight of three dimensions.
    return KANLayer(
        in_features,
        out_features,
        init="random_normal",
        num_control_points=num_control_points,
        impl="embedding_bag",
    )


def efficient_kan_upstream(in_features, out_features, grid_size=5, spline_order=3):
    """The published layer that `efficient_kan` is the function of."""
    from efficient_kan import KANLinear

    return KANLinear(in_features, out_features, grid_size=grid_size, spline_order=spline_order)


def pykan_upstream(in_features, out_features, grid_size=5, spline_order=3):
    """The published layer that `pykan` is the function of."""
    from kan.KANLayer import KANLayer

    return _First(KANLayer(in_features, out_features, num=grid_size, k=spline_order))


class _First(nn.Module):
    """The first of several results."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


@dataclass(frozen=True)
class Peer:
    """A package, and the factory of its layer.

    Args:
        factory: builds a layer.
        distribution: what pip installs.
        functions: how many functions an edge has where not every parameter of it is one.
    """

    factory: Callable[..., nn.Module]
    distribution: str
    functions: int | None = None

    @property
    def name(self) -> str:
        return self.factory.__name__

    def variant(self) -> Variant:
        # Not above: an older code that is measured beside this one has no such module.
        from kan_impls.brought import as_variant

        found = as_variant(self.name, self.factory)
        if self.functions is None:
            return found
        return replace(found, functions_per_input=lambda config: self.functions)

    def version(self) -> str | None:
        """The installed one; None if there is none."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None


# SiLU and eight splines; scales and masks are parameters, too.
_SPLINES = 9

PEERS = {
    peer.name: peer
    for peer in (
        Peer(efficient_kan_upstream, "efficient_kan", _SPLINES),
        Peer(pykan_upstream, "pykan", _SPLINES),
        Peer(inkan, "inkan"),
        Peer(flashkan, "flashkan"),
        Peer(kanditioned, "kanditioned"),
    )
}


def installed() -> dict[str, Peer]:
    """Those that are there."""
    return {name: peer for name, peer in PEERS.items() if peer.version()}
