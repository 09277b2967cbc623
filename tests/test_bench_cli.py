"""The subcommands of `kan-bench`."""

import json
import subprocess

import pytest

from kan_impls.bench import commands
from kan_impls.bench.ab import trees
from kan_impls.bench.baseline import find, read_run
from kan_impls.bench.cli import main
from kan_impls.bench.record import parse_run
from kan_impls.bench.report.document import document, to_json
from kan_impls.bench.verdict import TimeChange, Verdict
from tests.bench_runs import run_data, write_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def present(folder):
    return find(folder / "benchmarks" / "baselines", "cpu_test")


def test_accept_stores_the_last_run(folder, capsys):
    write_run(folder / ".benchmarks" / "last_run.json", "a", "b")
    assert main(["accept"]) == 0
    assert present(folder).name == "0001_0123456789.json"
    assert "0001_0123456789.json" in capsys.readouterr().out
    assert main(["accept", "--name", "after the fix"]) == 0
    assert present(folder).name == "0002_after-the-fix.json"


def test_without_a_run(folder, capsys):
    assert main(["accept"]) == 1
    assert "does not exist; expected the last run" in capsys.readouterr().err


def test_a_damaged_run_is_not_stored(folder, capsys):
    path = write_run(folder / ".benchmarks" / "last_run.json", "a")
    path.write_text(path.read_text()[:100])
    assert main(["accept"]) == 1
    assert "is not a complete run" in capsys.readouterr().err
    assert not (folder / "benchmarks").exists()


def test_an_empty_run_is_not_stored(folder, capsys):
    write_run(folder / ".benchmarks" / "last_run.json")
    assert main(["accept"]) == 1
    assert "holds no measurement" in capsys.readouterr().err


def test_a_run_of_a_part_does_not_drop_the_rest_by_itself(folder, capsys):
    last = folder / ".benchmarks" / "last_run.json"
    write_run(last, "a", "b", memory=1)
    main(["accept"])
    write_run(last, "b", "c", memory=2)
    assert main(["accept"]) == 1
    assert "lacks 1 of the 2 benchmarks" in capsys.readouterr().err
    assert present(folder).name.startswith("0001")

    assert main(["accept", "--merge"]) == 0
    merged = read_run(present(folder)).measurements
    assert {name: m.memory["forward_peak_bytes"] for name, m in merged.items()} == {
        "a": 1,
        "b": 2,
        "c": 2,
    }
    assert main(["accept", "--replace"]) == 0
    assert set(read_run(present(folder)).measurements) == {"b", "c"}


def test_an_unwritable_folder(folder, capsys):
    write_run(folder / ".benchmarks" / "last_run.json", "a")
    (folder / "benchmarks").write_text("in the way")
    assert main(["accept"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_stored_keeps_every_field(folder):
    path = write_run(folder / ".benchmarks" / "last_run.json", "a")
    main(["accept"])
    kept = json.loads(present(folder).read_text())
    assert kept.pop("kan_impls") == {"anchor": None}
    assert kept == json.loads(path.read_text())


def calibrate(path):
    data = json.loads(path.read_text())
    for entry in data["benchmarks"]:
        entry["extra_info"]["calibration"] = {"processes": 3, "runs": [{"ratio": 1.0}] * 2}
    path.write_text(json.dumps(data))


def test_the_calibration_goes_on_with_the_next_baseline(folder):
    last = write_run(folder / ".benchmarks" / "last_run.json", "a", "b")
    main(["accept"])
    calibrate(present(folder))
    write_run(last, "a", "b", ratio=1.1)
    main(["accept"])
    found = read_run(present(folder)).measurements
    assert found["a"].calibration.values("ratio") == [1.0, 1.0]
    assert found["a"].median("ratio") == 1.1


def test_the_noise_of_other_work_is_not_taken_over(folder):
    last = write_run(folder / ".benchmarks" / "last_run.json", "a")
    main(["accept"])
    calibrate(present(folder))
    data = json.loads(last.read_text())
    data["benchmarks"][0]["extra_info"]["measured"]["batch"] = 7
    last.write_text(json.dumps(data))
    main(["accept"])
    assert read_run(present(folder)).measurements["a"].calibration is None


def test_a_new_history_keeps_its_reason(folder):
    write_run(folder / ".benchmarks" / "last_run.json", "a")
    assert main(["accept", "--new-history", "it is exact now"]) == 0
    assert read_run(present(folder)).anchor == "it is exact now"


def test_calibrate_stores_what_it_measured(folder, monkeypatch, capsys):
    calls = []

    def measure(command, runs, processes, announce, keep):
        calls.append((command.arguments, runs, processes, keep))
        return run_data("a")

    monkeypatch.setattr("kan_impls.bench.calibrate.calibrate", measure)
    assert main(["calibrate", "--runs=4", "--processes", "2", "--", "-k", "mlp"]) == 0
    assert calls == [(["--benchmark-only", "-k", "mlp"], 4, 2, None)]
    assert present(folder).name == "0001_0123456789.json"
    assert "stored" in capsys.readouterr().out


def write_report(folder, *statuses, code=0):
    """A report as the comparison with the stored baseline leaves it."""
    verdicts = [Verdict(f"b{n}", status, "because") for n, status in enumerate(statuses)]
    content = document(parse_run(run_data("b0")), verdicts, exit_code=code, kind="compare")
    path = folder / "gate" / "stored-baseline" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(content))
    return path


def test_reports_are_made_again_from_their_document(folder):
    path = write_report(folder, "unchanged")
    assert main(["report", str(path), "--out", "again"]) == 0
    again = folder / "again"
    assert (again / "report.json").read_text() == path.read_text()
    assert (again / "summary.md").exists()


def test_a_document_that_is_none_is_an_error(folder, capsys):
    (folder / "x.json").write_text("{}")
    assert main(["report", "x.json"]) == 1
    assert capsys.readouterr().err.startswith("kan-bench: ")


@pytest.fixture
def gated(folder, monkeypatch):
    """`kan-bench gate` with made-up answers; what the second comparison was asked."""
    asked = []

    def gate(*statuses, code, answer=0, options=()):
        def run(command, check):
            asked.append(command)
            write_report(folder, *statuses, code=code)
            return subprocess.CompletedProcess([], code)

        def compare(options, base, head, arguments, names, notes):
            asked.append((base, head, names))
            return answer

        monkeypatch.setattr(trees, "commit_of", lambda root, revision: "0123")
        monkeypatch.setattr(commands.subprocess, "run", run)
        monkeypatch.setattr(commands, "_compare_revisions", compare)
        return main(["gate", "main", "--report", "gate", *options])

    return gate, asked


def test_what_the_stored_baseline_flags_is_decided_by_base_and_head(gated):
    gate, asked = gated
    statuses = ("unchanged", "regressed", "inconclusive", "no_baseline")
    assert gate(*statuses, code=10, answer=0) == 0
    assert asked[1:] == [("main", None, ["b1", "b2", "b3"])]


def test_a_regression_against_the_base_fails_the_gate(gated):
    gate, _ = gated
    assert gate("regressed", code=10, answer=10) == 10


def test_the_first_comparison_gets_what_it_is_to_judge_by(gated):
    gate, asked = gated
    gate(
        "unchanged", code=0, options=["--baselines=elsewhere", "--further-runs=0", "--", "-k", "x"]
    )
    command = asked[0]
    assert {"--baselines=elsewhere", "--further-runs=0"} <= set(command)
    assert command[-2:] == ["-k", "x"]


@pytest.mark.parametrize("code", [0, 1, 11, 12, 13, 15])
def test_what_is_clear_or_no_question_of_time_is_not_measured_again(gated, folder, code):
    gate, asked = gated
    assert gate("unchanged", "missing", code=code) == code
    assert len(asked) == 1
    assert (folder / "gate" / "summary.md").exists()


@pytest.mark.parametrize("other", ["missing", "incomparable"])
def test_an_answer_on_one_benchmark_makes_silence_on_another_no_green(gated, other):
    gate, asked = gated
    assert gate("regressed", other, code=10, answer=0) == 10
    assert len(asked) == 1


def test_a_required_baseline_stays_required(gated):
    gate, _ = gated
    options = ["--", "--require-baseline"]
    assert gate("regressed", "no_baseline", code=10, answer=0, options=options) == 10


def test_a_loss_since_the_oldest_baseline_is_not_excused_by_the_last_step(gated, monkeypatch):
    gate, asked = gated
    drift = TimeChange("ratio", "anchor", "regressed", 0.08, 0.08, 0.05, 0.06, 6)
    verdict = Verdict("b0", "regressed", "because", [drift])
    monkeypatch.setattr("tests.test_bench_cli.Verdict", lambda *a: verdict)
    assert gate("regressed", code=10, answer=0) == 10
    assert len(asked) == 1


def test_a_gate_without_a_report_is_not_green(folder, monkeypatch, capsys):
    write_report(folder, "unchanged", code=0)  # an earlier run's
    finished = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(trees, "commit_of", lambda root, revision: "0123")
    monkeypatch.setattr(commands.subprocess, "run", lambda *a, **k: finished)
    assert main(["gate", "main", "--report", "gate"]) == 12
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--runs=0", "--processes=-1", "--runs=x"])
def test_counts_are_at_least_one(folder, option, capsys):
    with pytest.raises(SystemExit):
        main(["calibrate", option])
    assert "invalid count, 1 or more value" in capsys.readouterr().err


def test_a_calibration_of_a_part_does_not_drop_the_rest_by_itself(folder, monkeypatch, capsys):
    write_run(folder / ".benchmarks" / "last_run.json", "a", "b")
    main(["accept"])
    monkeypatch.setattr("kan_impls.bench.calibrate.calibrate", lambda *a: run_data("b"))
    assert main(["calibrate"]) == 1
    assert "lacks 1 of the 2 benchmarks" in capsys.readouterr().err
    assert main(["calibrate", "--merge"]) == 0
    assert set(read_run(present(folder)).measurements) == {"a", "b"}


def test_a_run_that_was_disturbed_throughout_is_not_stored(folder, capsys):
    path = write_run(folder / ".benchmarks" / "last_run.json", "a")
    data = json.loads(path.read_text())
    busy = {"median_ns": 2e6, "ratio": 1.0, "rounds": 0, "disturbed": 9}
    data["benchmarks"][0]["extra_info"]["processes"] = [busy]
    path.write_text(json.dumps(data))
    assert main(["accept"]) == 1
    assert "disturbed in every process of a" in capsys.readouterr().err
