"""The workflows' rules: least rights, no stranger's code on our machines, no green by accident.

Each rule is a function from the files' texts to its complaints. `make lint` has zizmor check what
holds for workflows anywhere; what these rules check is this project's own.
"""

import contextlib
import functools
import io
import itertools
import json
import os
import re
import subprocess

from perfgate import cli
from tests.workflows import BASH, HOSTED, ROOT, jobs, our_machines, parsed, steps

# Events that only people with write access can cause, or time.
TRUSTED = {"merge_group", "push", "workflow_dispatch", "schedule"}
VETTED = {"main", "gpu/**"}
READ = {"contents": "read"}
RIGHTS = {
    ("ci.yml", "make"): READ,
    ("ci.yml", "ci"): {},
    ("gpu-gate.yml", "settings"): {"actions": "read"},
    ("gpu-gate.yml", "admit"): {},
    ("gpu-gate.yml", "gate"): READ,
    ("gpu-gate.yml", "gpu-gate"): {},
    ("comment.yml", "comment"): {"actions": "read", "pull-requests": "write"},
    ("nightly.yml", "measure"): READ,
    ("nightly.yml", "propose"): {"contents": "write", "pull-requests": "write"},
}
# The checks that a merge requires: file and job.
REQUIRED = {"ci.yml": "ci", "gpu-gate.yml": "gpu-gate"}
# A run by hand is shown at another commit than the one that it measures.
NAMES = {
    "ci": "ci",
    "gpu-gate": ("${{ github.event_name == 'workflow_dispatch' && 'by hand' || 'gpu-gate' }}"),
}
RESULTS = ("success", "failure", "cancelled", "skipped")


def pins(texts):
    """Beside a commit id stands its version, and an action has one of them everywhere."""
    pin = re.compile(r"\s*(?:- )?uses: (.+)(@.+ # v\d+\.\d+\.\d+)")
    seen, wrong = {}, []
    for file, text in texts.items():
        for line in text.splitlines():
            if not re.match(r"\s*(- )?['\"]?uses\b", line):
                continue
            match = pin.fullmatch(line)
            if match is None or seen.setdefault(match[1], match[2]) != match[2]:
                wrong.append(f"{file}: {line.strip()}")
    return wrong


def rights(texts):
    found = {(file, name): job.get("permissions") for file, name, job in jobs(texts)}
    return [str(k) for k in found.keys() | RIGHTS.keys() if found.get(k) != RIGHTS.get(k)]


def triggers(texts):
    wrong = []
    for file, workflow in parsed(texts).items():
        events = workflow["on"]
        if our_machines({file: texts[file]}):
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


def writers(texts):
    """Whoever may write runs nothing of the repository."""
    wrong = []
    for where, job, step in steps(texts):
        checks_out = "checkout" in step.get("uses", "")
        may_write = "write" in str(job.get("permissions"))
        runs_ours = checks_out or re.search(r"\b(make|kan-bench)\b", step.get("run", ""))
        if may_write and (runs_ours or job["runs-on"] != HOSTED):
            wrong.append(f"{where}: may write, and runs the repository's code")
    return wrong


def bounds(texts):
    return [f"{file} {name}" for file, name, job in jobs(texts) if "timeout-minutes" not in job]


def shells(texts):
    return [f for f, w in parsed(texts).items() if w.get("defaults") != {"run": {"shell": "bash"}}]


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


def check_names(name, job):
    """The names under which a job's checks may appear; an expression may become any."""
    matrix = job.get("strategy", {}).get("matrix", {})
    axes = {axis: values for axis, values in matrix.items() if axis not in ("include", "exclude")}
    legs = [dict(zip(axes, leg, strict=True)) for leg in itertools.product(*axes.values())]
    for leg in [*(legs if axes or "include" not in matrix else []), *matrix.get("include", [])]:
        called = job.get("name", name)
        for axis, value in leg.items():
            called = called.replace(f"${{{{ matrix.{axis} }}}}", str(value))
        yield called


def required_checks(texts):
    """They wait for every other job, and nothing is skipped, forgiven or named like them."""
    wrong = []
    for file, name in REQUIRED.items():
        every = parsed(texts)[file]["jobs"]
        if every[name].get("if") != "${{ always() }}":
            wrong.append(f"{file} {name}: may be skipped, which counts as success")
        if every[name].get("name", name) != NAMES[name]:
            wrong.append(f"{file} {name}: another name")
        if sorted(every[name]["needs"]) != sorted(every.keys() - {name}):
            wrong.append(f"{file} {name}: does not need every other job")
        wrong += [f"{file} {other}: if" for other in every.keys() - {name} if "if" in every[other]]
    for file, name, job in jobs(texts):
        if REQUIRED.get(file) == name:
            continue
        for called in check_names(name, job):
            if "${{" in called or "gpu-gate" in called.lower() or called.lower() in NAMES:
                wrong.append(f"{file} {name}: answers for a required check as {called}")
    return wrong + [w for w, job, step in steps(texts) if "continue-on-error" in {*job, *step}]


def unprotected(texts):
    """Nothing names an environment, nor runs on our machines, before the settings are read."""
    wrong = []
    for file, name, job in jobs(texts):
        needs, every = job.get("needs", []), parsed(texts)[file]["jobs"]
        if "environment" in job and needs != "settings":
            wrong.append(f"{file} {name}: names an environment that GitHub may just have made")
        if name == "settings" and job.keys() & {"environment", "needs"}:
            wrong.append(f"{file} {name}: is not first")
        if "settings" in every and name not in ("settings", REQUIRED[file]) and not needs:
            wrong.append(f"{file} {name}: does not wait for the settings")
    return wrong


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


@functools.cache
def is_green(script, needs):
    """Whether a required check's script succeeds, given the results of the jobs that it needs."""
    environment = {"PATH": os.environ["PATH"], "NEEDS": needs}
    finished = subprocess.run(
        [*BASH, "-c", script], stdin=subprocess.DEVNULL, env=environment, capture_output=True
    )
    return finished.returncode == 0


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
            if is_green(job["steps"][0]["run"], needs) is not expected:
                wrong.append(f"{file} {name}: {needs}")
    return wrong
