"""Choices by measurement: a stand-in clock, decisions on disk, and what is never measured."""

import json
import warnings

import pytest
import torch

from kan_impls.fused import decisions, tuning
from kan_impls.fused.compiler import KernelUnavailable
from kan_impls.fused.proof import KernelRefused
from kan_impls.fused.tuning import Choice, Timing
from tests.forked import METHODS, forked
from tests.fused_helpers import FakeGpus, pretend_environment

CPU = torch.device("cpu")
SUBJECT = "forward of Fourier<5>"
NAMES = ["kernels", "product", "formula"]


class Clock:
    """Says that a candidate takes what `seconds` says, times the noise of each round."""

    def __init__(self, seconds, noise=(1.0,)):
        self.seconds, self.noise = seconds, noise
        self.runs = []

    def __call__(self, run, device):
        run()
        name = self.runs[-1]
        count = self.runs.count(name)
        return self.seconds[name] * self.noise[count % len(self.noise)]

    def run(self, name):
        self.runs.append(name)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    FakeGpus(monkeypatch)
    pretend_environment(monkeypatch, tmp_path)
    monkeypatch.delenv(tuning.VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def choose(monkeypatch):
    def chosen(seconds, names=NAMES, noise=(1.0,), run=None):
        clock = Clock(seconds, noise)
        monkeypatch.setattr(tuning, "clock", clock)
        found = tuning.choose(SUBJECT, CPU, names, run or clock.run, warnings.warn)
        return found, clock

    return chosen


def files(folder):
    return sorted(folder.rglob("*.json"))


@pytest.mark.parametrize("fastest", NAMES)
def test_the_fastest_is_chosen_whichever_it_is(choose, fastest):
    seconds = {name: 1e-5 if name == fastest else 3e-5 for name in NAMES}
    assert choose(seconds)[0] == fastest


def test_candidates_run_in_turns(choose):
    _, clock = choose(dict.fromkeys(NAMES, 1e-5))
    first, second = clock.runs[3:6], clock.runs[6:9]  # after one run each that nothing times
    assert first == NAMES
    assert second == NAMES[::-1]
    assert len(clock.runs) == len(NAMES) * (1 + tuning.ROUNDS)


@pytest.mark.parametrize(
    ("times", "noise", "chosen"),
    [
        ([1.00, 1.00, 1.00], (1.0,), "kernels"),
        ([1.015, 1.00, 1.00], (1.0,), "kernels"),  # within the tie of 2%
        ([1.05, 1.00, 1.01], (1.0,), "product"),
        ([1.05, 1.00, 1.01], (0.8, 1.0, 1.2), "kernels"),  # within the joint margin
    ],
)
def test_between_equals_the_order_decides(choose, times, noise, chosen):
    seconds = {name: 1e-5 * time for name, time in zip(NAMES, times, strict=True)}
    assert choose(seconds, noise=noise)[0] == chosen


def test_what_takes_long_is_measured_little(choose):
    _, clock = choose({"kernels": 1e-5, "product": 1e-4, "formula": 1e-5})
    assert clock.runs.count("product") == 1 + 2
    _, clock = choose(dict.fromkeys(["slow", "slower"], 1.0), ["slow", "slower"])
    assert clock.runs.count("slow") == 1 + tuning.LEAST_ROUNDS


def test_a_choice_is_kept_with_its_figures(choose, folder):
    seconds = {"kernels": 3e-5, "product": 1e-5, "formula": 2e-5}
    choose(seconds)
    ((subject, choice),) = tuning.choices(CPU)
    assert subject == SUBJECT
    assert choice.chosen == "product"
    assert {name: timing.median_us for name, timing in choice.timings.items()} == pytest.approx(
        {name: 1e6 * time for name, time in seconds.items()}
    )
    figures = "product 10.0 ± 0.0 µs, formula 20.0 ± 0.0 µs, kernels 30.0 ± 0.0 µs"
    assert str(choice) == f"product: {figures}"
    found, clock = choose({"kernels": 1e-6, "product": 1, "formula": 1})
    assert (found, clock.runs) == ("product", [])  # nothing is measured again
    assert len(files(folder)) == 1


@pytest.mark.parametrize(
    "content",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"H100", b"A100"),
        lambda text: text.replace(b"Fourier<5>", b"Fourier<6>"),
        lambda text: text.replace(b'"chosen": "product"', b'"chosen": "another"'),
        lambda text: text.replace(b'"chosen"', b'"form"'),
        lambda text: text.replace(b'"margin_us": 0.0', b'"margin_us": NaN', 1),
        lambda text: text.replace(b'"margin_us": 0.0', b'"margin_us": "0"', 1),
        lambda text: json.dumps({"chosen": "product"}).encode(),
    ],
)
def test_a_damaged_or_foreign_choice_is_a_miss(choose, folder, content):
    choose({"kernels": 3e-5, "product": 1e-5, "formula": 2e-5})
    (file,) = files(folder)
    good = file.read_bytes()
    file.write_bytes(content(good))
    assert file.read_bytes() != good
    assert choose({"kernels": 1e-5, "product": 3e-5, "formula": 2e-5})[0] == "kernels"
    assert choose({})[0] == "kernels"  # and the miss is mended


def test_a_choice_that_is_no_candidate_any_more_is_a_miss(choose):
    choose({"kernels": 1e-5, "product": 3e-5, "formula": 2e-5})
    assert choose({"product": 1e-5, "formula": 2e-5}, NAMES[1:])[0] == "product"


def test_the_variable_says_whether_anything_is_measured(choose, monkeypatch):
    monkeypatch.setenv(tuning.VARIABLE, "0")
    found, clock = choose(dict.fromkeys(NAMES, 1e-5))
    assert (found, clock.runs) == (None, [])
    monkeypatch.setenv(tuning.VARIABLE, "1")
    choose({"kernels": 1e-5, "product": 3e-5, "formula": 3e-5})
    slow = {"kernels": 3e-5, "product": 1e-5, "formula": 3e-5}
    assert choose(slow)[0] == "kernels"
    monkeypatch.setenv(tuning.VARIABLE, "0")
    assert choose(slow)[0] is None  # what is stored decides nothing either
    monkeypatch.setenv(tuning.VARIABLE, "refresh")
    assert choose(slow)[0] == "product"
    monkeypatch.setenv(tuning.VARIABLE, "yes")
    with pytest.raises(ValueError, match="KAN_IMPLS_TUNE is 'yes'; expected one of 0, 1, refresh"):
        choose(slow)


def test_a_kernel_that_cannot_be_had_is_left_out_and_said_once(monkeypatch):
    def run(name):
        if name.startswith("kernels"):
            raise KernelUnavailable(f"{name}: failed its known-answer test")

    monkeypatch.setattr(tuning, "clock", lambda run, device: run() or 1e-5)
    names, told = ["kernels a", "kernels b", "product"], []
    assert tuning.choose(SUBJECT, CPU, names, run, told.append) == "product"
    assert [str(error) for error in told] == ["kernels a: failed its known-answer test"]


def test_what_ran_out_of_memory_is_measured_another_time(choose, folder, monkeypatch):
    def run(name):
        if name == "product":
            raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(tuning, "clock", lambda run, device: run() or 1e-5)
    assert tuning.choose(SUBJECT, CPU, NAMES[1:], run, warnings.warn) == "formula"
    assert not files(folder)
    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        tuning.choose(SUBJECT, CPU, ["product"], run, warnings.warn)


def test_memory_that_runs_out_while_it_is_timed_leaves_a_candidate_out(monkeypatch, folder):
    timed = []

    def clock(run, device):
        timed.append(run.args[0])
        if run.args[0] == "kernels" and timed.count("kernels") == 3:
            raise torch.OutOfMemoryError("another process took it")
        return 1e-6

    monkeypatch.setattr(tuning, "clock", clock)
    assert tuning.choose(SUBJECT, CPU, NAMES, lambda name: None, warnings.warn) == "product"
    assert timed.count("kernels") == 3
    assert not files(folder)


def test_where_the_fastest_runs_out_of_memory_the_next_one_is_chosen(monkeypatch):
    timed = []

    def clock(run, device):
        timed.append(run.args[0])
        if run.args[0] == "product":
            return 1e-4  # and so given up after two rounds
        if timed.count("kernels") == 3:
            raise torch.OutOfMemoryError("another process took it")
        return 1e-6

    monkeypatch.setattr(tuning, "clock", clock)
    assert tuning.choose(SUBJECT, CPU, NAMES[:2], lambda name: None, warnings.warn) == "product"


def test_what_was_given_up_is_not_chosen_for_its_wide_margin(monkeypatch):
    seconds = {"kernels": iter([12e-6, 100e-6]), "product": iter([5e-6] * 99)}
    monkeypatch.setattr(tuning, "clock", lambda run, device: next(seconds[run.args[0]]))
    found = tuning.choose(SUBJECT, CPU, ["kernels", "product"], lambda name: None, warnings.warn)
    assert found == "product"


def test_a_choice_that_has_not_seen_all_candidates_is_a_miss(choose):
    choose({"product": 1e-5, "formula": 2e-5}, NAMES[1:])
    seconds = {"kernels": 5e-6, "product": 1e-5, "formula": 2e-5}
    assert choose(seconds)[0] == "kernels"
    assert choose(seconds, NAMES[::2])[1].runs == []  # fewer of them are no reason


@pytest.mark.parametrize("kind", [KernelUnavailable, KernelRefused])
def test_only_what_was_refused_is_not_tried_again(monkeypatch, folder, kind):
    tried = []

    def run(name):
        tried.append(name)
        if name == "kernels":
            raise kind("cannot be had")

    monkeypatch.setattr(tuning, "clock", lambda run, device: run() or 1e-5)
    for _ in range(2):
        assert tuning.choose(SUBJECT, CPU, NAMES, run, lambda error: None) == "product"
    assert tried.count("kernels") == (1 if kind is KernelRefused else 2)
    assert len(files(folder)) == (kind is KernelRefused)


def test_other_errors_stay_what_they_are(choose):
    def run(name):
        raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError, match="CUDA error"):
        tuning.choose(SUBJECT, CPU, NAMES, run, warnings.warn)


def decide(number):
    """In a process of its own, which finds another candidate the fastest."""
    tuning.clock = lambda run, device: run() or 1e-5
    names = [f"product, {number} MiB", *NAMES]
    assert tuning.choose(SUBJECT, CPU, names, lambda name: None, warnings.warn) == names[0]


@pytest.mark.skipif("fork" not in METHODS, reason="other processes would have no stand-in GPU")
def test_fifty_processes_that_decide_at_once_leave_one_valid_decision(folder, monkeypatch):
    # With `refresh` each of them writes what it has measured.
    monkeypatch.setenv(tuning.VARIABLE, "refresh")
    assert forked(decide, *[(number,) for number in range(50)]) == [0] * 50
    ((_, choice),) = tuning.choices(CPU)
    assert choice.chosen in choice.timings
    assert choice.timings.keys() >= set(NAMES)
    (file,) = files(folder)
    assert list(file.parent.iterdir()) == [file]


def test_a_timing_is_a_median_with_its_margin():
    timing = Timing.of([1e-6, 2e-6, 3e-6, 4e-6, 100e-6])
    assert timing.median_us == pytest.approx(3)
    # The median deviation is 1 µs: 1.4826 * 1.2533 * 1.96 / sqrt(5).
    assert timing.margin_us == pytest.approx(1.629, rel=1e-3)
    assert Timing.of([5e-6]) == Timing(5.0, 0.0)


def test_a_choice_holds_for_one_torch_too(monkeypatch):
    before = tuning.environment_of(CPU)
    monkeypatch.setattr(torch, "__version__", "3.0")
    assert decisions.folder_of("forms", before) != decisions.folder_of(
        "forms", tuning.environment_of(CPU)
    )
    assert Choice.of(None) is None
