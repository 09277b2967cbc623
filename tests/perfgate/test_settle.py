"""What stored times leave open is put to the earlier code: to which, and why to none."""

import re
from dataclasses import replace

import pytest

from perfgate.ab import settle as settling
from perfgate.ab.duel import Pair
from perfgate.ab.run import Comparison
from perfgate.ab.settle import Place, settle
from perfgate.compare import Stored
from perfgate.judge.limits import LimitTable
from perfgate.judge.record import Code
from perfgate.judge.sequential import Goal
from perfgate.judge.verdict import Verdict
from perfgate.run.processes import WorkerError, WorkerStoppedError
from tests.git import git
from tests.perfgate.measurements import LIMITS, measurement, process, run_of

NAMES = ("a", "b", "c")

# The sides on which a benchmark fails in turns; what has no factor, the base lacks.
failing: dict[str, str] = {}

# With which probability of a false alarm each comparison was made.
alarms: list[float] = []

# What each comparison asked of its benchmarks.
goals_of: list[dict] = []


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for text in ("first", "second"):
        (folder / "a.txt").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-qm", text)
    return folder


@pytest.fixture
def turns(monkeypatch):
    """Comparisons that a test makes up: each factor is what four pairs measured."""
    factors, asked = {}, []
    alarms.clear()
    goals_of.clear()
    failing.clear()

    def take_turns(contestants, goals, names, false_alarm, most_pairs, with_memory):
        alarms.append(false_alarm)
        text = (contestants.base.folder / "a.txt").read_text()
        asked.append((text, tuple(names), contestants.head.folder == contestants.folder))
        head = run_of(*(measurement(name=name) for name in names if name in factors))
        compared = {name: process(None, factors[name]) for name in head.measurements}
        new = [name for name in names if name not in (*factors, *failing)]
        gone = [name for name in names if failing.get(name) == "head"]
        failed = [name for name in names if failing.get(name) == "both"]
        pair = Pair(head, head, compared, gone, new, failed)
        comparison = Comparison(pair)
        for _ in range(4):
            comparison.add(pair)
        goals_of.append(goals(pair))
        comparison.decide(goals_of[-1], false_alarm, most_pairs)
        return comparison

    monkeypatch.setattr(settling, "take_turns", take_turns)
    return factors, asked


def stored(repository, revision="HEAD", anchor=None, **fields):
    """A baseline of three benchmarks, of a commit."""
    commit = git(repository, "rev-parse", revision) if repository else "unversioned"
    run = replace(run_of(*(measurement(name=name) for name in NAMES)), commit=commit, **fields)
    oldest = anchor and replace(run, commit=git(repository, "rev-parse", anchor))
    return Stored(None, run, None, oldest, LimitTable(LIMITS), 0.01)


def opened(**against):
    return [
        Verdict(
            name,
            "inconclusive" if name in against else "unchanged",
            "",
            open=(against[name],) if name in against else (),
        )
        for name in NAMES
    ]


def settled(folder, stored, verdicts, **options):
    return settle(verdicts, stored, Place(folder, folder, [], lambda text: None), **options)


def test_what_is_clear_is_not_measured(repository, turns):
    _, asked = turns
    assert settled(repository, stored(repository), opened()).answers.times == {}
    assert asked == []


def test_all_that_is_open_is_compared_with_the_baselines_code_at_once(repository, turns):
    factors, asked = turns
    factors |= {"a": 1.2, "c": 1.0}
    found = settled(repository, stored(repository, "HEAD~"), opened(a="baseline", c="baseline"))
    assert asked == [("first", ("a", "c"), True)]
    assert {name: changes[0].status for name, changes in found.times.items()} == {
        "a": "regressed",
        "c": "unchanged",
    }
    (change,) = found.times["a"]
    assert change.change == pytest.approx(0.2)
    assert change.commit == git(repository, "rev-parse", "HEAD~")
    assert len(found.pairs["a"]) == 4


def test_a_loss_since_the_oldest_baseline_is_put_to_its_code(repository, turns):
    factors, asked = turns
    factors |= {"a": 1.2, "b": 0.5}
    baseline = stored(repository, "HEAD", anchor="HEAD~")
    found = settled(repository, baseline, opened(a="baseline", b="anchor"))
    assert asked == [("second", ("a",), True), ("first", ("b",), True)]
    # What is faster than it once was needs no mention.
    assert found.times["b"][0].status == "unchanged"


def test_an_entry_that_was_kept_from_another_run_is_put_to_its_own_code(repository, turns):
    factors, asked = turns
    factors |= dict.fromkeys(NAMES, 1.0)
    baseline = stored(repository)
    older = replace(
        baseline.run.measurements["b"], code=Code(git(repository, "rev-parse", "HEAD~"), False)
    )
    kept = replace(baseline.run, measurements={**baseline.run.measurements, "b": older})
    settled(repository, replace(baseline, run=kept), opened(a="baseline", b="baseline"))
    assert asked == [("second", ("a",), True), ("first", ("b",), True)]


def test_a_base_takes_the_place_of_the_baseline_and_judges_what_has_none(repository, turns):
    factors, asked = turns
    factors |= {"a": 1.0, "b": 1.0, "new": 1.2}
    base = git(repository, "rev-parse", "HEAD~")
    baseline = stored(repository, "HEAD", anchor="HEAD")
    verdicts = [*opened(a="baseline", b="anchor"), Verdict("new", "no_baseline", "")]
    found = settled(repository, baseline, verdicts, base=base)
    assert asked == [("first", ("a", "new"), True), ("second", ("b",), True)]
    assert found.times["new"][0].status == "regressed"
    assert found.times["new"][0].against == "base"
    # Where a baseline is required, its lack is the verdict.
    found = settled(repository, baseline, verdicts, base=base, judge_new=False)
    assert "new" not in found.times


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"dirty": True},
            "uncommitted work on .*, which cannot be measured again; commit, measure",
        ),
        ({"commit": "unversioned"}, "without a git commit"),
        ({"commit": "0123456789" * 4}, "does not exist.*run git fetch origin 0123456789"),
    ],
)
def test_code_that_cannot_be_had_is_an_obstacle_with_its_remedy(repository, turns, fields, words):
    _, asked = turns
    baseline = stored(repository)
    lost = replace(baseline, run=replace(baseline.run, **fields))
    found = settled(repository, lost, opened(a="baseline"))
    assert asked == []
    assert found.times == {}
    (obstacle,) = found.obstacles.values()
    assert re.search(words, obstacle)
    assert "kan-bench a" in obstacle
    assert "\n" not in obstacle


def test_a_shallow_clone_is_told_to_fetch(repository, turns, tmp_path):
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    found = settled(tmp_path / "shallow", stored(repository, "HEAD~"), opened(a="baseline"))
    assert "run git fetch --unshallow and then kan-bench ab" in found.obstacles["a", "baseline"]


def test_a_folder_without_git_is_an_obstacle(repository, turns, tmp_path):
    found = settled(tmp_path, stored(repository), opened(a="baseline"))
    assert "its code cannot be had" in found.obstacles["a", "baseline"]


def test_code_that_breaks_and_benchmarks_that_it_lacks_are_obstacles(
    repository, turns, monkeypatch
):
    factors, _ = turns
    factors |= {"a": 1.0}
    found = settled(repository, stored(repository), opened(a="baseline", b="baseline"))
    assert "does not run this benchmark" in found.obstacles["b", "baseline"]
    assert found.lacking == {"b"}
    assert found.times.keys() == {"a"}

    def broken(*arguments, **options):
        raise WorkerError("a side ended early\nTraceback")

    monkeypatch.setattr(settling, "take_turns", broken)
    found = settled(repository, stored(repository), opened(a="baseline"))
    why = found.obstacles["a", "baseline"]
    assert why == "its code cannot be measured here (a side ended early)"
    assert not found.stopped


def test_a_process_that_is_killed_is_told_from_code_that_breaks(repository, turns, monkeypatch):
    def killed(*arguments, **options):
        raise WorkerStoppedError("signal 9 ended it")

    monkeypatch.setattr(settling, "take_turns", killed)
    assert settled(repository, stored(repository), opened(a="baseline")).stopped


def test_what_was_decided_before_a_comparison_broke_off_stays(repository, turns, monkeypatch):
    factors, _ = turns
    factors |= {"a": 1.2, "b": 1.0}
    made_up = settling.take_turns

    def breaks_off(*arguments, **options):
        comparison = made_up(*arguments, **options)
        comparison.decisions = {"a": comparison.decisions["a"]}
        comparison.error = WorkerStoppedError("signal 9 ended it")
        return comparison

    monkeypatch.setattr(settling, "take_turns", breaks_off)
    found = settled(repository, stored(repository), opened(a="baseline", b="baseline"))
    assert found.times["a"][0].status == "regressed"
    assert "broke off (signal 9 ended it)" in found.obstacles["b", "baseline"]
    assert found.stopped


def test_all_comparisons_share_one_probability_of_a_false_alarm(repository, turns):
    factors, _ = turns
    factors |= {"a": 1.0, "b": 1.0}
    settled(repository, stored(repository), opened(a="baseline"))
    assert alarms == [0.01]
    alarms.clear()
    baseline = stored(repository, "HEAD", anchor="HEAD~")
    settled(repository, baseline, opened(a="baseline", b="anchor"))
    assert alarms == [0.005, 0.005]
    alarms.clear()
    settled(repository, replace(baseline, false_alarm=0.04), opened(a="baseline"))
    assert alarms == [0.04]


def test_the_oldest_baseline_has_a_limit_of_its_own(repository, turns):
    factors, _ = turns
    factors |= {"a": 1.03, "b": 1.03}
    baseline = stored(repository, "HEAD", anchor="HEAD~")
    found = settled(repository, baseline, opened(a="baseline", b="anchor"))
    assert found.times["a"][0].status == "regressed"
    assert found.times["b"][0].status == "unchanged"  # less than 5%
    of_baseline, of_oldest = goals_of
    assert of_baseline["a"] == Goal(0.02, 0.10)
    assert of_oldest["b"] == Goal(0.05, 0.10, only_slower=True)


def test_the_memory_of_what_has_no_baseline_is_the_bases(repository, turns):
    factors, _ = turns
    factors |= {"new": 1.0}
    baseline = stored(repository)
    found = settled(
        repository,
        baseline,
        [Verdict("new", "no_baseline", "")],
        base=git(repository, "rev-parse", "HEAD~"),
    )
    assert [change.status for change in found.memory["new"]] == ["unchanged"]
    (verdict,) = (
        v
        for v in baseline.judge(run_of(measurement(name="new")), {}, NAMES, found.answers)
        if v.name == "new"
    )
    assert verdict.memory == found.memory["new"]


@pytest.mark.parametrize(
    ("side", "words"), [("head", "this code does not run it"), ("both", "neither code runs it")]
)
def test_what_fails_in_turns_is_no_benchmark_without_a_baseline(repository, turns, side, words):
    failing["new"] = side
    baseline, base = stored(repository), git(repository, "rev-parse", "HEAD~")
    found = settled(repository, baseline, [Verdict("new", "no_baseline", "")], base=base)
    assert found.lacking == set()
    run = run_of(measurement(name="new"))
    (verdict,) = baseline.judge(run, {}, NAMES, found.answers)
    assert verdict.status == "unjudged"
    assert words in verdict.cause
    # What the base lacks has no baseline.
    failing.clear()
    found = settled(repository, baseline, [Verdict("new", "no_baseline", "")], base=base)
    (verdict,) = baseline.judge(run, {}, NAMES, found.answers)
    assert verdict.status == "no_baseline"
