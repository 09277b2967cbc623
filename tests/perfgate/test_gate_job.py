"""The gate job's own steps, run for real on the CPU: the project is small, nothing else is made up.

Each pytest process imports torch, so that this takes a minute or two; `make selftest` runs it.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perfgate.measure.environment import describe_environment, resolve_device
from tests.git import git

pytestmark = pytest.mark.gate

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
pytest_plugins = ["perfgate.plugin"]
"""

# Asleep, so that a busy machine changes nothing; the MLP has its pass of microseconds.
BENCHMARK = """
import time, mine
from torch import nn
from perfgate.network.case import Case
from kan_impls.variant import Variant

class Asleep(nn.Linear):
    def forward(self, x):
        time.sleep(mine.SECONDS)
        return super().forward(x)

ASLEEP = Variant("asleep", "", "", Asleep, lambda widths, device: Asleep(*widths, device=device),
                 lambda config: 1)

def test_asleep(measure):
    measure(Case("tiny", ASLEEP, 4, (3, 2)), "forward")
"""

PYPROJECT = """
[tool.pytest.ini_options]
pythonpath = ["src"]
addopts = ["-p", "no:cacheprovider", "--benchmark-max-time=0.6", "--benchmark-min-rounds=3"]
"""

CONTRACT = (
    "test_gpu",
    "test_contract",
    "test_golden",
    "perfgate/test_timing",
    "perfgate/test_memory",
    "perfgate/test_launches",
)


@pytest.fixture
def job(runner):
    """A runner of the gate job in a project of its own, with this repository's Makefile."""
    folder = runner.folder
    shutil.copy(ROOT / "Makefile", folder / "Makefile")
    for name, text in {
        "conftest.py": CONFTEST,
        "pyproject.toml": PYPROJECT,
        "src/mine.py": "SECONDS = 0.02\n",
        "benchmarks/test_reference.py": BENCHMARK,
        ".gitignore": ".venv\n.ready\ngate/\n__pycache__/\n.benchmarks/\n",
        **{
            f"tests/{name}.py": "def test_it(device): assert device.type == 'cpu'"
            for name in CONTRACT
        },
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "constraints.txt").touch()
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".ready").touch()
    make = shutil.which("make")
    runner.program("make", f'#!/bin/sh\nexec {make} READY=.ready "$@"\n')
    runner.program("nvidia-smi", "#!/bin/sh\necho NVIDIA H100 80GB HBM3\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    git(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    return runner


def run_job(job):
    """All steps of the gate job in turn; the exit status of the first that is red, and the gate's
    own word."""
    folder = job.folder
    base = git(folder, "rev-parse", "origin/main")
    event = {"EVENT": "merge_group", "REF": "x", "QUEUE_BASE": base, "BEFORE": ""}
    named = job.run(
        "gpu-gate.yml",
        "gate",
        "The GPU that the label names",
        DEVICE="cpu",
        GPU="nvidia-h100-80gb-hbm3",
    )
    assert named.returncode == 0, named.stdout
    contract = job.run("gpu-gate.yml", "gate", "Contract tests and GPU tests", DEVICE="cpu")
    assert contract.returncode == 0, contract.stdout
    assert f"{len(CONTRACT)} passed" in contract.stdout
    gate = job.run("gpu-gate.yml", "gate", "Gate", DEVICE="cpu", **event)
    summary = job.run("gpu-gate.yml", "gate", "Summary", DEVICE="cpu")
    assert summary.returncode == 0
    report = json.loads((folder / "gate" / "report.json").read_text())
    assert (folder / "gate" / "exit_code").read_text().strip() == str(report["exit"]["code"])
    assert (job.programs / "step_summary").read_text().strip()
    return gate, report


def commit(job, text):
    (job.folder / "src" / "mine.py").write_text(text)
    git(job.folder, "commit", "-qam", "change")


def store_baseline(job):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "perfgate.cli",
            "calibrate",
            "--runs=3",
            "--processes=1",
            "--",
            "benchmarks/test_reference.py",
            "--device=cpu",
        ],
        cwd=job.folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    key = describe_environment(resolve_device("cpu"))["device_key"]
    assert list((job.folder / "benchmarks" / "baselines" / str(key)).glob("*.json"))
    git(job.folder, "add", "-A")
    git(job.folder, "commit", "-qm", "baseline")
    git(job.folder, "update-ref", "refs/remotes/origin/main", "HEAD")


def test_without_a_baseline_the_gate_is_red(job):
    commit(job, "SECONDS = 0.02  # as before\n")
    gate, report = run_job(job)
    assert gate.returncode != 0
    assert report["exit"]["name"] == "NO_BASELINE"


def test_a_change_that_costs_nothing_is_merged_and_a_slow_one_is_not(job):
    store_baseline(job)
    commit(job, "SECONDS = 0.02  # as before\n")
    gate, report = run_job(job)
    assert gate.returncode == 0, gate.stdout
    assert report["kind"] == "compare"

    commit(job, "SECONDS = 0.04\n")
    gate, report = run_job(job)
    assert gate.returncode != 0
    assert (report["kind"], report["exit"]["name"]) == ("compare", "REGRESSED")
