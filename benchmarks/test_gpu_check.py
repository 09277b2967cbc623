"""Everything that only a GPU can tell, in one command within eight minutes: `make gpu-check`.

It needs an NVIDIA GPU, a CUDA build of torch, the extra `bench` and hypothesis, and no network. It
writes `gpu-check.json` and `gpu-check.md`, and the output of every program beside them. The tests
stand in the order of their importance: what the budget does not reach is named, and is a failure
unless it is a time. `--device=cpu` is a dry run of the rest at small sizes.
"""

import itertools
import os
import time

import gpu_compile_times
import gpu_machine
import gpu_programs
import gpu_record
import gpu_report
import psutil
import pytest

from kan_impls import get_variant
from perfgate.judge.place import OURS
from perfgate.network.case import PASSES, Case, Product
from perfgate.network.floor import measure_floor
from perfgate.plugin import SESSION

pytestmark = pytest.mark.gpu_check

BUDGET_S = 465.0
SHORTEST_S = 4.0  # what would get less is not started

LIMITS_S = {"gpu": 120, "contract": 60, "memcheck": 45, "racecheck": 55}

PRECISIONS = ("accurate", "tf32", "bf16")
FUSED = ("fused_fourier_kan", "fused_efficient_kan")
BACKENDS = ("fused", "product")
IMPLEMENTATIONS = (
    ("mlp", None),
    *itertools.product(FUSED, BACKENDS),
    ("efficient_kan", None),
    ("fourier_kan", None),
)
# Rows at which kernels and product form meet; those near the limits of `fused.dispatch` first.
BATCHES = (512, 32, 1024, 1, 256, 2048, 100, 4096, 16, 16_384, 65_536)

SQUARE, COPY_BYTES = 8192, 2 * 2**30


@pytest.fixture(scope="module")
def out(pytestconfig, tmp_path_factory):
    record = pytestconfig.pluginmanager.getplugin(gpu_record.NAME)
    return record.path.parent if record else tmp_path_factory.mktemp("gpu-check")


@pytest.fixture(scope="module")
def found(pytestconfig, device, tmp_path_factory):
    """What the check found so far; an empty cache of compiled kernels for all of it."""
    record = pytestconfig.pluginmanager.getplugin(gpu_record.NAME)
    found = record.found if record else {}
    found |= {"device": str(device), "programs": {}, "rates": {}, "times": [], "left_out": []}
    if record:
        record.render = gpu_report.markdown
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "KAN_IMPLS_CACHE", str(tmp_path_factory.mktemp("kernels")))
        yield found


@pytest.fixture(autouse=True)
def seconds_left(request, found):
    """Of the budget, which began with the process."""
    left = BUDGET_S - (time.time() - psutil.Process().create_time())
    if left < SHORTEST_S:
        found["left_out"].append(request.node.nodeid)
        is_time = "measure" in request.fixturenames
        (pytest.skip if is_time else pytest.fail)("left out, since no time is left")
    return left


@pytest.fixture
def on_cuda(device):
    if device.type != "cuda":
        pytest.skip("needs a CUDA device")


def test_machine(found, device):
    found["machine"] = gpu_machine.describe()
    if device.type == "cuda":
        doctor = "\n".join(found["machine"]["doctor"])
        assert found["machine"]["fused_kernels_can_run"], doctor


def test_compile(found, device, on_cuda):
    found["kernels"] = gpu_compile_times.measure(device)
    spilled = [name for name, row in found["kernels"].items() if row["spills"]]
    assert not spilled, f"kernels with register spills: {', '.join(spilled)}"


def run_step(found, name, seconds_left, run):
    """Keep what a program finds, whether or not it fails."""
    try:
        found["programs"][name] = run(min(LIMITS_S[name], seconds_left))
    except gpu_programs.ProgramError as error:
        found["programs"][name] = error.data
        pytest.fail(str(error), pytrace=False)
    except gpu_programs.NotInstalledError as error:
        pytest.skip(str(error))


PARTS = {"gpu": gpu_programs.gpu_tests(), "contract": gpu_programs.CONTRACT}


@pytest.mark.parametrize("name", PARTS)
def test_tests(found, seconds_left, on_cuda, out, name):
    run_step(
        found,
        name,
        seconds_left,
        lambda limit: gpu_programs.run_tests(name, PARTS[name], limit, out),
    )


@pytest.mark.parametrize("tool", gpu_programs.SANITIZERS)
def test_sanitizer(found, seconds_left, on_cuda, out, tool):
    run_step(found, tool, seconds_left, lambda limit: gpu_programs.sanitize(tool, limit, out))


@pytest.fixture
def timer(pytestconfig):
    return pytestconfig.stash[SESSION].runner.timer


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rates(found, device, timer, precision):
    size, num_bytes = (SQUARE, COPY_BYTES) if device.type == "cuda" else (64, 2**20)
    floor = measure_floor(device, (Product(size, size, size),), num_bytes, precision, timer)
    found["rates"][precision] = {
        "flops_per_s": 2 * size**3 / floor.product_ns * 1e9,
        "bytes_per_s": num_bytes / floor.copy_ns * 1e9,
    }


@pytest.fixture
def take(found, measure, benchmark, device):
    """Measures a case beside another, and keeps its line."""

    def take(case, pass_name, beside):
        if device.type != "cuda" and "fused" in (case.backend, beside.backend):
            pytest.skip("needs a CUDA device")
        measure(case, pass_name, beside=beside)
        if OURS in benchmark.extra_info:
            found["times"].append(gpu_report.row_of(benchmark.extra_info[OURS]))

    return take


def case_of(shape, name, backend, precision, mode, device, batch=100, widths=None):
    """A case, whose name says how it is run; small where there is no GPU."""
    variant = get_variant(name)
    widths = widths or variant.reference_widths
    if device.type != "cuda":
        batch, widths = min(batch, 10), [max(1, width // 20) for width in widths]
    ways = [shape, backend, precision, mode if mode != "eager" else None]
    return Case(
        " ".join(filter(None, ways)),
        variant,
        batch,
        widths,
        variant.reference_config,
        backend,
        precision,
        mode,
    )


# The training step first, and last as a graph.
REFERENCE = [
    (mode, pass_name, precision, *implementation)
    for mode, passes in (("eager", PASSES[::-1]), ("graph", ["training_step"]))
    for pass_name in passes
    for precision in PRECISIONS
    for implementation in IMPLEMENTATIONS
]


def id_of(parameters):
    return "-".join(str(parameter) for parameter in parameters if parameter is not None)


@pytest.mark.parametrize("way", REFERENCE, ids=id_of)
def test_reference_time(take, device, way):
    mode, pass_name, precision, name, backend = way
    if mode == "graph" and device.type != "cuda":
        pytest.skip("needs a CUDA device")
    how = {"precision": precision, "mode": mode, "device": device}
    beside = case_of("reference", "mlp", None, **how)
    take(case_of("reference", name, backend, **how), pass_name, beside)


SWEEP = [
    (batch, pass_name, precision, name)
    for batch in BATCHES
    for precision in PRECISIONS
    for pass_name in ("forward", "backward_with_input_grad")
    for name in FUSED
]


@pytest.mark.parametrize("way", SWEEP, ids=id_of)
def test_layer_time(take, device, way):
    """Kernels beside the product form: below 1 the kernels are faster."""
    batch, pass_name, precision, name = way
    how = {"precision": precision, "mode": "eager", "device": device, "batch": batch}
    kernels, product = (
        case_of("layer", name, backend, widths=(1000, 1000), **how) for backend in BACKENDS
    )
    take(kernels, pass_name, beside=product)
