"""The shapes that are measured, and the implementations that are measured at them."""

import importlib.metadata
import importlib.util

import pytest

from kan_impls import Variant, get_variant, list_variants
from perfgate.network.case import Case

BATCH = 100
WIDTH = 1000
GRID = 5

PUBLISHED = "efficient_kan_upstream"


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
    """The registered ones, and the published efficient-kan beside ours."""
    names = list_variants()
    names.insert(names.index("efficient_kan") + 1, PUBLISHED)
    return names


def variant_called(name: str) -> Variant:
    """The implementation to measure; skips the benchmark where it is not installed."""
    return _published_efficient_kan() if name == PUBLISHED else get_variant(name)


def package_version(name: str) -> str | None:
    """Version of the package that an implementation comes from, where it is not this one."""
    return importlib.metadata.version("efficient_kan") if name == PUBLISHED else None


def _published_efficient_kan() -> Variant:
    if importlib.util.find_spec("efficient_kan") is None:
        pytest.skip(
            "the published efficient_kan is not installed: pip install -e '.[upstream]' brings it"
        )
    import efficient_kan

    ours = get_variant("efficient_kan")

    def layer(in_features, out_features, device=None, **config):
        return efficient_kan.KANLinear(in_features, out_features, **config).to(device)

    def model(widths, device=None, **config):
        return efficient_kan.KAN(list(widths), **config).to(device)

    return Variant(
        name=PUBLISHED,
        formula=ours.formula,
        paper="https://github.com/Blealtan/efficient-kan",
        layer=layer,
        model=model,
        functions_per_input=ours.functions_per_input,
        reference_widths=ours.reference_widths,
        reference_config=ours.reference_config,
        size=ours.size,
    )
