"""The scripts of comment.yml, run for real.

`gh` is a stand-in, which writes down what it is asked and answers what the test says.
"""

import re
import zipfile

import pytest
from hypothesis import strategies as st

from tests.perfgate.fuzzing import fuzz
from tests.workflow_rules import REQUIRED
from tests.workflows import MAIN, OTHER, QUEUE, SHA, TEXTS, parsed, steps

COMMENT = {"GH_TOKEN": "", "REPO": "us/kan"}


def pull(number, sha=SHA, repo="us/kan", branch="x", base="main"):
    head = {"sha": sha, "ref": branch, "repo": repo and {"full_name": repo}}
    return {"number": number, "head": head, "base": {"ref": base}}


PULLS = [pull(9, OTHER), pull(7)]


def which_pull(runner, workflow, event, branch="x", sha=SHA, title="x", repo="us/kan", pulls=PULLS):
    """The number that the step answers, or None; and what it says."""
    runner.answer("GET repos/us/kan/pulls?state=open&base=main&per_page=100", pulls)
    finished = runner.run(
        "comment.yml",
        "comment",
        "Which pull request",
        **COMMENT,
        WORKFLOW=workflow,
        EVENT=event,
        HEAD_BRANCH=branch,
        HEAD_REPO=repo,
        HEAD_SHA=sha,
        TITLE=title,
    )
    assert finished.returncode == 0, finished.stdout
    return runner.outputs.get("number"), finished.stdout


def find_pull(*run, **more):
    return which_pull(*run, **more)[0]


def test_the_comment_knows_the_runs_that_it_tells_of():
    files = parsed(TEXTS)
    told_of = files["comment.yml"]["on"]["workflow_run"]["workflows"]
    assert told_of == [files[file]["name"] for file in REQUIRED]
    assert files["gpu-gate.yml"]["run-name"] == "gpu-gate ${{ inputs.commit || github.sha }}"
    labels = files["gpu-gate.yml"]["jobs"]["gate"]["strategy"]["matrix"]["gpu"]
    for where, _, step in steps({file: TEXTS[file] for file in REQUIRED}):
        if "upload-artifact" in step.get("uses", ""):
            name = step["with"]["name"].replace("${{ matrix.gpu }}", "$")
            for label in labels:
                assert re.fullmatch("gate-[a-z0-9.-]{1,60}", name.replace("$", label)), where


def test_the_pull_request_is_the_one_with_the_commit_of_the_run(runner):
    assert find_pull(runner, "ci", "pull_request") == "7"


def test_the_queue_names_the_pull_request(runner):
    assert find_pull(runner, "gpu-gate", "merge_group", QUEUE, OTHER) == "123"


def test_what_was_asked_for_by_hand_is_in_the_title(runner):
    title = f"gpu-gate {SHA}"
    assert find_pull(runner, "gpu-gate", "workflow_dispatch", sha=MAIN, title=title) == "7"


@pytest.mark.parametrize(
    "run",
    [
        {"workflow": "gpu-gate", "event": "pull_request"},  # a fork's own, under that name
        {"workflow": "ci", "event": "pull_request", "sha": MAIN},  # no longer the head
        {"workflow": "ci", "event": "pull_request", "branch": QUEUE, "sha": MAIN},
        {"workflow": "ci", "event": "push"},
        {"workflow": "ci", "event": "merge_group", "branch": QUEUE},
        {"workflow": "gpu-gate", "event": "push", "sha": MAIN},
        {"workflow": "gpu-gate", "event": "merge_group", "branch": f"x/{QUEUE}"},
        {"workflow": "gpu-gate", "event": "merge_group", "branch": f"{QUEUE}0"},
        {"workflow": "gpu-gate", "event": "merge_group", "branch": f"{QUEUE}\nnumber=5"},
        {"workflow": "gpu-gate", "event": "merge_group", "branch": QUEUE.replace("123", "0")},
        {"workflow": "gpu-gate", "event": "merge_group", "branch": QUEUE.replace("123", "$(id)")},
        {"workflow": "gpu-gate", "event": "workflow_dispatch", "title": f"gpu-gate {SHA} x"},
        {"workflow": "gpu-gate", "event": "workflow_dispatch", "title": SHA},
    ],
    ids=str,
)
def test_no_pull_request_is_told_of(runner, run):
    number, said = which_pull(runner, **run)
    assert number is None
    assert said.startswith("::notice::No pull request is told of this run: ")
    assert said.count("::") == 2


@pytest.mark.parametrize(
    ("run", "pulls", "number"),
    [
        # A stranger's pull request has the same commit as its head, and is the first of the list.
        ({"repo": "us/kan"}, [pull(9, repo="them/kan"), pull(7)], "7"),
        ({"repo": "them/kan"}, [pull(7), pull(9, repo="them/kan")], "9"),
        ({"branch": "y"}, [pull(9), pull(7, branch="y")], "7"),
        # Of another base than the workflows' own.
        ({}, [pull(9, base="next"), pull(7)], "7"),
        # The fork is gone, or the branch was renamed: whose run it was is not known any more.
        ({"repo": "them/kan"}, [pull(9, repo=None)], None),
        ({"repo": "them/kan"}, [pull(7)], None),
        ({}, [], None),
    ],
)
def test_a_run_of_ci_is_of_its_own_branch(runner, run, pulls, number):
    assert find_pull(runner, "ci", "pull_request", pulls=pulls, **run) == number


@pytest.mark.parametrize("event", ["push", "workflow_dispatch"])
@pytest.mark.parametrize(
    ("pulls", "number"),
    [
        ([pull(9, OTHER), pull(7, repo="them/kan", branch="fix")], "7"),  # a fork's, once read
        ([pull(9, repo="them/kan"), pull(7, branch="gpu/7")], "7"),  # the pushed branch's own
        ([pull(9, repo="them/kan"), pull(7)], None),
        ([pull(7, repo=None)], "7"),
    ],
)
def test_a_measured_commit_is_of_the_one_pull_request_with_it(runner, event, pulls, number):
    run = {"branch": "gpu/7", "title": f"gpu-gate {SHA}", "pulls": pulls}
    told, said = which_pull(runner, "gpu-gate", event, **run)
    assert told == number
    assert number or "the head of 9, 7" in said


def test_the_pull_requests_of_comment_are_those_of_ci():
    assert parsed(TEXTS)["ci.yml"]["on"]["pull_request"] == {"branches": ["main"]}


def artifact(number, name, size=100):
    return {"id": number, "name": name, "size_in_bytes": size}


def zipped(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_md", ".md"), text)
    return path.read_bytes()


def say(runner, artifacts, workflow="gpu-gate", event="merge_group"):
    runner.answer(
        "GET repos/us/kan/actions/runs/5/artifacts?per_page=100", {"artifacts": artifacts}
    )
    finished = runner.run(
        "comment.yml",
        "comment",
        "What the run says",
        **COMMENT,
        WORKFLOW=workflow,
        EVENT=event,
        RUN_ID="5",
        CONCLUSION="failure",
        URL="https://github.com/us/kan/actions/runs/5",
    )
    assert finished.returncode == 0, finished.stdout
    comment = runner.folder / "comment.md"
    return comment.read_text(errors="replace") if comment.exists() else None


def test_the_summaries_of_all_gpus_become_one_comment(runner, tmp_path):
    for number, text in ((1, "old"), (2, "| a |"), (3, "| b |")):
        content = zipped(tmp_path / "zip", summary_md=text)
        runner.answer(f"GET repos/us/kan/actions/artifacts/{number}/zip", content)
    artifacts = [artifact(1, "gate-a100"), artifact(3, "gate-h100"), artifact(2, "gate-a100")]
    assert say(runner, artifacts) == (
        "<!-- summary of gpu-gate -->\n"
        "**gpu-gate**: failure ([run](https://github.com/us/kan/actions/runs/5))\n"
        "\n### gate-a100\n\n| a |\n### gate-h100\n\n| b |"
    )


def test_text_of_an_unreviewed_pull_request_is_shown_as_plain_text(runner, tmp_path):
    text = "@all [click](http://x)\r![](http://x)\n```\n\x1b[31m<img src=x>\n"
    content = zipped(tmp_path / "zip", summary_md=text)
    runner.answer("GET repos/us/kan/actions/artifacts/1/zip", content)
    shown = say(runner, [artifact(1, "gate-memory")], "ci", "pull_request").split("\n\n")[-1]
    assert all(line.startswith("    ") for line in shown.splitlines())
    assert "\r" not in shown
    assert "\x1b" not in shown
    assert "@all" not in say(runner, [artifact(1, "gate-memory")])


def test_an_artifact_is_never_unpacked(runner, tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.md", "x")
        archive.writestr("gh", "x")
        archive.writestr("summary.md", "@" * 50_000_000)
    content = (tmp_path / "zip").read_bytes()
    runner.answer("GET repos/us/kan/actions/artifacts/1/zip", content)
    artifacts = [artifact(1, f"gate-{gpu}") for gpu in "abcdefghijk"]
    said = say(runner, artifacts)
    assert len(said) < 65536  # what GitHub takes
    assert said.count("### gate-") == 8
    assert {path.name for path in runner.folder.iterdir()} == {
        "artifact.zip",
        "artifacts.json",
        "chosen.txt",
        "comment.md",
        "shown.md",
        "summary.md",
    }
    assert not (tmp_path / "outside.md").exists()


def test_what_cannot_be_read_is_said_so(runner, tmp_path):
    content = zipped(tmp_path / "zip", report_md="x")
    runner.answer("GET repos/us/kan/actions/artifacts/1/zip", content)
    said = say(runner, [artifact(1, "gate-a"), artifact(2, "gate-b", 20_000_001)])
    assert "no summary.md" in said
    assert "20000001 bytes: too large" in said
    assert len(runner.asked("GET")) == 2  # the large one was not fetched


def test_strange_artifacts_are_ignored(runner):
    strange = [artifact(1, "gate-$(id)"), artifact(2, "gate-a\nb"), artifact(3, "wheel")]
    assert say(runner, strange, "ci", "pull_request") is None
    assert "failure" in say(runner, strange)  # a broken gate has no summary, and is told of


def comment_on(runner, comments):
    runner.answer("GET repos/us/kan/issues/7/comments?per_page=100", comments)
    runner.answer("PATCH repos/us/kan/issues/comments/2", {})
    runner.answer("POST repos/us/kan/issues/7/comments", {})
    (runner.folder / "comment.md").write_text("new")
    finished = runner.run(
        "comment.yml", "comment", "Comment", **COMMENT, WORKFLOW="ci", EVENT="", NUMBER="7"
    )
    assert finished.returncode == 0, finished.stdout
    return runner.asked("POST", "PATCH")


def test_the_comment_is_renewed(runner):
    ours = {"login": "github-actions[bot]"}
    comments = [
        {"id": 1, "user": {"login": "stranger"}, "body": "<!-- summary of ci --> mine"},
        {"id": 3, "user": ours, "body": "<!-- summary of gpu-gate --> x"},
        {"id": 2, "user": ours, "body": "<!-- summary of ci --> x"},
    ]
    renewed = ["PATCH", "repos/us/kan/issues/comments/2", {"body": "new"}]
    assert comment_on(runner, comments) == [renewed]


def test_the_first_comment_is_made(runner):
    first = ["POST", "repos/us/kan/issues/7/comments", {"body": "new"}]
    assert comment_on(runner, []) == [first]


TAKES_OVER = [
    f"gpu-gate {SHA}\nnumber=6",
    "x\nnumber=6",
    "$(touch taken)",
    "`touch taken`",
    "'; touch taken; '",
    '"; touch taken; "',
    "-n",
    "*",
]
# What an environment can hold.
NAMES = st.sampled_from([*TAKES_OVER, f"gpu-gate {SHA}", f"gpu-gate {OTHER}", QUEUE, ""]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30
)
WORKFLOWS = st.sampled_from(["ci", "gpu-gate"]) | NAMES
EVENTS = st.sampled_from(["pull_request", "push", "workflow_dispatch", "merge_group"]) | NAMES


@pytest.mark.parametrize("examples", [5, pytest.param(300, marks=pytest.mark.fuzz)])
def test_only_the_run_s_own_pull_request_is_told(runner, examples):
    outputs = runner.programs / "output"

    def run(found):
        outputs.unlink(missing_ok=True)
        runner.outputs = {}
        workflow, event, branch, title, repository = found
        number, _ = which_pull(runner, workflow, event, branch, SHA, title, repository)
        own = ("123",) if (event, branch) == ("merge_group", QUEUE) else ("7", "9")
        assert number is None or number in own
        assert not (runner.folder / "taken").exists()
        assert runner.outputs.keys() <= {"number"}

    fuzz(st.tuples(WORKFLOWS, EVENTS, NAMES, NAMES, NAMES), examples, run)
