"""What the device-free gate measures: cases whose figures are exact, and growth laws."""

import torch
from cases import mnist, reference

from kan_impls import Variant, list_variants, registry
from kan_impls.fused.cost import DECLARED
from perfgate.judge.growth_law import Exponents, Law, Sizes
from perfgate.measure.device_free import track_passes
from perfgate.network.case import FLOAT_BYTES, Case
from perfgate.network.workload import device_free_figures, pass_of
from perfgate.store.device_free_baseline import Entry, Key

# A backward pass that nobody asks the input's gradient of, and one within a network.
PASSES = ("backward", "backward_with_input_grad")

# Ten times what the largest case here takes; so many take some five seconds.
MAX_OPERATORS = 20_000

LINEAR = Exponents(batch=1, width=1, grid=1)
LINEAR_WITHOUT_GRID = Exponents(batch=1, width=1, grid=0)
PRODUCTS = Exponents(batch=1, width=2, grid=1)


def memory(at: Sizes, passes: Exponents, saved: Exponents | None, in_blocks: bool = False) -> Law:
    """Of the peaks of both passes, that of backward without the gradients of the parameters, which
    grow as these do in every implementation; and of what forward keeps for backward."""
    powers = {"forward bytes": passes, "backward bytes": passes, "saved bytes": saved}
    return Law(at, powers, in_blocks)


def costs(at: Sizes, flops: Exponents | None, traffic: Exponents) -> Law:
    """Of the FLOPs of both passes, and of what they read and write."""
    forward = {"forward FLOPs": flops, "forward traffic": traffic}
    return Law(at, forward | {"backward FLOPs": flops, "backward traffic": traffic})


# One row per implementation. Where all is held at once: batches at which the activations outweigh
# the weights. In blocks: outputs at which they outweigh the workspace, which is bounded.
LAWS = {
    "mlp": memory(
        Sizes(65_536, 512, 512), Exponents(batch=1, width=1), saved=Exponents(batch=1, width=1)
    ),
    "efficient_kan": memory(Sizes(65_536, 128, 128, grid=64), LINEAR, saved=LINEAR),
    # Two products of shape (batch, outputs, inputs, grid).
    "fourier_kan": memory(Sizes(65_536, 1024, 1024, grid=16), PRODUCTS, saved=LINEAR),
    # What backward needs is the input, which lives anyway.
    "fused_fourier_kan": memory(
        Sizes(2048, 8, 2048, grid=4), LINEAR_WITHOUT_GRID, saved=None, in_blocks=True
    ),
    "fused_efficient_kan": memory(
        Sizes(2048, 4, 2048, grid=5), LINEAR_WITHOUT_GRID, saved=None, in_blocks=True
    ),
}

# Again one row per implementation. Few outputs: the basis outweighs the weights and the outputs.
COST_LAWS = {
    "mlp": costs(
        Sizes(65_536, 512, 512),
        flops=Exponents(batch=1, width=2),
        traffic=Exponents(batch=1, width=1),
    ),
    "efficient_kan": costs(Sizes(65_536, 128, 128, grid=64), flops=PRODUCTS, traffic=LINEAR),
    # Its products are element-wise, and FLOPs are those of matrix products.
    "fourier_kan": costs(Sizes(65_536, 1024, 1024, grid=16), flops=None, traffic=PRODUCTS),
    "fused_fourier_kan": costs(Sizes(512, 16, 4, grid=16), flops=PRODUCTS, traffic=LINEAR),
    "fused_efficient_kan": costs(Sizes(512, 8, 2, grid=64), flops=PRODUCTS, traffic=LINEAR),
}


def exact_cases(variant: Variant) -> list[Case]:
    """At what an implementation is held to its figures."""
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
    """Figures of a case, as they are stored."""
    options = " ".join(f"{name}={value}" for name, value in case.config.items())
    widths = "->".join(map(str, case.widths))
    passes = {
        name: device_free_figures(case, name, MAX_OPERATORS, DECLARED).by_kind() for name in PASSES
    }
    return Entry(f"batch {case.batch}, {widths} {options}".rstrip(), passes)


def layer_figures(variant: Variant, sizes: Sizes) -> dict[str, int]:
    """What the laws speak of, of one layer whose input needs a gradient as in a network."""
    widths, config = (sizes.inputs, sizes.outputs), {}
    if sizes.grid is not None:
        config[variant.size] = sizes.grid
    case = Case("layer", variant, sizes.batch, widths, config)
    built = []

    def build():
        built.append(pass_of(case, "backward_with_input_grad", torch.device("cpu")))
        return built[0].passes()

    found = track_passes(build, MAX_OPERATORS, DECLARED)
    gradients = FLOAT_BYTES * built[0].parameter_counts()[1]
    passes = {"forward": found.forward, "backward": found.backward}
    return {
        "forward bytes": found.bytes.forward_peak_bytes,
        "backward bytes": found.bytes.backward_peak_bytes - gradients,
        "saved bytes": found.bytes.saved_bytes,
        **{f"{name} FLOPs": cost.flops for name, cost in passes.items()},
        **{
            f"{name} traffic": cost.bytes_read + cost.bytes_written for name, cost in passes.items()
        },
    }
