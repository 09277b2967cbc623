"""The examples run, and the repository in miniature goes red by what its README plants."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from perfgate.judge.exit_codes import GateExit
from tests.git import git
from tests.installed import ROOT, install

EXAMPLES = ROOT / "examples"


def run(folder, *command, path=ROOT / "src"):
    environment = {**os.environ, "PYTHONPATH": str(path), "MPLBACKEND": "agg"}
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


def replaced_by(text, number):
    """What the README says to replace, and by what."""
    before, after = re.findall(r"`(return .*?)`", text)[0], re.findall(r"by `(.*?)`", text)[number]
    return before, after


@pytest.mark.gate
def test_my_layer_is_walked_by_what_its_readme_says(my_layer, tmp_path):
    """Contract, baseline, red, green; from the wheel alone, as users have it."""
    site = install(tmp_path / "site", ROOT)
    text = (my_layer / "README.md").read_text()
    (block,) = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    _, *commands = [line.split("#")[0].split() for line in block.splitlines()]
    assert len(commands) <= 4  # what pip installs is here
    modules = {"pytest": "pytest", "kan-bench": "perfgate.cli"}

    def walk(name, *arguments):
        return run(my_layer, "-m", modules[name], *arguments, path=site)

    for command in commands:
        done = walk(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    contract, *_, compare = commands

    file = my_layer / "my_layer.py"
    sound = file.read_text()
    before, larger = replaced_by(text, 0)
    assert before in sound
    file.write_text(sound.replace(before, larger))
    red = walk(*compare)
    assert red.returncode == GateExit.REGRESSED, red.stdout
    assert re.search(r"^regressed +layer\[forward\]", red.stdout, re.MULTILINE), red.stdout
    file.write_text(sound)
    green = walk(*compare)
    assert green.returncode == 0, green.stdout

    file.write_text(sound.replace(before, replaced_by(text, 1)[1]))
    wrong = walk(*contract)
    assert wrong.returncode == pytest.ExitCode.TESTS_FAILED, wrong.stdout
    assert "the first derivative by x is another one" in wrong.stdout
    file.write_text(sound)

    install(site, my_layer)
    assert (site / "my_layer.py").is_file()
    # From elsewhere, where no file of that name lies.
    listed = "import kan_impls; print(kan_impls.list_variants()[-1])"
    assert run(tmp_path, "-c", listed, path=site).stdout == "my_layer\n"
    for_good = ["-m", "pytest", "--pyargs", "kan_impls.contract", "-k", "stride"]
    assert "2 passed" in run(tmp_path, *for_good, path=site).stdout
