"""Fixtures of this repository's own tests and benchmarks."""

import os
import re
import shlex

import pytest
import torch

# The last one is installed with the package; named here, it is there in any copy of the sources.
pytest_plugins = ["perfgate.plugin", "pytester", "kan_impls_pytest"]


def pytest_addoption(parser):
    group = parser.getgroup("instructions, with -m instructions")
    group.addoption(
        "--accept-instructions", action="store_true", help="store the instructions that are counted"
    )
    group.addoption(
        "--instructions-base",
        metavar="REVISION",
        help="the revision whose code is counted, too, where nothing is stored of this "
        "environment; what cannot be judged then fails, and is not skipped",
    )
    parser.getgroup("benchmarks").addoption(
        "--suite",
        choices=("field",),
        help="with --benchmark-only: field, every implementation at the reference, not only those "
        "of the published comparison",
    )


# The least time of each benchmark of --suite field, unless an option says another: there are many.
FIELD_SECONDS = 0.5

# Layers beyond the published comparison: what is quick is tested of all layers, and what takes long
# of these under -m field alone. What has another marker of those in LEGS is selected by that one.
FIELD = re.compile(
    r"(?<![a-z])(cheby|fast|faster|gram|jacobi|legendre|rational|rbf|relu|sine|wav)_kan"
    r"|(Chebyshev|Gram|Jacobi|Radial|Rational|ReluBumps|Sines)(Basis)?\b"
)
QUICK_FILES = ("test_golden.py", "test_upstream.py", "test_registry.py", "test_bad_input.py")
QUICK = ("test_contract.py", "test_figures_are_the_stored_ones[reference")
SLOW = (
    *("compiles", "in float32 are those in float64", "first and second derivatives"),
    *("test_a_layer_built_on_meta",),
)
LEGS = ("growth", "batch", "compile", "ptx", "sanitizer", "instructions")


def pytest_configure(config):
    if config.option.suite == "field":
        config.option.markexpr = config.option.markexpr.replace("not field and ", "")
        given = [*config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
        if not any(str(option).startswith("--benchmark-max-time") for option in given):
            config.option.benchmark_max_time = FIELD_SECONDS
    config.addinivalue_line(
        "markers", "field: what takes long, of layers not compared or of further sizes; -m field"
    )
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped without one")
    config.addinivalue_line("markers", "sanitizer: kernels emulated under ASan, UBSan or TSan")
    config.addinivalue_line("markers", "ptx: every kernel executed as PTX; -m ptx")
    config.addinivalue_line("markers", "compile: every kernel for one more GPU; -m compile")
    config.addinivalue_line("markers", "toy: in a copy of the project with a new basis; -m toy")
    config.addinivalue_line("markers", "fuzz: every loader, for some minutes; -m fuzz")
    config.addinivalue_line("markers", "gate: the gate job itself, in a small project; -m gate")
    config.addinivalue_line("markers", "instructions: counted by callgrind; -m instructions")
    config.addinivalue_line("markers", "gpu_check: what only a GPU can tell; make gpu-check")
    config.addinivalue_line("markers", "growth: a case beyond the default ones; -m growth")
    config.addinivalue_line("markers", "batch: at every batch, and in small networks; -m batch")


def _is_of_the_field(item):
    parameters = getattr(item, "callspec", None)
    if parameters is None or not FIELD.search(parameters.id):
        return False
    is_quick = item.path.name in QUICK_FILES or any(name in item.nodeid for name in QUICK)
    return not is_quick or any(name in item.name for name in SLOW)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    for item in items:
        if _is_of_the_field(item) and not any(map(item.get_closest_marker, LEGS)):
            item.add_marker("field")
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, and torch finds none here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
