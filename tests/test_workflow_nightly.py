"""What nightly.yml proposes of the night's measuring, by its own scripts.

`gh` is a stand-in, which writes down what it is asked and answers what the test says.
"""

import base64
import json
import shutil
from pathlib import Path

import pytest

from perfgate.measure.environment import describe_environment, resolve_device
from perfgate.store import baseline
from tests.perfgate.runs import store
from tests.workflows import MAIN, ROOT, TEXTS, parsed

BASELINES = Path("benchmarks", "baselines")
NIGHTLY = {"GH_TOKEN": "", "REPO": "us/kan", "COMMIT": MAIN}
KEY = "cuda_nvidia-h100-80gb-hbm3_torch2.13"
RUN = json.dumps({"benchmarks": [{"name": "a"}]})


@pytest.fixture
def measured(runner):
    """Main has baseline 1; the night's measuring brought 1, changed, and 2."""
    tree = [{"path": f"benchmarks/baselines/{KEY}/0001_a.json"}]
    answer = {"truncated": False, "tree": tree}
    runner.answer(f"GET repos/us/kan/git/trees/{MAIN}?recursive=1", answer)
    folder = runner.folder / "artifacts" / "baselines-h100" / KEY
    folder.mkdir(parents=True)
    (folder / "0001_a.json").write_text("changed")
    (folder / "0002_b.json").write_text(RUN)
    evidence = runner.folder / "artifacts" / "evidence-h100"
    evidence.mkdir()
    (evidence / "summary.md").write_text("| quiet |\n")
    return folder


def new_baselines(runner):
    return runner.run("nightly.yml", "propose", "Which baselines are new", **NIGHTLY)


def test_only_new_baselines_are_proposed(runner, measured):
    assert new_baselines(runner).returncode == 0
    assert runner.outputs == {"count": "1"}
    [line] = (runner.folder / "new.txt").read_text().splitlines()
    assert line.split("\t")[1] == f"benchmarks/baselines/{KEY}/0002_b.json"
    (measured / "0002_b.json").unlink()
    assert new_baselines(runner).returncode == 0
    assert runner.outputs == {"count": "0"}


def upload(pattern, workspace, artifact):
    """Copy what actions/upload-artifact takes for its `path`, which is one pattern.

    It takes a matched folder with all that is in it, leaves hidden files out, and keeps what is
    below the folders that the pattern names without a wildcard.
    """
    parts = Path(pattern).parts
    wild = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    root = workspace.joinpath(*parts[:wild])
    for found in workspace.glob(pattern):
        for file in [found, *found.rglob("*")] if found.is_dir() else [found]:
            place = file.relative_to(root)
            if file.is_file() and not any(part.startswith(".") for part in place.parts):
                (artifact / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, artifact / place)


def measure_and_upload(runner, key):
    """The artifact of a night on a machine with a device key; the path of its new baseline.

    The machine's folder has all that this repository stores, and what storing leaves behind.
    """
    workspace = runner.folder / "machine"
    shutil.copytree(ROOT / BASELINES, workspace / BASELINES)
    on_main = [{"path": str(p.relative_to(workspace))} for p in workspace.rglob("*.json")]
    answer = {"truncated": False, "tree": on_main}
    runner.answer(f"GET repos/us/kan/git/trees/{MAIN}?recursive=1", answer)
    newest = max(workspace.glob("benchmarks/baselines/*/*.json"))
    run = baseline.read_json(newest)
    path = store(workspace / BASELINES, key or newest.parent.name, run, "0123456789")
    assert (path.parent / ".lock").exists()
    for step in parsed(TEXTS)["nightly.yml"]["jobs"]["measure"]["steps"]:
        name = step.get("with", {}).get("name", "")
        if name.startswith("baselines-"):
            upload(step["with"]["path"], workspace, runner.folder / "artifacts" / "baselines-x")
    return str(path.relative_to(workspace))


@pytest.mark.parametrize("new_machine", [True, False])
def test_a_night_proposes_what_it_stored_and_nothing_else(runner, new_machine):
    device = describe_environment(resolve_device("cpu"))["device_key"]
    key = f"{device}_new" if new_machine else None
    stored = measure_and_upload(runner, key)
    finished = new_baselines(runner)
    assert finished.returncode == 0, finished.stdout
    [line] = (runner.folder / "new.txt").read_text().splitlines()
    assert line.split("\t")[1] == stored


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("0003_c.py", RUN, "its place"),
        ("conftest.json", RUN, "its place"),
        ("0003_c.json\n::x::", RUN, "its place"),
        ("../.github/0003_c.json", RUN, "its place"),
        ("../0003_c.json", RUN, "its place"),
        ("deeper/0003_c.json", RUN, "its place"),
        ("benchmarks/baselines/key/0003_c.json", RUN, "its place"),
        ("0003_c.json", "[", "its content"),
        ("0003_c.json", "{}", "its content"),
        ("0003_c.json", '{"benchmarks": []}', "its content"),
        ("0003_c.json", " " * 5_000_001, "its size"),
        ("0003_c.json", None, "its kind"),
    ],
)
def test_what_is_no_baseline_is_refused(runner, measured, name, text, reason):
    path = measured / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/etc/passwd") if text is None else path.write_text(text)
    finished = new_baselines(runner)
    assert finished.returncode == 1
    assert reason in finished.stdout
    assert finished.stdout.count("::") == 2
    assert runner.outputs == {}


def test_a_list_of_main_that_is_cut_off_is_red(runner, measured):
    (measured / "0001_a.json").unlink()
    answer = {"truncated": True, "tree": []}
    runner.answer(f"GET repos/us/kan/git/trees/{MAIN}?recursive=1", answer)
    assert new_baselines(runner).returncode != 0


def test_nothing_measured_is_red(runner, measured):
    (runner.folder / "artifacts" / "baselines-h100").rename(runner.folder / "elsewhere")
    assert new_baselines(runner).returncode != 0


@pytest.mark.parametrize("branch_exists", [True, False])
def test_the_baselines_are_one_commit_on_a_branch_of_their_own(runner, measured, branch_exists):
    new_baselines(runner)
    runner.answer("POST repos/us/kan/git/blobs", {"sha": "blob"})
    runner.answer(f"GET repos/us/kan/git/commits/{MAIN}", {"tree": {"sha": "old"}})
    runner.answer("POST repos/us/kan/git/trees", {"sha": "tree"})
    runner.answer("POST repos/us/kan/git/commits", {"sha": "commit"})
    move = "PATCH repos/us/kan/git/refs/heads/baseline-refresh"
    runner.answer(move if branch_exists else "POST repos/us/kan/git/refs", {})
    finished = runner.run("nightly.yml", "propose", "Commit them to the branch", **NIGHTLY)
    assert finished.returncode == 0, finished.stdout
    blob, tree, commit, moved, *created = runner.asked("POST", "PATCH")
    content = base64.b64encode(RUN.encode()).decode()
    assert blob[2] == {"content": content, "encoding": "base64"}
    path = f"benchmarks/baselines/{KEY}/0002_b.json"
    entry = {"path": path, "mode": "100644", "type": "blob", "sha": "blob"}
    assert tree[2] == {"base_tree": "old", "tree": [entry]}
    assert (commit[2]["tree"], commit[2]["parents"]) == ("tree", [MAIN])
    assert moved == [*move.split(), {"sha": "commit", "force": "true"}]
    new_ref = {"ref": "refs/heads/baseline-refresh", "sha": "commit"}
    expected = [] if branch_exists else [["POST", "repos/us/kan/git/refs", new_ref]]
    assert created == expected


def test_a_failed_commit_moves_no_branch(runner, measured):
    new_baselines(runner)
    runner.answer("POST repos/us/kan/git/blobs", {"message": "no"})
    runner.answer(f"GET repos/us/kan/git/commits/{MAIN}", {"tree": {"sha": "old"}})
    finished = runner.run("nightly.yml", "propose", "Commit them to the branch", **NIGHTLY)
    assert finished.returncode != 0
    assert len(runner.asked("POST", "PATCH")) == 1


@pytest.mark.parametrize("pulls", [[], [{"number": 4}]], ids=["new", "open"])
def test_the_proposal_comes_with_its_evidence(runner, measured, pulls):
    request = "GET repos/us/kan/pulls?state=open&base=main&head=us:baseline-refresh"
    runner.answer(request, pulls)
    runner.answer("POST repos/us/kan/pulls", {})
    runner.answer("PATCH repos/us/kan/pulls/4", {})
    step = "Open its pull request, or renew it"
    finished = runner.run("nightly.yml", "propose", step, **NIGHTLY)
    assert finished.returncode == 0, finished.stdout
    [(method, path, fields)] = runner.asked("POST", "PATCH")
    assert (method, path) == (
        ("PATCH", "repos/us/kan/pulls/4") if pulls else ("POST", "repos/us/kan/pulls")
    )
    assert MAIN in fields["body"]
    assert "### evidence-h100\n\n| quiet |" in fields["body"]
    assert pulls or (fields["head"], fields["base"]) == ("baseline-refresh", "main")


@pytest.mark.parametrize(
    ("calibrated", "compared", "proposed"),
    [(0, 0, True), (0, 10, True), (0, 1, False), (0, 14, False), (1, 0, False)],
)
def test_a_slower_machine_is_proposed_and_a_broken_refresh_is_not(
    runner, calibrated, compared, proposed
):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, runner.folder / name)
    (runner.folder / "ready").touch()
    runner.program("kan-bench", f"#!/bin/sh\nexit {calibrated}\n")
    runner.program("python", f"#!/bin/sh\nexit {compared}\n")
    make = shutil.which("make")
    runner.program("make", f'#!/bin/sh\nexec {make} READY=ready BIN={runner.programs} "$@"\n')
    finished = runner.run("nightly.yml", "measure", "Refresh", DEVICE="cpu")
    assert (finished.returncode == 0) is proposed, finished.stdout
