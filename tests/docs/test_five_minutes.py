"""A repository with a layer of its own gets its first verdicts by what the README says."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from perfgate.judge.exit_codes import GateExit
from tests.docs.pages import READMES, ROOT, code_blocks
from tests.git import git

LAYER = """import torch


class MyLayer(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs)

    def forward(self, x):
        y = self.linear(x)
        return y * torch.sigmoid(y)
"""
COST = ("torch.sigmoid(y)", "torch.sigmoid(y.clone()).clone()")
INSTALLED = "/path/to/kan-impls"


def walk():
    """The commands of the README, in order."""
    (block,) = (text for _, text in code_blocks(READMES[0]) if INSTALLED in text)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_the_walk_has_at_most_five_commands():
    assert 2 <= len(walk()) <= 5


@pytest.fixture
def environment(tmp_path):
    """An empty environment; what a checkout needs beside itself is taken from this one."""
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    own = sysconfig.get_path("purelib", "venv", vars={"base": str(place)})
    Path(own, "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my_layer.py").write_text(LAYER)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "start")
    return folder


def run(environment, project, words):
    if words[0] == "pip":  # of this environment, into the other one
        program = [sys.executable, "-m", "pip", "--python", str(environment / "python")]
        # Every package beside the checkout is here; --ignore-installed: so is the checkout, edited.
        words = [*words, "--no-deps", "--ignore-installed", "--quiet"]
    else:
        program = [str(environment / words[0])]
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [*program, *words[1:]],
        cwd=project,
        env={**variables, "PATH": f"{environment}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def put_in_the_layer(project):
    """What the README says between the commands."""
    file = project / "benchmarks" / "test_speed.py"
    text = file.read_text()
    assert "torch.nn.Linear(64, 32)  # your own layer here" in text
    text = text.replace("torch.nn.Linear(64, 32)  # your own layer here", "MyLayer(64, 32)")
    file.write_text(
        text.replace("import torch\n", "import torch\n\nfrom my_layer import MyLayer\n")
    )


@pytest.mark.gate
def test_a_new_repository_gets_green_and_red(environment, project, record_property):
    began, statuses, said = time.monotonic(), [], ""
    commands = walk()
    for number, words in enumerate(commands, start=1):
        if number == len(commands):
            file = project / "my_layer.py"
            file.write_text(file.read_text().replace(*COST))
        done = run(environment, project, [word.replace(INSTALLED, str(ROOT)) for word in words])
        said = done.stdout
        if words[0] == "pip" and "for hatchling" in said:
            pytest.skip("hatchling, which builds the package, cannot be had: no package index")
        statuses.append(done.returncode)
        if words == ["kan-bench", "init"]:
            put_in_the_layer(project)
    assert statuses == [*[0] * (len(commands) - 1), GateExit.REGRESSED], said
    assert re.search(r"^regressed +layer\[", said, re.MULTILINE), said
    record_property("seconds", round(time.monotonic() - began))
    print(f"{len(statuses)} commands, {time.monotonic() - began:.0f} s")
