"""What the device-free memory gate measures: cases held to the byte, and growth laws."""

import torch
from cases import mnist, reference

from kan_impls import Variant, list_variants, registry
from kan_impls.bench.case import FLOAT_BYTES, Case
from kan_impls.bench.device_free_baseline import Entry, Key
from kan_impls.bench.growth_law import Exponents, Law, Sizes
from kan_impls.bench.measure.device_free import track_passes
from kan_impls.bench.workload import Workload, device_free_bytes

# A backward pass that nobody asks the input's gradient of, and one within a network.
PASSES = ("backward", "backward_with_input_grad")

# Ten times what the largest case here takes; so many take some five seconds.
MAX_OPERATORS = 20_000

LINEAR = Exponents(batch=1, width=1, grid=1)
LINEAR_WITHOUT_GRID = Exponents(batch=1, width=1, grid=0)

# One row per implementation. Where all is held at once: batches at which the activations outweigh
# the weights. In blocks: outputs at which they outweigh the workspace, which is bounded.
LAWS = {
    "mlp": Law(
        at=Sizes(65_536, 512, 512),
        forward=Exponents(batch=1, width=1),
        backward=Exponents(batch=1, width=1),
        saved=Exponents(batch=1, width=1),
    ),
    "efficient_kan": Law(
        at=Sizes(65_536, 128, 128, grid=64), forward=LINEAR, backward=LINEAR, saved=LINEAR
    ),
    "fourier_kan": Law(  # two products of shape (batch, outputs, inputs, grid)
        at=Sizes(65_536, 1024, 1024, grid=16),
        forward=Exponents(batch=1, width=2, grid=1),
        backward=Exponents(batch=1, width=2, grid=1),
        saved=LINEAR,
    ),
    "fused_fourier_kan": Law(
        at=Sizes(2048, 8, 2048, grid=4),
        forward=LINEAR_WITHOUT_GRID,
        backward=LINEAR_WITHOUT_GRID,
        saved=None,  # its input lives anyway
        in_blocks=True,
    ),
    "fused_efficient_kan": Law(
        at=Sizes(2048, 4, 2048, grid=5),
        forward=LINEAR_WITHOUT_GRID,
        backward=LINEAR_WITHOUT_GRID,
        saved=None,
        in_blocks=True,
    ),
}


def exact_cases(variant: Variant) -> list[Case]:
    """At what an implementation is held to the byte."""
    law = LAWS.get(variant.name)
    if law is None or not law.in_blocks:
        return [reference(variant), mnist(variant), _case("huge", variant, 65_536, 8192, 8192, 1)]
    # Several blocks of rows and of inputs at the widths of mnist, and many blocks of rows.
    return [
        reference(variant),
        _case("mnist-256", variant, 256, 784, 256, 10),
        _case("tall", variant, 16_384, 8, 256),
    ]


def _case(name: str, variant: Variant, batch: int, *widths: int) -> Case:
    return Case(name, variant, batch, widths, variant.reference_config)


# Implementations that an installed package registers are measured by nobody here.
OWN = {variant.name: variant for variant in registry.BUILT_IN if variant.name in list_variants()}

CASES = {
    Key(case.name, name): case for name, variant in OWN.items() for case in exact_cases(variant)
}


def measure(case: Case) -> Entry:
    """Bytes of a case, as they are stored."""
    options = " ".join(f"{name}={value}" for name, value in case.config.items())
    widths = "->".join(map(str, case.widths))
    passes = {name: device_free_bytes(case, name, MAX_OPERATORS)._asdict() for name in PASSES}
    return Entry(f"batch {case.batch}, {widths} {options}".rstrip(), passes)


def layer_bytes(variant: Variant, sizes: Sizes) -> dict[str, int]:
    """Bytes that a law speaks of, of one layer whose input needs a gradient as in a network."""
    widths, config = (sizes.inputs, sizes.outputs), {}
    if sizes.grid is not None:
        config["grid_size"] = sizes.grid
    case = Case("layer", variant, sizes.batch, widths, config)
    built = []

    def build():
        built.append(Workload(case, "backward_with_input_grad", torch.device("cpu")))
        return built[0].passes()

    found = track_passes(build, MAX_OPERATORS)
    gradients = FLOAT_BYTES * built[0].parameter_counts()[1]
    return {
        "forward": found.forward_peak_bytes,
        "backward": found.backward_peak_bytes - gradients,
        "saved": found.saved_bytes,
    }
