"""What tests of several files stand on."""

import gc
import os
import shutil
import sys

import pytest


@pytest.fixture
def pytester(pytester, monkeypatch):
    """pytest's own; under xdist, too, a run inside a test is no worker of the run around it."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    # A benchmark has garbage collected before it is timed: half a second among all of torch's
    # objects, and nothing where these are left out.
    gc.freeze()
    yield pytester
    gc.unfreeze()


@pytest.fixture
def linux_tools():
    """The scripts are for GitHub's Linux runners, which have all of these; yours may not."""
    missing = [tool for tool in ("bash", "git", "jq", "unzip") if shutil.which(tool) is None]
    if (missing or sys.platform != "linux") and "CI" not in os.environ:
        pytest.skip(f"needs Linux (here: {sys.platform}) with bash, git, jq, unzip; no {missing}")


@pytest.fixture
def runner(tmp_path, linux_tools):
    """Runs the scripts of the workflows."""
    from tests.workflows import Runner

    return Runner(tmp_path)
