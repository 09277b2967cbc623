"""What the device-free gate measures: cases whose figures are exact, and growth laws."""

import torch
from cases import is_from_elsewhere, mnist, reference

from kan_impls import Variant, get_variant, list_variants, registry
from kan_impls.fused.cost import DECLARED
from perfgate.judge.growth_law import Exponents, Law, Sizes
from perfgate.measure.device_free import track_passes
from perfgate.network.case import FLOAT_BYTES, Case
from perfgate.network.workload import device_free_figures, pass_of
from perfgate.store.device_free_baseline import Key
from perfgate.store.exact import Entry

# A backward pass that nobody asks the input's gradient of, and one within a network.
PASSES = ("backward", "backward_with_input_grad")

# Ten times what the largest case here takes; so many take some five seconds.
MAX_OPERATORS = 20_000

LINEAR = Exponents(batch=1, width=1, grid=1)
LINEAR_WITHOUT_GRID = Exponents(batch=1, width=1, grid=0)
PRODUCTS = Exponents(batch=1, width=2, grid=1)
EDGES = Exponents(batch=1, width=2)
WEIGHTS = Exponents(batch=0, width=2, grid=0)
BATCH_AND_WIDTH = Exponents(batch=1, width=1)


def memory(at: Sizes, passes: Exponents, saved: Exponents | None, in_blocks: bool = False) -> Law:
    """Of the peaks of both passes, that of backward without the gradients of the parameters, which
    grow as these do in every implementation; and of what forward keeps for backward."""
    powers = {"forward bytes": passes, "backward bytes": passes, "saved bytes": saved}
    return Law(at, powers, in_blocks)


def costs(at: Sizes, flops: Exponents | None, traffic: Exponents) -> Law:
    """Of the FLOPs of both passes, and of what they read and write."""
    forward = {"forward FLOPs": flops, "forward traffic": traffic}
    return Law(at, forward | {"backward FLOPs": flops, "backward traffic": traffic})


OWN = {variant.name: variant for variant in registry.BUILT_IN if variant.name in list_variants()}
# Those that others bring have figures, and no law.
BROUGHT = {name: get_variant(name) for name in list_variants() if is_from_elsewhere(name)}

# Where all is held at once: batches at which the activations outweigh the weights. In blocks:
# outputs at which they outweigh the workspace, which is bounded; what backward needs is the input,
# which lives anyway.
_DIRECT = memory(Sizes(65_536, 128, 128, grid=64), LINEAR, saved=LINEAR)
_FUSED = memory(Sizes(2048, 4, 2048, grid=5), LINEAR_WITHOUT_GRID, saved=None, in_blocks=True)
_FUSED_NORM = memory(
    Sizes(16_384, 16, 2048, grid=5), LINEAR_WITHOUT_GRID, LINEAR_WITHOUT_GRID, in_blocks=True
)
LAWS = {name: _FUSED if variant.is_fused else _DIRECT for name, variant in OWN.items()} | {
    "mlp": memory(Sizes(65_536, 512, 512), BATCH_AND_WIDTH, saved=BATCH_AND_WIDTH),
    # Two products of shape (batch, outputs, inputs, grid).
    "fourier_kan": memory(Sizes(65_536, 1024, 1024, grid=16), PRODUCTS, saved=LINEAR),
    # Tensors of shape (batch, outputs, inputs); in blocks, what BatchNorm makes and keeps.
    "wav_kan": memory(Sizes(4096, 256, 256), EDGES, saved=EDGES),
    "fused_wav_kan": memory(
        Sizes(65_536, 1, 160), BATCH_AND_WIDTH, saved=BATCH_AND_WIDTH, in_blocks=True
    ),
    "rational_kan": memory(Sizes(65_536, 128, 128), BATCH_AND_WIDTH, saved=BATCH_AND_WIDTH),
    "fused_rational_kan": memory(Sizes(2048, 4, 2048), BATCH_AND_WIDTH, None, in_blocks=True),
    # The factors of edges behind their mask are kept.
    "fused_pykan": memory(Sizes(2048, 4, 2048, grid=5), LINEAR_WITHOUT_GRID, WEIGHTS, True),
    # A LayerNorm keeps its input, and two numbers for each row.
    "fused_fast_kan": _FUSED_NORM,
    "fused_faster_kan": _FUSED_NORM,
}

# In blocks: few outputs, so that the basis outweighs the weights and the outputs.
_DIRECT_COSTS = costs(Sizes(65_536, 128, 128, grid=64), flops=PRODUCTS, traffic=LINEAR)
_FUSED_COSTS = costs(Sizes(512, 8, 2, grid=64), flops=PRODUCTS, traffic=LINEAR)
COST_LAWS = {
    name: _FUSED_COSTS if variant.is_fused else _DIRECT_COSTS for name, variant in OWN.items()
} | {
    "mlp": costs(
        Sizes(65_536, 512, 512),
        flops=Exponents(batch=1, width=2),
        traffic=BATCH_AND_WIDTH,
    ),
    # Its products are element-wise, and FLOPs are those of matrix products.
    "fourier_kan": costs(Sizes(65_536, 1024, 1024, grid=16), flops=None, traffic=PRODUCTS),
    "rational_kan": costs(Sizes(65_536, 128, 128), flops=EDGES, traffic=BATCH_AND_WIDTH),
    "fused_rational_kan": costs(Sizes(512, 8, 2), flops=EDGES, traffic=BATCH_AND_WIDTH),
    "wav_kan": costs(Sizes(4096, 256, 256), flops=None, traffic=EDGES),
    "fused_wav_kan": costs(Sizes(1024, 16, 64), flops=EDGES, traffic=EDGES),
}


def exact_cases(variant: Variant) -> list[Case]:
    """At what an implementation is held to its figures."""
    if variant.name in BROUGHT:
        return [reference(variant)]
    if not LAWS[variant.name].in_blocks:
        return [reference(variant), mnist(variant), _case("huge", variant, 65_536, 8192, 8192, 1)]
    # Several blocks of rows and of inputs at the widths of mnist, and many blocks of rows. The
    # chunks of wavelets are many at the reference: some ten seconds of operators.
    return [
        *([reference(variant)] if variant.bound == "product" else []),
        _case("mnist-256", variant, 256, 784, 256, 10),
        _case("tall", variant, 16_384, 8, 256),
    ]


def _case(name: str, variant: Variant, batch: int, *widths: int) -> Case:
    return Case(name, variant, batch, widths, variant.reference_config)


CASES = {
    Key(case.name, name): case
    for name, variant in (OWN | BROUGHT).items()
    for case in exact_cases(variant)
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
