"""The shapes that are measured, and the implementations that are measured at them."""

import peers

from kan_impls import Variant, get_variant, list_variants, registry
from perfgate.network.case import Case

BATCH = 100
WIDTH = 1000
GRID = 5


def reference(variant: Variant) -> Case:
    """About 10M parameters at batch 100: the original comparison."""
    return Case("reference", variant, BATCH, variant.reference_widths, variant.reference_config)


def mnist(variant: Variant) -> Case:
    """The same widths for all, MLP included, at a batch where memory decides."""
    return Case("mnist", variant, 36_864, (784, 256, 10), variant.reference_config)


def scaled(
    name: str,
    variant: Variant,
    batch: int = BATCH,
    width: int = WIDTH,
    grid: int = GRID,
    outputs: int = 1,
) -> Case:
    """The reference with other sizes; an MLP of as many parameters as a Fourier layer."""
    if variant.name == "mlp":
        return Case(name, variant, batch, (width, 2 * grid * width, outputs))
    config = {variant.size: grid} if variant.size else {}
    return Case(name, variant, batch, (width, width, outputs), config)


# One size grows at a time, around the reference.
GROWTH = {
    **{f"width-{width}": {"width": width} for width in (250, 500, 2000)},
    **{f"grid-{grid}": {"grid": grid} for grid in (10, 20, 40)},
}

# From one row, whose weights are read for it alone, to a data set at once.
BATCH_SIZES = {f"batch-{batch}": {"batch": batch} for batch in (1, 8, 32, 100, 1000, 4000, 36_864)}

# Networks that most people train: two layers of equal widths, where calls cost more than products.
SMALL = {
    f"small-{width}": {"batch": 64, "width": width, "outputs": width} for width in (2, 16, 64, 128)
}


def implementations() -> list[str]:
    """The registered ones, and the packages of others that are installed."""
    return list(dict.fromkeys([*list_variants(), *peers.installed()]))


def variant_called(name: str) -> Variant:
    """The implementation to measure."""
    return peers.PEERS[name].variant() if name in peers.PEERS else get_variant(name)


def is_from_elsewhere(name: str) -> bool:
    """Whether somebody brought an implementation, so that no test here is of it."""
    return name not in {variant.name for variant in registry.BUILT_IN}


def package_version(name: str) -> str | None:
    """Version of the package that an implementation comes from, where it is not this one."""
    return peers.PEERS[name].version() if name in peers.PEERS else None
