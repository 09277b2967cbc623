"""Stored instructions: judged by limits that their own noise gives, and never lost."""

import json
import threading

import pytest

from perfgate.judge import instructions_verdict as verdict
from perfgate.store import instructions_baseline as baseline
from perfgate.store.baseline import BaselineError
from perfgate.store.exact import Entry, Stored

HERE = {"torch": "2.13.0+cpu", "python": "3.11.7 (main)", "capability": "AVX2"}
SHAPE = "batch 8, 16->16 grid_size=5"
# Recorded: six processes of identical code, each with its own layout of memory.
CALM = [1_023_966, 1_023_454, 1_021_509, 1_025_911, 1_024_300, 1_022_800]
WILD = [c + d for c, d in zip(CALM, [0, 9000, -9000, 20_000, -20_000, 12_000], strict=True)]


def entry(forward=CALM, backward=CALM, shape=SHAPE):
    return Entry(shape, {"forward": forward, "backward": backward})


def stored(**passes):
    return Stored(HERE, {"kan": entry(**passes)})


def scaled(counts, factor):
    return [round(count * factor) for count in counts]


def test_the_same_counts_are_green():
    assert verdict.differences(stored(), "kan", entry()) == []


def test_two_more_percent_are_red_with_all_that_one_must_know():
    (sentence,) = verdict.differences(stored(), "kan", entry(forward=scaled(CALM, 1.02)))
    assert sentence == (
        f"kan at {SHAPE}, forward: 1,023,656 instructions became 1,044,129 (+2.00%, limit 1.00%); "
        "expected no more: take it back, or accept it with pytest -m instructions "
        "--accept-instructions"
    )


def test_two_percent_less_are_red_until_it_is_stored():
    (sentence,) = verdict.differences(stored(), "kan", entry(backward=scaled(CALM, 0.98)))
    assert "backward: " in sentence
    assert "(-2.00%, limit 1.00%), improved: refresh" in sentence


@pytest.mark.parametrize("factor", [1.0099, 0.9902])
def test_what_is_within_the_least_limit_is_green(factor):
    now = entry(forward=scaled(CALM, factor))
    assert verdict.differences(stored(), "kan", now) == []


def test_no_limit_is_below_one_percent_even_without_any_noise():
    constant = [1000] * 6
    assert verdict.limits(stored(forward=constant, backward=constant), 6) == {
        ("kan", "forward"): 0.01,
        ("kan", "backward"): 0.01,
    }


def test_a_noisier_pass_has_a_wider_limit_from_its_own_processes():
    found = verdict.limits(stored(forward=WILD), 6)
    assert found["kan", "forward"] > 0.02
    assert found["kan", "forward"] > found["kan", "backward"] >= 0.01
    wider = 1 + found["kan", "forward"] * 0.99
    now = entry(forward=scaled(WILD, wider))
    assert verdict.differences(stored(forward=WILD), "kan", now) == []


def test_fewer_processes_have_a_wider_limit():
    noisy = stored(forward=WILD, backward=WILD)
    assert verdict.limits(noisy, 2)["kan", "forward"] > verdict.limits(noisy, 6)["kan", "forward"]


def test_unchanged_code_is_seldom_red():
    """Recorded spread, 200 resampled comparisons of 20 passes: at most 1% may have an alarm."""
    import random

    chance, alarms = random.Random(0), 0
    passes = [str(number) for number in range(20)]
    for _ in range(200):
        spread = [0.0015 * (1 + number % 3) for number in range(20)]
        before, now = (
            Entry(
                SHAPE,
                {
                    p: [round(1e6 * (1 + chance.gauss(0, s))) for _ in range(6)]
                    for p, s in zip(passes, spread, strict=True)
                },
            )
            for _ in range(2)
        )
        alarms += bool(verdict.differences(Stored(HERE, {"kan": before}), "kan", now))
    assert alarms <= 6  # of 200 with 1% each, 7 or more come in less than 1 of 200


def test_other_sizes_passes_and_implementations_are_other_measurements():
    (sentence,) = verdict.differences(stored(), "kan", entry(shape="batch 9"))
    assert f"kan at batch 9 is stored at {SHAPE}; expected the same sizes" in sentence
    (sentence,) = verdict.differences(stored(), "kan", Entry(SHAPE, {"forward": CALM}))
    assert "other passes than the measured forward" in sentence
    (sentence,) = verdict.differences(stored(), "new", entry())
    assert f"new at {SHAPE} is not stored" in sentence
    assert verdict.differences(Stored(HERE), "new", entry()) == [sentence]
    (sentence,) = baseline.unknown(stored(), ["new"])
    assert sentence.startswith("kan is stored, but no longer counted")


def test_what_is_accepted_is_read_back(tmp_path):
    path = tmp_path / "deeper" / "instructions.json"
    baseline.accept(path, HERE, {"kan": entry(), "gone": entry()}, ["kan", "gone"])
    baseline.accept(path, HERE, {"other": entry()}, ["kan", "other"])
    elsewhere = {**HERE, "python": "3.14.0 (main)"}
    baseline.accept(path, elsewhere, {"kan": entry(WILD)}, ["kan"])
    both = Stored(HERE, {"kan": entry(), "other": entry()})
    assert baseline.read(path) == [both, Stored(elsewhere, {"kan": entry(WILD)})]
    assert baseline.of_environment(path, HERE) == both


def test_counts_of_another_torch_are_dropped(tmp_path):
    path = tmp_path / "instructions.json"
    newer = {**HERE, "torch": "2.14.1"}
    baseline.accept(path, HERE, {"kan": entry()}, ["kan"])
    baseline.accept(path, newer, {"kan": entry()}, ["kan"])
    assert [found.environment for found in baseline.read(path)] == [newer]


def test_two_who_accept_at_once_both_remain(tmp_path):
    path, names = tmp_path / "instructions.json", [f"kan_{n}" for n in range(12)]
    threads = [
        threading.Thread(target=baseline.accept, args=(path, HERE, {name: entry()}, names))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert baseline.of_environment(path, HERE).entries.keys() == set(names)


def test_another_environment_is_not_compared(tmp_path):
    path = tmp_path / "instructions.json"
    with pytest.raises(LookupError, match="no instructions are stored of this environment"):
        baseline.of_environment(path, HERE)
    baseline.accept(path, HERE, {"kan": entry()}, ["kan"])
    with pytest.raises(LookupError) as caught:
        baseline.of_environment(path, {**HERE, "python": "3.14.0"})
    assert "(python '3.14.0', stored '3.11.7 (main)')" in str(caught.value)
    assert "--accept-instructions, or compare with a revision: --instructions-base" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"environment"', '"place"'),
        lambda text: text.replace('"passes"', '"runs"'),
        lambda text: text.replace(str(CALM[0]), '"many"'),
        lambda text: text.replace(str(CALM[0]), "NaN"),
        lambda text: text.replace(str(CALM[0]), "0"),
        lambda text: text.replace(str(CALM[0]), "-5"),
        lambda text: text.replace(str(CALM[0]), "true"),
        lambda text: text.replace(str(CALM[0]), "1" + "0" * 30),
        lambda text: json.dumps(
            {
                "stored": [
                    {
                        **json.loads(text)["stored"][0],
                        "implementations": {"kan": {"shape": "", "passes": {"forward": [5]}}},
                    }
                ]
            }
        ),
        lambda text: "\x00\x01",
    ],
)
def test_a_damaged_file_is_one_sentence_and_stays(tmp_path, damage):
    path = tmp_path / "instructions.json"
    baseline.accept(path, HERE, {"kan": entry()}, ["kan"])
    damaged = damage(path.read_text())
    path.write_text(damaged)
    with pytest.raises(BaselineError, match=r"is damaged \(.*; expected JSON .* restore") as caught:
        baseline.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BaselineError, match="is damaged"):
        baseline.accept(path, HERE, {"kan": entry()}, ["kan"])
    assert path.read_text() == damaged


def test_a_file_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(BaselineError, match=r"cannot be read .*: check the path"):
        baseline.read(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BaselineError, match=r"cannot be written .*expected a writable folder"):
        baseline.accept(tmp_path / "file" / "instructions.json", HERE, {"kan": entry()}, ["kan"])
