"""Base against head: revisions, turns, and what they say together.

One test runs real processes of two real revisions; the rest is told by hand.
"""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from kan_impls.bench.ab.duel import Pair, Plan, compare_rounds, duel
from kan_impls.bench.ab.run import Contestants, compare_revisions
from kan_impls.bench.ab.trees import RevisionError, Tree, commit_of, tree_of
from kan_impls.bench.cli import main
from kan_impls.bench.measure.rounds import OWN, Round
from kan_impls.bench.processes import Command, WorkerError
from tests.bench_measurements import measurement, process, run_of
from tests.git import git


@pytest.fixture
def repository(tmp_path):
    """A repository whose second commit adds a file."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.txt").write_text("first")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "base")
    (folder / "a.txt").write_text("second")
    git(folder, "commit", "-qam", "second")
    return folder


def test_a_revision_has_its_files_in_a_folder_that_goes_away(repository):
    with tree_of(repository, "base") as tree:
        assert (tree.folder / "a.txt").read_text() == "first"
        assert tree.revision == "base"
        assert tree.source == tree.folder
    assert not tree.folder.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_no_revision_is_the_files_as_they_are(repository):
    (repository / "a.txt").write_text("not committed")
    (repository / "src").mkdir()
    with tree_of(repository, None) as tree:
        assert tree.folder == repository
        assert tree.source == repository / "src"
    assert (repository / "a.txt").read_text() == "not committed"


@pytest.mark.parametrize("revision", ["nothing", "--upload-pack=x", ""])
def test_an_unknown_revision_is_an_error(repository, revision):
    with pytest.raises(RevisionError, match=r"does not exist in .*; expected a branch"):
        tree_of(repository, revision).__enter__()


def test_a_folder_without_git_is_an_error(tmp_path):
    with pytest.raises(RevisionError, match="expected a git repository"):
        tree_of(tmp_path, None).__enter__()


def test_a_project_may_be_a_part_of_its_repository(repository):
    inner = repository / "inner"
    inner.mkdir()
    (inner / "mine.py").touch()
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "third")
    with tree_of(inner, "HEAD") as tree:
        assert tree.folder.name == "inner"
        assert (tree.folder / "mine.py").exists()


def test_what_an_interrupted_comparison_left_is_cleared(repository, tmp_path):
    gone = tmp_path / "gone"
    git(repository, "worktree", "add", "--detach", str(gone), "base")
    shutil.rmtree(gone)
    with tree_of(repository, "base"):
        pass
    assert len(list((repository / ".git" / "worktrees").glob("*"))) == 0


KILLED = """
import os, sys
from pathlib import Path
from kan_impls.bench.ab.trees import tree_of
with tree_of(Path(sys.argv[1]), "base") as first, tree_of(Path(sys.argv[1]), "HEAD") as second:
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_comparison_left_is_cleared(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(repository)], check=False)
    git(repository, "worktree", "add", "--detach", str(tmp_path / "mine"), "base")
    # One that git itself did not come to the end of is locked.
    for worktree in (repository / ".git" / "worktrees").iterdir():
        if worktree.name != "mine":
            (worktree / "locked").write_text("initializing")
    assert list(tmp_path.glob("kan-bench-tree-*"))
    with tree_of(repository, "base"):
        pass
    assert not list(tmp_path.glob("kan-bench-tree-*"))
    assert len(git(repository, "worktree", "list").splitlines()) == 2  # and what is not ours
    assert (tmp_path / "mine" / "a.txt").exists()


def test_gits_own_words_are_kept(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("HOME", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    with pytest.raises(RevisionError, match=r"dubious ownership.*safe\.directory") as caught:
        commit_of(repository, "base")
    assert "\n" not in str(caught.value)
    assert "git fetch" not in str(caught.value)


def test_the_command_says_what_is_wrong_in_one_line(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    assert main(["ab", "nothing"]) == 1
    assert capsys.readouterr().err.startswith("kan-bench: the revision 'nothing' does not exist")


def pair_of_rounds(base, head, base_disturbed=None, head_disturbed=None):
    return (
        Round({OWN: base[0], "ratio": base[1]}, base_disturbed),
        Round({OWN: head[0], "ratio": head[1]}, head_disturbed),
    )


def test_each_round_is_divided_by_its_own_reference_and_by_the_others_round():
    # The machine was half as fast in the head's rounds: its reference tells.
    compared = compare_rounds([pair_of_rounds((1.0, 2.0), (2.2, 4.0))] * 3)
    assert compared.ratio == pytest.approx(1.1)
    assert compared.median_ns == pytest.approx(2.2)
    assert (compared.rounds, compared.disturbed) == (3, 0)


def test_a_round_that_was_disturbed_on_either_side_is_dropped():
    good = pair_of_rounds((1.0, 1.0), (1.1, 1.0))
    bad = [
        pair_of_rounds((9.0, 1.0), (1.0, 1.0), base_disturbed="busy"),
        pair_of_rounds((1.0, 1.0), (9.0, 1.0), head_disturbed="busy"),
    ]
    compared = compare_rounds([good, *bad])
    assert compared.ratio == pytest.approx(1.1)
    assert (compared.rounds, compared.disturbed) == (1, 2)
    assert not compare_rounds(bad).is_clean


class Script:
    """Pairs that a test makes up, run by run."""

    def __init__(self, *runs, base=None, head=None, gone=(), new=()):
        self.runs = list(runs)
        self.base = base or run_of(measurement(calibration=None))
        self.head = head or run_of(measurement(calibration=None))
        self.gone, self.new = gone, new
        self.asked = []

    def measure(self, count, names=None):
        self.asked.append(names)
        (name,) = self.head.measurements
        return [
            Pair(self.base, self.head, {name: process(ratio, median_ns=ratio)}, self.gone, self.new)
            for ratio in self.runs.pop(0)
        ]


def judged(monkeypatch, tmp_path, script, **options):
    tree = Tree(tmp_path, "c" * 40, "x")
    contestants = Contestants(tree, tree, [], Plan(), lambda text: None)
    monkeypatch.setattr(contestants, "measure", script.measure)
    outcome = compare_revisions(contestants, pairs=4, **options)
    return outcome.verdicts


@pytest.mark.parametrize(
    ("runs", "status"),
    [
        ([(1.001, 0.999, 1.002, 0.998)], "unchanged"),
        ([(1.05, 1.051, 1.049, 1.05)] * 2, "regressed"),
        ([(0.90, 0.901, 0.899, 0.90)] * 2, "improved"),
        # The first four pairs were misled, and fresh ones are not.
        ([(1.05, 1.051, 1.049, 1.05), (1.0,) * 4], "inconclusive"),
        ([(1.2, 0.8, 1.1, 0.9)] * 3, "inconclusive"),
    ],
)
def test_verdicts_of_pairs(monkeypatch, tmp_path, runs, status):
    (verdict,) = judged(monkeypatch, tmp_path, Script(*runs), most_runs=len(runs) - 1)
    assert verdict.status == status


def test_what_looks_changed_is_measured_by_fresh_pairs_and_only_that(monkeypatch, tmp_path):
    script = Script(*[(1.05, 1.051, 1.049, 1.05)] * 2)
    (verdict,) = judged(monkeypatch, tmp_path, script)
    assert script.asked == [None, [verdict.name]]
    assert "fresh processes +5.0%" in verdict.cause


def test_memory_is_compared_to_the_byte(monkeypatch, tmp_path):
    more = run_of(measurement(calibration=None, memory={"forward_peak_bytes": 8192}))
    (verdict,) = judged(monkeypatch, tmp_path, Script((1.0,) * 4, head=more))
    assert verdict.status == "regressed"
    assert "+4,096 B" in verdict.cause


def test_a_slowdown_of_the_reference_too_is_seen(monkeypatch, tmp_path):
    script = Script((1.0,) * 4, (1.0,) * 4)
    slow = [
        Pair(script.base, script.head, {n: process(1.0, median_ns=1.3) for n in m}, (), ())
        for m in [script.head.measurements] * 4
    ]
    monkeypatch.setattr(script, "measure", lambda count, names=None: slow)
    (verdict,) = judged(monkeypatch, tmp_path, script)
    assert verdict.status == "regressed"
    assert verdict.cause.startswith("time +30.0%")


def test_what_only_one_revision_has_is_named(monkeypatch, tmp_path):
    verdicts = judged(monkeypatch, tmp_path, Script((1.0,) * 4, gone=["old"], new=["young"]))
    assert {v.name: v.status for v in verdicts if v.status != "unchanged"} == {
        "old": "missing", "young": "no_baseline",
    }  # fmt: skip


PACKAGE = """
import time
def work(x):
    time.sleep({seconds})
    return x
"""

CONFTEST = """
pytest_plugins = ["kan_impls.bench.plugin"]

def pytest_benchmark_generate_machine_info():
    return {}
"""

BENCHMARK = """
import mine, pytest
from torch import nn
from kan_impls.bench.case import Case
from kan_impls.variant import Variant

class Slow(nn.Linear):
    def forward(self, x):
        return mine.work(super().forward(x))

SLOW = Variant("slow", "", "", Slow, lambda widths, device: Slow(*widths, device=device),
               lambda config: 1)

def test_slow(measure):
    measure(Case("tiny", SLOW, 4, (3, 2)), "forward")

@pytest.mark.skipif(mine.__doc__ is None, reason="the base has no docstring")
def test_new(measure):
    measure(Case("tiny", SLOW, 4, (3, 2)), "forward")
"""


def test_two_real_revisions_of_somebody_elses_project(tmp_path):
    # 20 ms against 30 ms, asleep: no busy machine makes that unclear.
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "src" / "mine.py").write_text(PACKAGE.format(seconds=0.02))
    (folder / "conftest.py").write_text(CONFTEST)
    # pytest puts the head's folder in front of everything.
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = src\n")
    (folder / "test_slow.py").write_text(textwrap.dedent(BENCHMARK))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    (folder / "src" / "mine.py").write_text('"""Slower."""\n' + PACKAGE.format(seconds=0.03))
    with tree_of(folder, "HEAD") as base, tree_of(folder, None) as head:
        contestants = Contestants(
            base, head, ["--benchmark-only", "-p", "no:cacheprovider"],
            Plan(max_seconds=0.3, min_rounds=3), lambda text: None,
        )  # fmt: skip
        (pair,) = contestants.measure(1)
    (compared,) = pair.compared.values()
    assert compared.median_ns == pytest.approx(1.5, rel=0.15)
    assert set(pair.compared) == {"test_slow.py::test_slow"}
    # What only one side measures holds up neither, and is named.
    assert pair.base.measurements.keys() == {"test_slow.py::test_slow"}
    assert (pair.gone, pair.new) == ([], ["test_slow.py::test_new"])
    (memory,) = {tuple(m.memory.values()) for m in pair.head.measurements.values()}
    assert len(memory) == 3


def test_a_side_that_breaks_is_an_error_with_its_last_words(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name")
    command = Command(["--benchmark-only", "-p", "no:cacheprovider"], tmp_path)
    with pytest.raises(WorkerError, match=r"of the (base|head)(.|\n)*nothing_of_this"):
        duel(command, command, None, Plan(), with_memory=False, announce=lambda text: None)
