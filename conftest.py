"""Fixtures of this repository's own tests and benchmarks."""

import pytest
import torch

pytest_plugins = ["perfgate.plugin", "pytester"]


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


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped without one")
    config.addinivalue_line("markers", "sanitizer: kernels emulated under ASan, UBSan or TSan")
    config.addinivalue_line("markers", "ptx: every kernel executed as PTX; -m ptx")
    config.addinivalue_line("markers", "compile: every kernel for one more GPU; -m compile")
    config.addinivalue_line("markers", "toy: in a copy of the project with a new basis; -m toy")
    config.addinivalue_line("markers", "gate: the gate job itself, in a small project; -m gate")
    config.addinivalue_line("markers", "instructions: counted by callgrind; -m instructions")
    config.addinivalue_line("markers", "gpu_check: what only a GPU can tell; make gpu-check")
    config.addinivalue_line("markers", "growth: a case beyond the default ones; -m growth")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, and torch finds none here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
