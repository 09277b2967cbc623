"""The scripts of gpu-gate.yml, and what nightly.yml shares with them, run for real.

`gh` and the machine's programs are stand-ins, which answer what the test says.
"""

import functools

import pytest

from tests.git import git
from tests.workflows import OTHER, QUEUE, SHA


@pytest.mark.parametrize(
    ("commit", "admitted"),
    [(SHA, True), ("main", False), (SHA[:39], False), (f"{SHA}\n::set-env::", False), ("", False)],
)
def test_only_a_full_commit_id_is_admitted(runner, commit, admitted):
    step = "One commit, not a branch that can move after its approval"
    finished = runner.run("gpu-gate.yml", "admit", step, COMMIT=commit)
    assert (finished.returncode == 0) is admitted
    assert admitted or finished.stdout.count("::") == 2  # none of the text's own commands


@pytest.mark.parametrize(("file", "job"), [("gpu-gate.yml", "gate"), ("nightly.yml", "measure")])
def test_a_gpu_other_than_the_label_says_is_refused(runner, file, job):
    runner.program("nvidia-smi", "#!/bin/sh\necho NVIDIA H100 80GB HBM3\n")
    step = "The GPU that the label names"
    assert runner.run(file, job, step, GPU="nvidia-h100-80gb-hbm3").returncode == 0
    finished = runner.run(file, job, step, GPU="nvidia-a5000")
    assert finished.returncode == 1
    assert "expected 'nvidia-a5000'" in finished.stdout
    runner.program("nvidia-smi", "#!/bin/sh\nexit 9\n")
    assert runner.run(file, job, step, GPU="nvidia-h100-80gb-hbm3").returncode == 9


@pytest.fixture
def history(runner):
    """Four commits: main has the first two, a branch the others. The branch is checked out."""
    runner.git = functools.partial(git, runner.folder)
    runner.git("init", "--quiet")
    ids = []
    for message in ("first", "main", "branch", "head"):
        runner.git("commit", "--quiet", "--allow-empty", "-m", message)
        ids.append(runner.git("rev-parse", "HEAD"))
    runner.git("update-ref", "refs/remotes/origin/main", ids[1])
    runner.program("make", '#!/bin/sh\necho "$@"\n')
    return ids


@pytest.mark.parametrize(
    ("event", "ref", "queue_base", "before", "head", "base"),
    [
        ("merge_group", f"refs/heads/{QUEUE}", 2, None, 3, 2),
        ("push", "refs/heads/main", None, 0, 1, 0),
        ("push", "refs/heads/main", None, "0" * 40, 1, 0),  # a new branch: the commit before
        ("push", "refs/heads/main", None, OTHER, 1, 0),  # gone after a forced push
        ("push", "refs/heads/gpu/x", None, 2, 3, 1),  # not the last push: all since main
        ("workflow_dispatch", "refs/heads/main", None, None, 3, 1),
        ("workflow_dispatch", "refs/heads/main", None, None, 1, 0),  # never against itself
    ],
)
def test_the_gate_compares_with(runner, history, event, ref, queue_base, before, head, base):
    runner.git("checkout", "--quiet", "--detach", history[head])
    finished = runner.run(
        "gpu-gate.yml",
        "gate",
        "Gate",
        EVENT=event,
        REF=ref,
        DEVICE="cpu",
        QUEUE_BASE="" if queue_base is None else history[queue_base],
        BEFORE=history[before] if isinstance(before, int) else before or "",
    )
    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.splitlines()[-1] == f"gate DEVICE=cpu BASE={history[base]}"


def test_a_red_gate_is_a_red_step(runner, history):
    runner.program("make", "#!/bin/sh\nexit 3\n")
    variables = {"EVENT": "push", "REF": "refs/heads/gpu/x", "QUEUE_BASE": "", "BEFORE": ""}
    assert runner.run("gpu-gate.yml", "gate", "Gate", **variables).returncode == 3


@pytest.mark.parametrize(
    ("file", "job", "place"),
    [("gpu-gate.yml", "gate", "gate"), ("nightly.yml", "measure", "refresh")],
)
def test_the_summary_is_shown_or_said_to_be_missing(runner, file, job, place):
    assert runner.run(file, job, "Summary").returncode == 0
    assert "No summary" in (runner.programs / "step_summary").read_text()
    (runner.folder / place).mkdir()
    (runner.folder / place / "summary.md").write_text("all is well\n")
    assert runner.run(file, job, "Summary").returncode == 0
    assert (runner.programs / "step_summary").read_text().endswith("all is well\n")
