"""A new basis touches three places, and everything takes it along: both forms, contract, product
form, kernels in emulation, growth laws, benchmarks and the gate of bytes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import toy_basis
from tests.emulator.build import find_compiler

pytestmark = pytest.mark.toy  # a minute in all

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project with the toy in it."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("src", "tests", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "perfgate", "recorded", "*.json.gz")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "src/kan_impls/variants/toy_kan.py").write_text(toy_basis.VARIANT)
    for place, addition in (
        ("src/kan_impls/fused/csrc/bases.cuh", toy_basis.STRUCT),
        ("tests/cases.py", toy_basis.ROW),
    ):
        with (root / place).open("a") as file:
            file.write(addition)
    return root


def run_tests(tree, *arguments):
    """The last line that pytest prints, of tests that all pass."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def number_passed(line):
    return int(line.partition(" passed")[0].split()[-1])


def test_contract_and_product_form(tree):
    # Both forms of two configurations; code generation by inductor is left to real variants.
    passed = run_tests(
        tree,
        "tests/test_contract.py",
        "tests/test_fused_product.py",
        "tests/test_registry.py",
        "-k",
        "toy_kan and not graph_break",
    )
    assert number_passed(passed) >= 110


@pytest.mark.skipif(find_compiler() is None, reason="g++ is not installed")
def test_kernels_in_emulation(tree):
    passed = run_tests(
        tree,
        "tests/test_kernels.py",
        "tests/test_fused_dispatch.py",
        "-k",
        "(Toy or toy_kan) and not sanitizer",
    )
    assert number_passed(passed) >= 36 + 10


def test_bytes_costs_and_their_growth(tree):
    figures = ["benchmarks/test_memory.py", "-k", "toy_kan", "--baselines", str(tree / "figures")]
    (tree / "figures").mkdir()
    run_tests(tree, *figures, "--accept-memory")
    # Three cases and two laws of each form.
    assert number_passed(run_tests(tree, *figures)) == 10


def test_benchmarks(tree):
    names = "grid-10-toy_kan-forward or grid-10-fused_toy_kan-forward"
    once = ["benchmarks/test_growth.py", "-m", "growth", "--benchmark-disable", "-k", names]
    assert number_passed(run_tests(tree, *once)) == 2
