"""The workflows: least rights, no stranger's code on our machines, and no green by accident.

Every rule is a function from the files' texts to its complaints, so that the faults planted below
show that it can complain. The scripts inside the files are run for real, with a `gh` that writes
down what it is asked and answers what the test says.
"""

import base64
import contextlib
import functools
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from kan_impls.bench import cli

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {path.name: path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")}

HOSTED = "ubuntu-24.04"
# Events that only people with write access can cause, or time.
TRUSTED = {"merge_group", "push", "workflow_dispatch", "schedule"}
VETTED = {"main", "gpu/**"}
READ = {"contents": "read"}
RIGHTS = {
    ("ci.yml", "make"): READ,
    ("ci.yml", "gpu-gate-is-asked-in-the-queue"): {},
    ("ci.yml", "ci"): {},
    ("gpu-gate.yml", "admit"): {},
    ("gpu-gate.yml", "gate"): READ,
    ("gpu-gate.yml", "gpu-gate"): {},
    ("comment.yml", "comment"): {"actions": "read", "pull-requests": "write"},
    ("nightly.yml", "measure"): READ,
    ("nightly.yml", "propose"): {"contents": "write", "pull-requests": "write"},
}
# The checks that a merge requires: file and job.
REQUIRED = {"ci.yml": "ci", "gpu-gate.yml": "gpu-gate"}
STAND_IN = "${{ github.event_name == 'pull_request' && 'gpu-gate' || 'no GPU here' }}"
RESULTS = ("success", "failure", "cancelled", "skipped")
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # as GitHub starts `shell: bash`


class Loader(yaml.SafeLoader):
    """YAML as GitHub reads it: `on` is a word, not a truth value."""


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


@pytest.fixture
def linux_tools():
    """The scripts are for GitHub's Linux runners, which have all of these; yours may not."""
    missing = [tool for tool in ("bash", "git", "jq", "unzip") if shutil.which(tool) is None]
    if (missing or sys.platform != "linux") and "CI" not in os.environ:
        pytest.skip(f"needs Linux (here: {sys.platform}) with bash, git, jq, unzip; no {missing}")


@functools.cache
def parsed_file(text):
    return yaml.load(text, Loader)


def parsed(texts):
    return {file: parsed_file(text) for file, text in texts.items()}


def jobs(texts):
    for file, workflow in parsed(texts).items():
        for name, job in workflow["jobs"].items():
            yield file, name, job


def steps(texts):
    for file, name, job in jobs(texts):
        for number, step in enumerate(job["steps"]):
            yield f"{file} {name} {step.get('name', number)}", job, step


def our_machines(texts):
    return [(f"{file} {name}", job) for file, name, job in jobs(texts) if job["runs-on"] != HOSTED]


# The rules


def schema(texts):
    validator = jsonschema.Draft7Validator(get_builtin_schema("vendor.github-workflows"))
    return [f"{f}: {e.message}" for f, w in parsed(texts).items() for e in validator.iter_errors(w)]


def pins(texts):
    """Actions of GitHub itself only, by full commit id, with the version beside it."""
    pin = re.compile(r"\s*(- )?uses: (actions/[a-z-]+)(@[0-9a-f]{40} # v\d+\.\d+\.\d+)")
    seen, wrong = {}, []
    for file, text in texts.items():
        for line in text.splitlines():
            if not re.match(r"\s*(- )?['\"]?uses\b", line):
                continue
            match = pin.fullmatch(line)
            if match is None or seen.setdefault(match[2], match[3]) != match[3]:
                wrong.append(f"{file}: {line.strip()}")
    return wrong


def rights(texts):
    wrong = [f"{f}: top level" for f, w in parsed(texts).items() if w.get("permissions") != {}]
    found = {(file, name): job.get("permissions") for file, name, job in jobs(texts)}
    return wrong + [str(k) for k in found.keys() | RIGHTS.keys() if found.get(k) != RIGHTS.get(k)]


def triggers(texts):
    wrong = []
    for file, workflow in parsed(texts).items():
        events = workflow["on"]
        if not isinstance(events, dict) or "pull_request_target" in events:
            wrong.append(f"{file}: {events}")
        elif our_machines({file: texts[file]}):
            wrong += [f"{file}: {e} on our machines" for e in events.keys() - TRUSTED]
            push = events.get("push", {"branches": []})
            if push is None or push.keys() != {"branches"} or not VETTED.issuperset(*push.values()):
                wrong.append(f"{file}: any push on our machines")
    return wrong


def by_hand(texts):
    """What is asked for by hand waits for an approval."""
    wrong = []
    for file, workflow in parsed(texts).items():
        if "workflow_dispatch" in workflow["on"]:
            machines = our_machines({file: texts[file]})
            wrong += [f"{name}: not admitted" for name, job in machines if job["needs"] != "admit"]
            environment = workflow["jobs"]["admit"].get("environment", "")
            if "github.event_name == 'workflow_dispatch' && 'gpu-by-hand' ||" not in environment:
                wrong.append(f"{file}: no protected environment")
    return wrong


def checkouts(texts):
    """No credentials stay behind, and whoever may write runs nothing of the repository."""
    wrong = []
    for where, job, step in steps(texts):
        checks_out = "checkout" in step.get("uses", "")
        if checks_out and step.get("with", {}).get("persist-credentials") is not False:
            wrong.append(f"{where}: keeps credentials")
        may_write = "write" in str(job.get("permissions"))
        runs_ours = checks_out or re.search(r"\b(make|kan-bench)\b", step.get("run", ""))
        if may_write and (runs_ours or job["runs-on"] != HOSTED):
            wrong.append(f"{where}: may write, and runs the repository's code")
    return wrong


def bounds(texts):
    unlimited = [
        f"{file} {name}" for file, name, job in jobs(texts) if "timeout-minutes" not in job
    ]
    return unlimited + [
        file for file, workflow in parsed(texts).items()
        if "group" not in (workflow.get("concurrency") or {})
    ]  # fmt: skip


def expressions(texts):
    """A stranger's text gets into a script as a variable, never as part of the script."""
    wrong = [f for f, w in parsed(texts).items() if w.get("defaults") != {"run": {"shell": "bash"}}]
    return wrong + [where for where, _, step in steps(texts) if "${{" in step.get("run", "")]


def syntax(texts):
    scripts = [(where, step["run"]) for where, _, step in steps(texts) if "run" in step]
    return [w for w, s in scripts if subprocess.run([*BASH, "-n"], input=s, text=True).returncode]


@functools.cache
def known_commands():
    targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        cli.main(["--help"])
    subcommands = re.search(r"{([\w,-]+)}", text.getvalue())[1].split(",")
    return {f"make {t}" for t in targets} | {f"kan-bench {s}" for s in subcommands}


def commands(texts):
    """Whatever a workflow does with the project, the same command does elsewhere."""
    wrong = []
    for where, job, step in steps(texts):
        used = re.findall(r"\b(?:make|kan-bench) [\"$\w-]+", step.get("run", ""))
        if used == ['make "$TARGET"'] and step["env"] == {"TARGET": "${{ matrix.target }}"}:
            used = [f"make {leg['target']}" for leg in job["strategy"]["matrix"]["include"]]
        wrong += [f"{where}: {c}" for c in used if c not in known_commands()]
        if re.search(r"\b(python3?|pip|pytest|ruff|mypy|nox)\b|\./", step.get("run", "")):
            wrong.append(f"{where}: neither make nor kan-bench")
    return wrong


def required_checks(texts):
    """They wait for every other job, and nothing is skipped, forgiven or named like them."""
    wrong = []
    for file, name in REQUIRED.items():
        every = parsed(texts)[file]["jobs"]
        if every[name].get("if") != "${{ always() }}":
            wrong.append(f"{file} {name}: may be skipped, which counts as success")
        if sorted(every[name]["needs"]) != sorted(every.keys() - {name}):
            wrong.append(f"{file} {name}: does not need every other job")
        wrong += [f"{file} {other}: if" for other in every.keys() - {name} if "if" in every[other]]
    for file, name, job in jobs(texts):
        called = job.get("name", name)
        if name not in REQUIRED.values() and called != STAND_IN and "gpu-gate" in called:
            wrong.append(f"{file} {name}: answers for gpu-gate")
    return wrong + [w for w, job, step in steps(texts) if "continue-on-error" in {*job, *step}]


def evidence(texts):
    """What was measured is kept and shown, above all when it is red; a proposal is not red."""
    wrong = []
    for where, _, step in steps(texts):
        shown = "upload-artifact" in str(step.get("uses")) or "STEP_SUMMARY" in str(step.get("run"))
        proposal = str(step.get("with", {}).get("name")).startswith("baselines-")
        if shown and proposal == ("always()" in step.get("if", "")):
            wrong.append(where)
    return wrong


def gpus(texts):
    """The same in both files; and what the machine has is printed before anything else."""
    wrong = []
    for where, job in our_machines(texts):
        scripts = [step["run"] for step in job["steps"] if "run" in step]
        if not scripts[0].startswith("nvidia-smi\n"):
            wrong.append(f"{where}: nvidia-smi is not first")
        if job["runs-on"] != ["self-hosted", "linux", "${{ matrix.gpu }}"]:
            wrong.append(f"{where}: not by its label")
    lists = {str(job["strategy"]["matrix"]["gpu"]) for _, job in our_machines(texts)}
    return wrong + ([f"not the same GPUs: {lists}"] if len(lists) != 1 else [])


def verdicts(texts):
    """The required checks' scripts, run over every result that the other jobs can have."""
    wrong = []
    for file, name in REQUIRED.items():
        job = parsed(texts)[file]["jobs"][name]
        answers = {"{}": False, "": False, "null": False}
        for results in itertools.product(RESULTS, repeat=len(job["needs"])):
            needs = {n: {"result": r} for n, r in zip(job["needs"], results, strict=True)}
            answers[json.dumps(needs)] = set(results) == {"success"}
        for needs, expected in answers.items():
            finished = subprocess.run(
                [*BASH, "-c", job["steps"][0]["run"]], stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "NEEDS": needs}, capture_output=True,
            )  # fmt: skip
            if (finished.returncode == 0) is not expected:
                wrong.append(f"{file} {name}: {needs}")
    return wrong


CHECKOUT = "uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
UPLOAD = "uses: actions/upload-artifact"
# For each rule, where a text is replaced by another, and the rule must complain.
FAULTS = {
    schema: [
        ("ci.yml", "runs-on: ubuntu-24.04", "run-on: ubuntu-24.04"),
        ("ci.yml", "fail-fast: false", "fail-fast: 7"),
    ],
    pins: [
        ("ci.yml", "3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "v7"),
        ("ci.yml", " # v7.0.1", ""),
        ("nightly.yml", "checkout@3d3c42e5", "checkout@3d3c42e6"),
        ("gpu-gate.yml", "uses: actions/checkout", "uses: somebody/checkout"),
    ],
    rights: [
        ("ci.yml", "permissions: {}\n\nconcurrency", "concurrency"),
        ("gpu-gate.yml", "contents: read", "contents: write"),
        ("comment.yml", "permissions: {}", "permissions: write-all"),
        ("nightly.yml", "      pull-requests: write", "      packages: write"),
    ],
    triggers: [
        ("ci.yml", "  pull_request:", "  pull_request_target:"),
        ("gpu-gate.yml", "  merge_group:", "  pull_request:"),
        ("gpu-gate.yml", "[main, gpu/**]", "['**']"),
        ("gpu-gate.yml", "    branches: [main, gpu/**]", "    tags: [v1]"),
        ("ci.yml", "runs-on: ubuntu-24.04", "runs-on: [self-hosted]"),
    ],
    by_hand: [
        ("gpu-gate.yml", "'gpu-by-hand' ||", "'gpu' ||"),
        ("gpu-gate.yml", "    needs: admit\n", "    needs: []\n"),
    ],
    checkouts: [
        ("gpu-gate.yml", "persist-credentials: false", "persist-credentials: true"),
        ("ci.yml", "persist-credentials: false", "clean: true"),
        ("comment.yml", "- name: Comment", f"- {CHECKOUT}\n      - name: Comment"),
        ("nightly.yml", "base64 -w", "make refresh; base64 -w"),
    ],
    bounds: [
        ("comment.yml", "    timeout-minutes: 5\n", ""),
        ("nightly.yml", "  group: nightly\n", ""),
    ],
    expressions: [
        ("ci.yml", 'make "$TARGET"', "make ${{ matrix.target }}"),
        ("comment.yml", "sha=$HEAD_SHA", "sha=${{ github.event.workflow_run.head_sha }}"),
        ("gpu-gate.yml", "    shell: bash", "    shell: sh"),
    ],
    syntax: [("gpu-gate.yml", "          esac\n", "")],
    commands: [
        ("ci.yml", "target: lint", "target: lnit"),
        ("ci.yml", "TARGET: ${{ matrix.target }}", "TARGET: ${{ matrix.python }}"),
        ("gpu-gate.yml", "make gate DEVICE", "make gaet DEVICE"),
        ("nightly.yml", "run: make refresh", "run: kan-bench refersh"),
        ("nightly.yml", "run: make refresh", "run: python benchmarks/refresh.py"),
    ],
    required_checks: [
        ("ci.yml", "  ci:\n    if: ${{ always() }}\n", "  ci:\n"),
        ("ci.yml", "needs: [make, gpu-gate-is", "needs: [gpu-gate-is"),
        ("gpu-gate.yml", "needs: [admit, gate]", "needs: [gate]"),
        ("gpu-gate.yml", "    needs: admit\n", "    needs: admit\n    if: ${{ false }}\n"),
        ("gpu-gate.yml", "run: make gpu", "continue-on-error: true\n        run: make gpu"),
        ("ci.yml", "'no GPU here'", "'gpu-gate'"),
        ("nightly.yml", "    name: measure (${{ matrix.gpu }})", "    name: gpu-gate"),
    ],
    evidence: [
        ("gpu-gate.yml", f"- if: ${{{{ always() }}}}\n        {UPLOAD}", f"- {UPLOAD}"),
        ("gpu-gate.yml", "        if: ${{ always() }}\n        run", "        run"),
        ("nightly.yml", f"- {UPLOAD}", f"- if: ${{{{ always() }}}}\n        {UPLOAD}"),
    ],
    gpus: [
        ("nightly.yml", "gpu: [nvidia-h100-80gb-hbm3]", "gpu: [nvidia-a5000]"),
        ("gpu-gate.yml", "          nvidia-smi\n", "          true\n"),
        ("gpu-gate.yml", '[self-hosted, linux, "${{ matrix.gpu }}"]', "[self-hosted, linux]"),
    ],
    verdicts: [
        ("ci.yml", '.result == "success"', '.result != "failure"'),
        ("gpu-gate.yml", '.result == "success"', '.result != "cancelled"'),
        ("gpu-gate.yml", "all(.[]; .result", "any(.[]; .result"),
        ("ci.yml", "length > 0 and ", ""),
        ("ci.yml", "jq -en", "jq -n"),
    ],
}
PLANTED = [
    pytest.param(rule, *fault, id=f"{rule.__name__}-{fault[0]}-{fault[2].splitlines()[-1:]}")
    for rule, faults in FAULTS.items()
    for fault in faults
]


@functools.cache
def complaints(rule):
    return rule(TEXTS)


@pytest.mark.usefixtures("linux_tools")
@pytest.mark.parametrize("rule", FAULTS, ids=lambda rule: rule.__name__)
def test_the_workflows_keep_the_rule(rule):
    assert TEXTS.keys() == {file for file, _ in RIGHTS}
    assert complaints(rule) == []


@pytest.mark.usefixtures("linux_tools")
@pytest.mark.parametrize(("rule", "file", "right", "wrong"), PLANTED)
def test_a_planted_fault_breaks_the_rule(rule, file, right, wrong):
    assert right in TEXTS[file]
    planted = TEXTS | {file: TEXTS[file].replace(right, wrong, 1)}
    assert set(rule(planted)) - set(complaints(rule))


# The scripts

GH = f"""#!{sys.executable} -SE
import json, pathlib, sys
here = pathlib.Path(__file__).parent
arguments, fields = iter(sys.argv[2:]), {{}}
path = method = body = None
for argument in arguments:
    if argument == "-X":
        method = next(arguments)
    elif argument in ("-f", "-F"):
        key, _, value = next(arguments).partition("=")
        is_file = argument == "-F" and value[:1] == "@"
        fields[key] = pathlib.Path(value[1:]).read_text(errors="replace") if is_file else value
    elif argument == "--input":
        assert next(arguments) == "-"
        body = json.load(sys.stdin)
    elif argument != "--paginate":
        path = argument
method = method or ("POST" if fields or body else "GET")
with open(here / "asked.jsonl", "a") as log:
    print(json.dumps([method, path, body or fields]), file=log)
answer = here / (method + " " + path).replace("/", "|")
if not answer.exists():
    sys.exit(f"HTTP 404: {{method}} {{path}}")
sys.stdout.buffer.write(answer.read_bytes())
"""


class Runner:
    """Runs a step's script as GitHub would, in an empty folder with stand-ins on the PATH."""

    def __init__(self, folder):
        self.programs, self.folder = folder / "programs", folder / "work"
        self.programs.mkdir()
        self.folder.mkdir()
        self.outputs = {}
        self.program("gh", GH)

    def program(self, name, text):
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def answer(self, request, reply):
        """What `gh api` answers to a request such as "GET repos/us/kan/pulls"."""
        reply = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        (self.programs / request.replace("/", "|")).write_bytes(reply)

    def asked(self, *methods):
        log = self.programs / "asked.jsonl"
        calls = map(json.loads, log.read_text().splitlines()) if log.exists() else []
        return [call for call in calls if call[0] in methods]

    def run(self, file, job, name, **variables):
        """The step called `name`, with the variables that the file sets, and no others."""
        workflow = parsed(TEXTS)[file]
        job = workflow["jobs"][job]
        [step] = [step for step in job["steps"] if step.get("name") == name]
        declared = {**workflow.get("env", {}), **job.get("env", {}), **step.get("env", {})}
        assert variables.keys() <= declared.keys()
        given = {k: v for k, v in declared.items() if "${{" not in v} | variables
        assert given.keys() == declared.keys()
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "GITHUB_OUTPUT": str(self.programs / "output"),
            "GITHUB_STEP_SUMMARY": str(self.programs / "step_summary"),
        }
        finished = subprocess.run(
            [*BASH, "-c", step["run"]], cwd=self.folder, env=environment | given, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if (self.programs / "output").exists():
            lines = (self.programs / "output").read_text().splitlines()
            self.outputs = dict(line.split("=", 1) for line in lines)
        return finished


@pytest.fixture
def runner(tmp_path, linux_tools):
    return Runner(tmp_path)


SHA, OTHER, MAIN = "a" * 40, "b" * 40, "c" * 40
QUEUE = f"gh-readonly-queue/main/pr-123-{MAIN}"


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

    def git(*arguments):
        name = ("-c", "user.name=x", "-c", "user.email=x@x")
        command = ["git", *name, *arguments]
        return subprocess.check_output(command, cwd=runner.folder, text=True).strip()

    git("init", "--quiet")
    ids = []
    for message in ("first", "main", "branch", "head"):
        git("commit", "--quiet", "--allow-empty", "-m", message)
        ids.append(git("rev-parse", "HEAD"))
    git("update-ref", "refs/remotes/origin/main", ids[1])
    runner.program("make", '#!/bin/sh\necho "$@"\n')
    runner.git = git
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
        "gpu-gate.yml", "gate", "Gate", EVENT=event, REF=ref, DEVICE="cpu",
        QUEUE_BASE="" if queue_base is None else history[queue_base],
        BEFORE=history[before] if isinstance(before, int) else before or "",
    )  # fmt: skip
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


COMMENT = {"GH_TOKEN": "", "REPO": "us/kan"}


def find_pull(runner, workflow, event, branch="x", sha=SHA, title="x"):
    heads = [{"number": 9, "head": {"sha": OTHER}}, {"number": 7, "head": {"sha": SHA}}]
    runner.answer("GET repos/us/kan/pulls?state=open&per_page=100", heads)
    finished = runner.run(
        "comment.yml", "comment", "Which pull request", **COMMENT, WORKFLOW=workflow,
        EVENT=event, HEAD_BRANCH=branch, HEAD_SHA=sha, TITLE=title,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout
    return runner.outputs.get("number")


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
    assert find_pull(runner, **run) is None


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
        "comment.yml", "comment", "What the run says", **COMMENT, WORKFLOW=workflow, EVENT=event,
        RUN_ID="5", CONCLUSION="failure", URL="https://github.com/us/kan/actions/runs/5",
    )  # fmt: skip
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
        "artifact.zip", "artifacts.json", "chosen.txt", "comment.md", "shown.md", "summary.md",
    }  # fmt: skip
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
