"""The workflow files, read as GitHub reads them, and a runner for the scripts inside them."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {path.name: path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")}
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # as GitHub starts `shell: bash`
HOSTED = "ubuntu-24.04"
SHA, OTHER, MAIN = "a" * 40, "b" * 40, "c" * 40
QUEUE = f"gh-readonly-queue/main/pr-123-{MAIN}"


class Loader(yaml.SafeLoader):
    """YAML as GitHub reads it: `on` is a word, not a truth value."""


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


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
            [*BASH, "-c", step["run"]],
            cwd=self.folder,
            env=environment | given,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if (self.programs / "output").exists():
            lines = (self.programs / "output").read_text().splitlines()
            self.outputs = dict(line.split("=", 1) for line in lines)
        return finished
