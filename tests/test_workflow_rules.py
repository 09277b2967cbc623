"""The workflows keep their rules, and the faults planted below show that each rule can complain.

So do faults that `make lint` finds by zizmor.
"""

import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow_rules import (
    NAMES,
    RIGHTS,
    bounds,
    by_hand,
    commands,
    evidence,
    gpus,
    pins,
    required_checks,
    rights,
    shells,
    syntax,
    triggers,
    unprotected,
    verdicts,
    writers,
)
from tests.workflows import ROOT, TEXTS

CHECKOUT = "uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
UPLOAD = "uses: actions/upload-artifact"
STAND_IN = "${{ github.event_name == 'pull_request' && 'gpu-gate' || 'no GPU here' }}"
# For each rule, where a text is replaced by another, and the rule must complain.
FAULTS = {
    pins: [
        ("ci.yml", " # v7.0.1", ""),
        ("nightly.yml", "checkout@3d3c42e5", "checkout@3d3c42e6"),
    ],
    rights: [
        ("gpu-gate.yml", "contents: read", "contents: write"),
        ("comment.yml", "      actions: read # the run's artifacts\n", ""),
        ("nightly.yml", "      pull-requests: write", "      packages: write"),
    ],
    triggers: [
        ("gpu-gate.yml", "  merge_group:", "  pull_request:"),
        ("gpu-gate.yml", "[main, gpu/**]", "['**']"),
        ("gpu-gate.yml", "    branches: [main, gpu/**]", "    tags: [v1]"),
        ("ci.yml", "runs-on: ubuntu-24.04", "runs-on: [self-hosted]"),
    ],
    by_hand: [
        ("gpu-gate.yml", "'gpu-by-hand' ||", "'gpu' ||"),
        ("gpu-gate.yml", "    needs: admit\n", "    needs: []\n"),
    ],
    writers: [
        ("comment.yml", "- name: Comment", f"- {CHECKOUT}\n      - name: Comment"),
        ("nightly.yml", "base64 -w", "make refresh; base64 -w"),
    ],
    bounds: [("comment.yml", "    timeout-minutes: 5\n", "")],
    shells: [("gpu-gate.yml", "    shell: bash", "    shell: sh")],
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
        ("ci.yml", "needs: [make]", "needs: []"),
        ("gpu-gate.yml", "needs: [settings, admit, gate]", "needs: [settings, gate]"),
        ("gpu-gate.yml", "    needs: admit\n", "    needs: admit\n    if: ${{ false }}\n"),
        ("gpu-gate.yml", "run: make gpu", "continue-on-error: true\n        run: make gpu"),
        ("gpu-gate.yml", "'by hand'", "'gpu-gate'"),
        ("gpu-gate.yml", f"    name: {NAMES['gpu-gate']}\n", ""),
        ("ci.yml", "    name: make ${{ matrix.target }} ", f"    name: {STAND_IN} "),
        ("ci.yml", "make ${{ matrix.target }} (Python ${{ matrix.python }})", "${{ matrix.gpu }}"),
        ("nightly.yml", "name: measure (${{ matrix.gpu }})", "name: CI"),
        ("nightly.yml", "  propose:\n", "  gpu-gate:\n"),
        ("comment.yml", "  comment:\n    runs-on", "  ci:\n    runs-on"),
        ("nightly.yml", "    name: measure (${{ matrix.gpu }})", "    name: gpu-gate"),
    ],
    unprotected: [
        ("gpu-gate.yml", "    needs: settings\n", ""),
        ("gpu-gate.yml", "  settings:\n", "  settings:\n    environment: gpu\n"),
        ("nightly.yml", "    needs: measure\n", "    environment: gpu\n"),
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
# The same, for what zizmor must say.
LINTED = {
    "does not match expected validation schema": [
        ("ci.yml", "runs-on: ubuntu-24.04", "run-on: ubuntu-24.04"),
        ("ci.yml", "fail-fast: false", "fail-fast: 7"),
        ("nightly.yml", "  group: nightly\n", ""),
    ],
    "unpinned-uses": [("ci.yml", "3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "v7")],
    "forbidden-uses": [("gpu-gate.yml", "uses: actions/checkout", "uses: somebody/checkout")],
    "excessive-permissions": [
        ("ci.yml", "permissions: {}\n\nconcurrency", "concurrency"),
        ("comment.yml", "permissions: {}", "permissions: write-all"),
    ],
    "dangerous-triggers": [("ci.yml", "  pull_request:", "  pull_request_target:")],
    "artipacked": [
        ("gpu-gate.yml", "persist-credentials: false", "persist-credentials: true"),
        ("ci.yml", "persist-credentials: false", "clean: true"),
    ],
    "concurrency-limits": [
        ("nightly.yml", "concurrency:\n  group: nightly\n  cancel-in-progress: false\n", ""),
    ],
    "template-injection": [
        ("ci.yml", 'make "$TARGET"', "make ${{ matrix.target }}"),
        ("comment.yml", "sha=$HEAD_SHA", "sha=${{ github.event.workflow_run.head_sha }}"),
    ],
}


def parameters(faults_of, name_of):
    return [
        pytest.param(of, *fault, id=f"{name_of(of)}-{fault[0]}-{fault[2].splitlines()[-1:]}")
        for of, faults in faults_of.items()
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
@pytest.mark.parametrize(
    ("rule", "file", "right", "wrong"), parameters(FAULTS, lambda rule: rule.__name__)
)
def test_a_planted_fault_breaks_the_rule(rule, file, right, wrong):
    assert right in TEXTS[file]
    planted = TEXTS | {file: TEXTS[file].replace(right, wrong, 1)}
    assert set(rule(planted)) - set(complaints(rule))


@pytest.fixture
def lint(tmp_path):
    """What `make lint` says of the workflows in the folder, and the folder."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    [command] = re.findall(r"\$\(BIN\)/(zizmor .*)", (ROOT / "Makefile").read_text())
    program, *arguments = command.split()

    def run():
        return subprocess.run(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run, tmp_path / ".github" / "workflows"


def test_make_lint_finds_nothing_in_the_workflows(lint):
    run, _ = lint
    assert run().returncode == 0


@pytest.mark.parametrize(("said", "file", "right", "wrong"), parameters(LINTED, str))
def test_make_lint_finds_a_planted_fault(lint, said, file, right, wrong):
    run, folder = lint
    assert right in TEXTS[file]
    (folder / file).write_text(TEXTS[file].replace(right, wrong, 1))
    found = run()
    assert found.returncode != 0
    assert said in found.stdout + found.stderr
