"""A project of somebody else's gates a module of its own by the built wheel, with perfgate alone.

A wheel is built and pytest processes import torch, so that this takes minutes; `make selftest`
runs it.
"""

import os
import subprocess
import sys

import pytest

from perfgate.judge.exit_codes import GateExit
from tests.git import git
from tests.installed import ROOT, install

pytestmark = pytest.mark.gate

CONFTEST = """
import sys

pytest_plugins = ["perfgate.plugin"]

def pytest_sessionfinish():
    assert not any(name.split(".")[0] == "kan_impls" for name in sys.modules)
"""

# Asleep, so that a busy machine changes nothing.
LAYER = """
import time, torch
from torch import nn

class Layer(nn.Linear):
    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)
"""
SLOWER = LAYER.replace("0.02", "0.03")
LARGER = LAYER.replace("return super().forward(x)", "waste = torch.empty(1024)\n        ").replace(
    "        \n", "        y = super().forward(x)\n        del waste\n        return y\n"
)

BENCHMARK = """
import pytest, torch
from layer import Layer

@pytest.mark.parametrize("pass_name", ["forward", "training_step"])
def test_layer(measure, pass_name):
    measure(Layer(64, 32), torch.rand(16, 64), pass_name)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which nothing but the wheel is installed."""
    folder = install(tmp_path_factory.mktemp("installed") / "site", ROOT)
    assert (folder / "perfgate" / "plugin.py").is_file()
    return folder


def test_a_module_of_somebody_elses_is_gated(site, tmp_path):
    def write(layer):
        (tmp_path / "layer.py").write_text(layer)

    # A worker of xdist passes on that it is one, and then nothing is measured.
    inherited = {key: value for key, value in os.environ.items() if "XDIST" not in key}

    def run(*command):
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
            env={**inherited, "PYTHONPATH": str(site)},
        )

    def compare():
        return run("pytest", "--benchmark-compare", "-p", "no:cacheprovider", "--device=cpu")

    write(LAYER)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_layer.py").write_text(BENCHMARK)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --benchmark-max-time=0.6\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n.benchmarks/\n")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "base")
    measured = run("pytest", "--benchmark-only", "-p", "no:cacheprovider", "--device=cpu")
    assert measured.returncode == 0, measured.stdout
    accepted = run("perfgate.cli", "accept")
    assert accepted.returncode == 0, accepted.stderr

    write(SLOWER)
    found = compare()
    assert found.returncode == GateExit.REGRESSED, found.stdout
    assert "2 regressed" in found.stdout
    write(LARGER)
    found = compare()
    assert found.returncode == GateExit.REGRESSED, found.stdout
    assert "+4,096 B" in found.stdout
    write(LAYER)
    found = compare()
    assert found.returncode == 0, found.stdout
    assert "2 unchanged" in found.stdout
