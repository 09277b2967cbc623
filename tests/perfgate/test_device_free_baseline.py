"""The stored device-free bytes: nothing changed, missing, stale or damaged is green."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from perfgate.store import device_free_baseline as baseline
from perfgate.store import exact
from perfgate.store.baseline import BaselineError
from perfgate.store.device_free_baseline import Key
from perfgate.store.exact import Entry, Stored
from tests.forked import forked

ROOT = Path(__file__).resolve().parents[2]

KEY, OTHER = Key("reference", "fourier_kan"), Key("reference", "mlp")
SHAPE = "batch 100, 1000->1000->1 grid_size=5"


def entry(forward=1_000_000, saved=0, shape=SHAPE):
    sizes = {"forward_peak_bytes": forward, "backward_peak_bytes": 2_000_000, "saved_bytes": saved}
    return Entry(shape, {"backward": sizes})


def differences(now, **stored):
    return baseline.differences(Stored("2.13", {KEY: entry(**stored)}), KEY, now)


def test_the_same_bytes_are_green():
    assert differences(entry()) == []


def test_one_byte_more_is_red_with_all_that_one_must_know():
    assert differences(entry(1_000_001)) == [
        "fourier_kan at reference, backward: forward_peak_bytes was 1,000,000 B and is 1,000,001 B "
        "(+1 B); expected no growth: take it back, or accept it with pytest "
        "benchmarks/test_memory.py --accept-memory"
    ]


def test_one_byte_less_is_red_until_it_is_stored():
    (sentence,) = differences(entry(999_999))
    assert "is 999,999 B (-1 B), improved: refresh, so that the baseline stays honest" in sentence
    assert sentence.endswith("--accept-memory")


def with_costs(operators, read):
    figures = entry().passes["backward"]
    costs = {"forward_operators": operators, "forward_bytes_read": read}
    return Entry(SHAPE, {"backward": {**figures, **costs}})


def test_a_cost_is_named_in_its_unit():
    stored = Stored("2.13", {KEY: with_costs(operators=1200, read=5000)})
    more, less = baseline.differences(stored, KEY, with_costs(operators=1201, read=4000))
    subject = "fourier_kan at reference, backward: "
    assert more.startswith(f"{subject}forward_operators was 1,200 and is 1,201 (+1); expected no")
    assert less.startswith(
        f"{subject}forward_bytes_read was 5,000 B and is 4,000 B (-1,000 B), imp"
    )


def test_a_file_of_bytes_only_is_judged_and_what_it_lacks_is_red():
    stored = Stored("2.13", {KEY: entry()})
    (lacking,) = baseline.differences(stored, KEY, with_costs(1, 2))
    assert "backward: forward_operators, forward_bytes_read not stored; expected every" in lacking
    larger = Entry(SHAPE, {"backward": with_costs(1, 2).passes["backward"] | {"saved_bytes": 8}})
    grown, _ = baseline.differences(stored, KEY, larger)
    assert "saved_bytes was 0 B and is 8 B" in grown


def test_a_figure_that_is_measured_no_longer_is_red():
    (gone,) = baseline.differences(Stored("2.13", {KEY: with_costs(1, 2)}), KEY, entry())
    assert "forward_operators, forward_bytes_read stored, but no longer measured" in gone


def test_every_kind_that_changed_is_named():
    assert len(differences(entry(1, saved=1))) == 2


def test_a_missing_entry_is_red():
    (sentence,) = baseline.differences(Stored("2.13", {OTHER: entry()}), KEY, entry())
    assert sentence.startswith("fourier_kan at reference is not stored; expected an entry")


def test_other_sizes_are_no_growth_but_another_measurement():
    (sentence,) = differences(entry(5, shape="batch 200, 1000->1"))
    assert f"is measured at batch 200, 1000->1, but stored at {SHAPE}; expected the" in sentence


def test_other_passes_than_the_stored_ones_are_red():
    more = {**entry().passes, "backward_with_input_grad": entry().passes["backward"]}
    (sentence,) = differences(Entry(SHAPE, more))
    assert "other passes than the measured backward, backward_with_input_grad" in sentence


def test_an_entry_of_what_no_longer_exists_is_red():
    stored = Stored("2.13", {KEY: entry(), OTHER: entry()})
    assert baseline.unknown(stored, [KEY, OTHER]) == []
    (sentence,) = baseline.unknown(stored, [KEY])
    assert sentence.startswith("mlp at reference is stored, but no longer measured; expected only")


def test_what_is_accepted_is_read_back_sorted(tmp_path):
    path = tmp_path / "baselines" / "device_free.json"
    baseline.accept(path, "2.13.0+cpu", {OTHER: entry(3), KEY: entry(7)}, [KEY, OTHER])
    found = baseline.read(path)
    assert found == Stored("2.13", {KEY: entry(7), OTHER: entry(3)})
    assert list(found.entries) == [KEY, OTHER]


def test_accepting_one_keeps_the_others_and_drops_what_no_longer_exists(tmp_path):
    path, gone = tmp_path / "device_free.json", Key("reference", "gone")
    baseline.accept(path, "2.13.0", {KEY: entry(1), OTHER: entry(2), gone: entry()}, [KEY, OTHER])
    assert gone not in baseline.read(path).entries
    baseline.accept(path, "2.13.1", {KEY: entry(5)}, [KEY, OTHER])
    assert baseline.read(path).entries == {KEY: entry(5), OTHER: entry(2)}
    baseline.accept(path, "2.13.1", {}, [KEY])
    assert baseline.read(path).entries == {KEY: entry(5)}


def test_accepting_under_another_torch_keeps_nothing_of_the_former(tmp_path):
    path = tmp_path / "device_free.json"
    baseline.accept(path, "2.13.0", {KEY: entry(), OTHER: entry()}, [KEY, OTHER])
    baseline.accept(path, "2.14.0", {KEY: entry()}, [KEY, OTHER])
    assert baseline.read(path) == Stored("2.14", {KEY: entry()})


def test_bytes_of_another_torch_are_not_compared():
    stored = Stored("2.13", {KEY: entry()})
    assert baseline.incomparable(stored, "2.13.1+cu130") is None
    reason = baseline.incomparable(stored, "2.14.0")
    assert reason.startswith("the stored figures are those of torch 2.13, and torch 2.14 may make")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"torch"', '"flame"'),
        lambda text: text.replace('"passes"', '"runs"'),
        lambda text: text.replace('"shape"', '"form"'),
        lambda text: text.replace("1000000", '"many"'),
        lambda text: text.replace("1000000", "1e6"),
        lambda text: "\x00\x01",
    ],
    ids=[
        "truncated",
        "empty",
        "list",
        "object",
        "torch",
        "passes",
        "shape",
        "text",
        "float",
        "binary",
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    path = tmp_path / "device_free.json"
    baseline.accept(path, "2.13.0", {KEY: entry()}, [KEY])
    path.write_text(damage(path.read_text()))
    with pytest.raises(BaselineError, match=r"is damaged \(.*; expected JSON .* restore") as caught:
        baseline.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BaselineError, match="is damaged"):
        baseline.accept(path, "2.13.0", {KEY: entry()}, [KEY])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BaselineError, match=r"does not exist; expected .*--accept-memory"):
        baseline.read(tmp_path / "device_free.json")


def test_a_file_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(BaselineError, match=r"cannot be read .*: check the path"):
        baseline.read(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BaselineError, match=r"cannot be written .*expected a writable folder"):
        baseline.accept(tmp_path / "file" / "device_free.json", "2.13.0", {KEY: entry()}, [KEY])


PROCESSES, KEYS_EACH = 6, 5
SHARED = [Key(f"case-{n}", "mlp") for n in range(PROCESSES * KEYS_EACH)]


def accept_own(path, process):
    """What a process of several does that store at once: accept its keys, one after another."""
    for key in SHARED[process::PROCESSES]:
        baseline.accept(path, "2.13.0", {key: entry()}, SHARED)


def test_processes_that_accept_at_once_lose_nothing(tmp_path):
    path = tmp_path / "device_free.json"
    each = [(path, process) for process in range(PROCESSES)]
    assert forked(accept_own, *each) == [0] * PROCESSES
    assert sorted(baseline.read(path).entries) == sorted(SHARED)


def test_a_lock_that_is_not_given_back_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "LOCK_SECONDS", 0)
    with FileLock(tmp_path / ".lock"), pytest.raises(BaselineError, match=r"locked .*: end the"):
        baseline.accept(tmp_path / "device_free.json", "2.13.0", {KEY: entry()}, [KEY])


GATE = """
import sys, pytest
gate = ["benchmarks/test_memory.py", "-q", "-k", "reference-fused_fourier_kan", *sys.argv[1:]]
accepted = pytest.main([*gate, "--accept-memory"])
print("accepted", flush=True)
sys.exit(pytest.main([*gate, "-p", "planted"]) if accepted == 0 else 3)
"""


def test_the_gate_end_to_end(tmp_path):
    """One implementation at one case is accepted, made worse, and judged."""
    path = os.pathsep.join(str(ROOT / name) for name in ("benchmarks", "src"))
    finished = subprocess.run(
        [sys.executable, "-c", GATE, f"--baselines={tmp_path}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path, "PLANT": "alloc"},
    )
    assert finished.returncode == 1, finished.stdout
    assert len(baseline.read(tmp_path / "device_free.json").entries) == 1
    _, output = finished.stdout.split("accepted\n")
    assert "forward_peak_bytes was " in output
    assert "(+4,096 B); expected no growth" in output
