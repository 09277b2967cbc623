"""The examples run, and the repository in miniature goes red by what its README plants."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perfgate.judge.exit_codes import GateExit
from tests.git import git

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "agg"}
    # As a worker of xdist, which a run around it may be, pytest-benchmark measures nothing.
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_every_example_is_listed_and_tried_here():
    listed = set(re.findall(r"(\w+\.py|\w+/)[ `]", (EXAMPLES / "README.md").read_text()))
    there = {path.name + "/" * path.is_dir() for path in EXAMPLES.iterdir()} - {"README.md"}
    assert (
        listed
        == there
        == {
            "train_formula.py",
            "published_checkpoint.py",
            "plot_edges.py",
            "my_layer/",
        }
    )


def test_train_formula(tmp_path):
    done = run(tmp_path, str(EXAMPLES / "train_formula.py"), "--steps=200")
    assert done.returncode == 0, done.stderr
    errors = dict(re.findall(r"^(\w+) +\d+ parameters, .* error (\S+)$", done.stdout, re.MULTILINE))
    assert errors.keys() == {"fused_efficient_kan", "mlp"}
    # The formula's own standard deviation is 0.8.
    assert float(errors["fused_efficient_kan"]) < 0.4


def test_published_checkpoint(tmp_path):
    done = run(tmp_path, str(EXAMPLES / "published_checkpoint.py"), "--widths", "20", "5", "3")
    assert done.returncode == 0, done.stderr
    assert "layers.1.spline_weight" in done.stdout
    assert "written again is the same" in done.stdout


def test_plot_edges(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: the extra docs has it")
    done = run(tmp_path, str(EXAMPLES / "plot_edges.py"), "--steps=5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "edges.svg").read_text().count("<path") > 10


@pytest.fixture
def my_layer(tmp_path):
    folder = tmp_path / "my_layer"
    shutil.copytree(EXAMPLES / "my_layer", folder, ignore=shutil.ignore_patterns(".*", "__*"))
    shutil.copy(EXAMPLES / "my_layer" / ".gitignore", folder)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "start")
    return folder


@pytest.mark.gate
def test_my_layer_is_gated_by_what_its_readme_says(my_layer):
    text = (my_layer / "README.md").read_text()
    (block,) = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    commands = [line.split("#")[0].split() for line in block.splitlines()]
    assert len(commands) <= 5
    modules = {"pytest": "pytest", "kan-bench": "perfgate.cli"}
    for name, *arguments in commands[1:]:  # what pip installs is here
        done = run(my_layer, "-m", modules[name], *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    before, after = re.search(r"Replace `(.*?)` by `(.*?)`", text, flags=re.DOTALL).groups()
    file = my_layer / "my_layer.py"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    done = run(my_layer, "-m", "pytest", "--benchmark-compare")
    assert done.returncode == GateExit.REGRESSED, done.stdout
    assert re.search(r"^regressed +test_layer\[forward\]", done.stdout, re.MULTILINE), done.stdout
