"""What runs of pytest inside pytest need."""

import importlib
import shutil

import pytest
import torch

from kan_impls import get_variant
from perfgate import session
from perfgate.measure.cuda_timing import TIMERS
from perfgate.network import floor
from perfgate.network.case import Case
from perfgate.network.workload import check_memory, pass_of
from perfgate.report.page import page
from perfgate.run import runner
from tests.perfgate.inner_project import (
    BENCHMARK,
    CONFTEST,
    Clock,
    Others,
    Turns,
    measure_and_accept,
)
from tests.perfgate.runs import judged_document
from tests.perfgate.test_rounds import Script

# What perfgate imports when it first needs it.
LAZY = (
    "archspec.cpu",
    "jinja2",
    "jsonschema",
    "plotly.graph_objects",
    "plotly.offline",
    "scipy.special",
    "tabulate",
)


@pytest.fixture(autouse=True)
def _imported_before(request):
    """A run inside drops the modules that it was the first to import, and some of them, such as
    numpy's, cannot be imported twice in a process, or leave two copies of their classes."""
    if "pytester" in request.fixturenames:
        for name in LAZY:
            importlib.import_module(name)


@pytest.fixture(scope="session")
def _used_once():
    """What the first run inside would import, pytester would forget: slow, and torch bears no
    second time."""
    page(judged_document())
    case = Case("small", get_variant("fused_fourier_kan"), 8, (6, 5, 1))
    check_memory(case, torch.device("cpu"))
    pass_of(case, "backward", torch.device("cpu")).measure_memory()


@pytest.fixture
def others(monkeypatch):
    others = Others()
    monkeypatch.setattr(session, "measure_again", others)
    return others


@pytest.fixture
def turns(monkeypatch):
    turns = Turns()
    monkeypatch.setattr(session, "settle", turns)
    return turns


@pytest.fixture
def project(pytester, monkeypatch, others, _used_once):
    """A folder with two benchmarks, and a clock that makes every round last equally long."""
    monkeypatch.setitem(TIMERS, "wall", Clock)
    monkeypatch.setattr(runner, "witness_of", lambda device: Script())
    floor.measure_floor.cache_clear()
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_small=BENCHMARK)
    options = "--benchmark-max-time=0.1 --benchmark-min-rounds=3"
    # Hypothesis would be imported anew in every run.
    pytester.makeini(f"[pytest]\naddopts = {options} -p no:hypothesispytest")
    yield pytester
    floor.measure_floor.cache_clear()


@pytest.fixture(scope="session")
def _usual_baselines(tmp_path_factory):
    return tmp_path_factory.mktemp("usual") / "baselines"


@pytest.fixture
def accepted(project, _usual_baselines):
    """The project with a baseline, which the first test that asks measures and the others copy."""
    own = project.path / "benchmarks" / "baselines"
    if _usual_baselines.exists():
        shutil.copytree(_usual_baselines, own)
    else:
        measure_and_accept(project)
        shutil.copytree(own, _usual_baselines)
    return project
