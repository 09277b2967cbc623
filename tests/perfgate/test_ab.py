"""Base against head: revisions, turns, and what they say together.

One test runs real processes of two real revisions; the rest is told by hand.
"""

import math
import os
import re
import shutil
import signal
import tempfile
import textwrap
from types import SimpleNamespace

import pytest

from perfgate.ab.duel import Pair, Plan, compare_rounds, duel
from perfgate.ab.run import Comparison, Contestants, compare_revisions
from perfgate.ab.trees import RevisionError, Tree, commit_of, merge_base, tree_of
from perfgate.cli import main
from perfgate.judge.sequential import Goal
from perfgate.measure.rounds import OWN, Round
from perfgate.plugin import pytest_benchmark_update_commit_info
from perfgate.run.processes import Command, WorkerError, WorkerStoppedError
from tests.forked import forked
from tests.git import git
from tests.perfgate.measurements import measurement, process, run_of


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


@pytest.mark.parametrize("inside", ["", "inner"])
def test_stored_baselines_are_no_uncommitted_work(repository, inside):
    """Of a repository, and of a project that is a part of one."""
    project = repository / inside
    stored = project / "benchmarks" / "baselines" / "[cpu]" / "0001.json"
    stored.parent.mkdir(parents=True)
    stored.write_text("{}")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "a baseline")
    config = SimpleNamespace(rootpath=project, getoption=lambda name: None)

    def found():
        commit_info = {"dirty": bool(git(repository, "status", "--porcelain"))}
        pytest_benchmark_update_commit_info(config, commit_info)
        return commit_info["dirty"]

    assert not found()
    stored.unlink()
    assert git(repository, "status", "--porcelain")
    assert not found()
    (repository / "a.txt").write_text("third")
    assert found()


def test_what_an_interrupted_comparison_left_is_cleared(repository, tmp_path):
    gone = tmp_path / "gone"
    git(repository, "worktree", "add", "--detach", str(gone), "base")
    shutil.rmtree(gone)
    with tree_of(repository, "base"):
        pass
    assert len(list((repository / ".git" / "worktrees").glob("*"))) == 0


def compare_and_die(repository):
    with tree_of(repository, "base"), tree_of(repository, "HEAD"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_comparison_left_is_cleared(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(2):
        assert forked(compare_and_die, (repository,)) == [-signal.SIGKILL]
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


def pairs_of_rounds(*seconds, disturbed=None, side="base"):
    """Rounds of the base and of the head, one side of which others may disturb."""
    by = {"base": None, "head": None, side: disturbed}
    return [
        (Round({OWN: base}, by["base"]), Round({OWN: head}, by["head"])) for base, head in seconds
    ]


def test_what_a_round_owes_to_its_place_falls_on_both():
    # Whoever comes second finds cold caches: a fifth longer. The head takes a tenth longer.
    compared = compare_rounds(pairs_of_rounds((1.0, 1.32), (1.2, 1.1)) * 3)
    assert compared.median_ns == pytest.approx(1.1)
    assert compared.ratio is None
    assert (compared.rounds, compared.disturbed) == (6, 0)


@pytest.mark.parametrize("side", ["base", "head"])
def test_the_slower_half_of_the_rounds_is_noise(side):
    good = pairs_of_rounds((1.0, 1.1), (1.0, 1.1))
    odd = pairs_of_rounds((9.0, 1.1), (1.0, 8.0))
    assert compare_rounds(good + odd).median_ns == pytest.approx(1.1)
    busy = pairs_of_rounds((9.0, 1.1), (1.0, 8.0), disturbed="busy", side=side)
    compared = compare_rounds(good + busy)
    assert compared.median_ns == pytest.approx(1.1)
    assert (compared.rounds, compared.disturbed) == (2, 2)
    # Of an odd number it is the greater half; of what can be measured once, that.
    (first, second), (third, _) = pairs_of_rounds((1.0, 1.0), (1.0, 4.0)), good
    assert compare_rounds([first, second, third]).median_ns == pytest.approx(1.1**0.5)
    assert compare_rounds([second]).median_ns == pytest.approx(4.0)


def test_where_nearly_all_is_disturbed_all_of_it_counts():
    # Three times as long is said on the busiest machine, too.
    assert compare_rounds(
        pairs_of_rounds((1.0, 3.3), (1.0, 3.3), disturbed="busy")
    ).median_ns == pytest.approx(3.3)


def test_a_plan_has_as_many_rounds_of_either_order():
    plan = Plan(max_seconds=0.6, min_rounds=6, max_rounds=24)
    assert [plan.rounds(seconds) for seconds in (10, 0.09, 0.049, 0.001, 0)] == [6, 6, 12, 24, 24]
    assert plan.rounds(math.inf) == 1  # a plain benchmark, which knows no turns
    assert Plan.for_benchmarks(1).max_seconds > Plan.for_benchmarks(20).max_seconds


class Script:
    """Pairs that a test makes up, one after another."""

    def __init__(self, *factors, base=None, head=None, gone=(), new=(), failed=()):
        self.factors = list(factors)
        self.base = base or run_of(measurement(calibration=None))
        self.head = head or run_of(measurement(calibration=None))
        self.gone, self.new, self.failed = gone, new, failed
        self.asked = []

    def measure(self, names=None, with_memory=False):
        self.asked.append((names, with_memory))
        (name,) = self.head.measurements
        compared = {name: process(None, median_ns=self.factors.pop(0))}
        return Pair(self.base, self.head, compared, self.gone, self.new, self.failed)


def judged(monkeypatch, tmp_path, script, **options):
    tree = Tree(tmp_path, "c" * 40, "x", tmp_path, tmp_path)
    contestants = Contestants(tree, tree, [], lambda text: None)
    monkeypatch.setattr(contestants, "measure", script.measure)
    outcome = compare_revisions(contestants, **options)
    return outcome.verdicts


@pytest.mark.parametrize(
    ("factors", "status", "pairs"),
    [
        # A single benchmark has no others that tell of its noise.
        ((1.001, 0.999, 1.002, 0.998), "unchanged", 4),
        ((1.05, 1.051, 1.049, 1.05, 1.051, 1.05, 1.049), "regressed", 6),
        ((0.90, 0.901, 0.899, 0.90, 0.9, 0.901, 0.9), "improved", 6),
        # What all twelve pairs together would not decide is given up.
        ((1.08, 0.95, 1.06, 0.96) * 3, "inconclusive", 4),
        ((1.2, 0.8, 1.1, 0.9) * 3, "unjudged", 4),
    ],
)
def test_verdicts_of_pairs(monkeypatch, tmp_path, factors, status, pairs):
    script = Script(*factors)
    (verdict,) = judged(monkeypatch, tmp_path, script)
    assert verdict.status == status
    assert len(script.asked) <= pairs
    assert verdict.times[0].processes == len(script.asked)


def test_pairs_that_others_disturbed_count_only_where_the_rest_are_too_few():
    def decided(*pairs):
        comparison = Comparison(None)
        comparison.compared["a"] = [process(None, median_ns=m, disturbed=d) for m, d in pairs]
        comparison.compared["b"] = [process(None, median_ns=m) for m in (1.001, 0.999, 1.0, 1.001)]
        goals = dict.fromkeys("ab", Goal(0.02, 0.10))
        comparison.decide(goals, 0.01, 12)
        return comparison.decisions["a"]

    quiet = [(1.001, 0), (0.999, 0), (1.0, 0), (1.001, 0)]
    found = decided((1.6, 30), (0.6, 30), *quiet)
    assert (found.conclusion.finding, found.pairs) == ("unchanged", 4)
    # A change needs four pairs: of fewer that are clean it could never be found.
    found = decided(*[(1.6, 30)] * 6, *[(1.6, 0)] * 3)
    assert (found.conclusion.finding, found.pairs) == ("regressed", 9)


def test_what_was_decided_once_stays():
    comparison = Comparison(None)
    goals = dict.fromkeys("ab", Goal(0.02, 0.10))
    steady = [process(None, median_ns=m) for m in (1.001, 0.999)]
    comparison.compared |= {"a": [*steady], "b": [*steady]}
    assert comparison.decide(goals, 0.01, 12) == []
    comparison.compared["b"] += [process(None, median_ns=m) for m in (3.0, 0.3)]
    assert comparison.decide(goals, 0.01, 12) == []
    assert comparison.decisions["b"].pairs == 2


class TwoScripts(Script):
    """Of a benchmark that is soon decided, and of one that is not."""

    def measure(self, names=None, with_memory=False):
        self.asked.append((names, with_memory))
        factors = {"a": 1.0, "b": self.factors.pop(0)}
        compared = {
            name: process(None, median_ns=factor)
            for name, factor in factors.items()
            if names is None or name in names
        }
        return Pair(self.base, self.head, compared, (), ())


def test_what_is_decided_is_measured_no_more(monkeypatch, tmp_path):
    both = run_of(*(measurement(name=name, calibration=None) for name in "ab"))
    script = TwoScripts(
        1.06, 0.97, 1.07, 0.98, 1.0, 1.0, 1.0, 1.0, 1, 1, 1, 1, base=both, head=both
    )
    judged(monkeypatch, tmp_path, script)
    assert script.asked[-1] == (["b"], False)
    assert ["a", "b"] in [names for names, _ in script.asked]


def test_each_side_begins_every_other_pair_with_threads_asleep(monkeypatch, tmp_path):
    begun = []

    def duel(base, head, *arguments, base_first, **options):
        begun.append((base_first, base.environment, head.environment))
        return Script(1.0).measure()

    monkeypatch.setattr("perfgate.ab.run.duel", duel)
    tree = Tree(tmp_path, "c" * 40, "x", tmp_path, tmp_path)
    contestants = Contestants(tree, tree, [], lambda text: None)
    for _ in range(3):
        contestants.measure()
    assert [first for first, _, _ in begun] == [True, False, True]
    asleep = {"OMP_WAIT_POLICY": "passive"}
    assert all(found[1:] == (asleep, asleep) for found in begun)


@pytest.mark.parametrize(("error", "exit_kind"), [(WorkerError, False), (WorkerStoppedError, True)])
def test_a_comparison_that_breaks_off_says_what_it_knows(monkeypatch, tmp_path, error, exit_kind):
    script = Script(1.2)
    first = script.measure

    def measure(*arguments, **options):
        if script.factors:
            return first(*arguments, **options)
        raise error("it ended early")

    monkeypatch.setattr(script, "measure", measure)
    tree = Tree(tmp_path, "c" * 40, "x", tmp_path, tmp_path)
    contestants = Contestants(tree, tree, [], lambda text: None)
    monkeypatch.setattr(contestants, "measure", script.measure)
    outcome = compare_revisions(contestants)
    (verdict,) = outcome.verdicts
    assert verdict.status == "unjudged"
    assert "broke off (it ended early)" in verdict.cause
    assert isinstance(outcome.error, WorkerStoppedError) == exit_kind


def test_a_benchmark_that_fails_later_is_not_dropped(monkeypatch, tmp_path):
    script = Script(1.0)
    name = next(iter(script.head.measurements))
    first = script.measure

    def measure(*arguments, **options):
        if script.factors:
            return first(*arguments, **options)
        return Pair(script.base, script.head, {}, [name], ())

    monkeypatch.setattr(script, "measure", measure)
    (verdict,) = judged(monkeypatch, tmp_path, script)
    assert verdict.status == "unjudged"
    assert "could not measure it on both sides" in verdict.cause


def test_a_benchmark_that_later_fails_on_both_sides_is_unjudged_too(monkeypatch, tmp_path):
    both = run_of(*(measurement(name=name, calibration=None) for name in "ab"))
    script = TwoScripts(3.0, *[0.0] * 11, base=both, head=both)
    first = script.measure

    def measure(names=None, with_memory=False):
        pair = first(names, with_memory)
        if names is not None:
            del pair.compared["b"]
        return pair

    monkeypatch.setattr(script, "measure", measure)
    verdicts = {v.name: v for v in judged(monkeypatch, tmp_path, script)}
    assert verdicts["a"].status == "unchanged"
    assert verdicts["b"].status == "unjudged"
    assert "could not measure it on both sides" in verdicts["b"].cause


def test_only_what_is_open_is_measured_again_and_memory_once(monkeypatch, tmp_path):
    script = Script(*[1.001, 0.999] * 6)
    (verdict,) = judged(monkeypatch, tmp_path, script)
    assert script.asked[0] == (None, True)
    assert set(map(str, script.asked[1:])) == {str(([verdict.name], False))}


def test_memory_is_compared_to_the_byte(monkeypatch, tmp_path):
    more = run_of(measurement(calibration=None, memory={"forward_peak_bytes": 8192}))
    (verdict,) = judged(monkeypatch, tmp_path, Script(*[1.0] * 4, head=more))
    assert verdict.status == "regressed"
    assert "+4,096 B" in verdict.cause


def test_launches_are_compared_too(monkeypatch, tmp_path):
    before, now = (run_of(measurement(calibration=None, launches=n)) for n in (3, 4))
    script = Script(*[1.0] * 4, base=before, head=now)
    (verdict,) = judged(monkeypatch, tmp_path, script)
    assert verdict.status == "regressed"
    assert "launches +1" in verdict.cause


def test_what_only_one_revision_has_or_none_can_run_is_named(monkeypatch, tmp_path):
    script = Script(*[1.0] * 4, gone=["old"], new=["young"], failed=["broken"])
    verdicts = judged(monkeypatch, tmp_path, script)
    assert {v.name: v.status for v in verdicts if v.status != "unchanged"} == {
        "old": "missing",
        "young": "no_baseline",
        "broken": "missing",
    }


def test_where_two_branches_parted(repository):
    base = git(repository, "rev-parse", "base")
    git(repository, "branch", "elsewhere", "base")
    git(repository, "worktree", "add", "-q", str(repository.parent / "other"), "elsewhere")
    (repository.parent / "other" / "b.txt").write_text("meanwhile")
    git(repository.parent / "other", "add", ".")
    git(repository.parent / "other", "commit", "-qm", "meanwhile")
    assert merge_base(repository, "elsewhere") == base
    with pytest.raises(RevisionError, match="'nothing' does not exist"):
        merge_base(repository, "nothing")


PACKAGE = """
import time
def work(x):
    time.sleep({seconds})
    return x
"""

NEWER = """
def newer():
    pass
"""

CONFTEST = """
pytest_plugins = ["perfgate.plugin"]

def pytest_benchmark_generate_machine_info():
    return {}
"""

BENCHMARK = """
import mine, pytest
from torch import nn
from perfgate.network.case import Case
from kan_impls.variant import Variant

class Slow(nn.Linear):
    def forward(self, x):
        return mine.work(super().forward(x))

SLOW = Variant("slow", "", "", Slow, lambda widths, device: Slow(*widths, device=device),
               lambda config: 1)

def test_slow(measure):
    measure(Case("tiny", SLOW, 4, (3, 2)), "forward")

def test_plain(benchmark):  # knows no turns
    benchmark.pedantic(mine.work, args=(1,), rounds=3)

@pytest.mark.skipif(mine.__doc__ is None, reason="the base has no docstring")
def test_new(measure):
    measure(Case("tiny", SLOW, 4, (3, 2)), "forward")

def test_newer(measure):  # which the base collects, and cannot run
    measure(lambda: mine.newer())

def test_broken(benchmark):
    benchmark(mine.nowhere)

def test_elsewhere(benchmark):
    pytest.skip("of another device")
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
    (folder / "src" / "mine.py").write_text(
        '"""Slower."""\n' + PACKAGE.format(seconds=0.03) + NEWER
    )
    # Of what is no benchmark the base imports nothing.
    (folder / "test_new_only.py").write_text("from mine import newer\n\ndef test_it(): newer()\n")
    with tree_of(folder, "HEAD") as base, tree_of(folder, None) as head:
        contestants = Contestants(
            base,
            head,
            ["--benchmark-only", "-p", "no:cacheprovider"],
            lambda text: None,
            plan=Plan(max_seconds=0.3),
        )
        pair = contestants.measure(with_memory=True)
        contestants.arguments = ["test_slow.py::test_slow", *contestants.arguments]
        chosen = contestants.measure()
    for name in ("test_slow", "test_plain"):
        compared = pair.compared[f"test_slow.py::{name}"]
        assert compared.median_ns == pytest.approx(1.5, rel=0.15)
    assert set(pair.compared) == {"test_slow.py::test_slow", "test_slow.py::test_plain"}
    # What only one side measures holds up neither, and is named.
    assert pair.base.measurements.keys() == set(pair.compared)
    assert pair.gone == []
    assert pair.failed == ["test_slow.py::test_broken"]
    assert sorted(pair.new) == ["test_slow.py::test_new", "test_slow.py::test_newer"]
    assert len(pair.head.measurements["test_slow.py::test_slow"].memory) == 3
    # The base has the other tests of the file, and they were not asked for.
    assert set(chosen.compared) == {"test_slow.py::test_slow"}
    assert (chosen.gone, chosen.failed, chosen.new) == ([], [], [])


def test_a_side_that_breaks_is_an_error_with_its_last_words(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name")
    command = Command(["--benchmark-only", "-p", "no:cacheprovider"], tmp_path)
    names = ["test_broken.py::test_it"]
    with pytest.raises(WorkerError) as caught:
        duel(command, command, names, Plan(), with_memory=False, announce=lambda text: None)
    assert re.match("(the process )?of the (base|head)", caught.value.headline)
    assert caught.value.headline.endswith("No module named 'nothing_of_this_name'")
    assert "test_broken.py" in str(caught.value)
