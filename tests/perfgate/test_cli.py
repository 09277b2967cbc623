"""The subcommands of `kan-bench`."""

import json
import subprocess

import pytest

from perfgate import commands
from perfgate.ab.run import Outcome
from perfgate.cli import main
from perfgate.judge.parse import parse_run
from perfgate.judge.verdict import TimeChange, Verdict
from perfgate.report.document import document, to_json
from perfgate.run.processes import WorkerError, WorkerStoppedError
from perfgate.store.baseline import find, read_run
from tests.git import git
from tests.perfgate.runs import run_data, write_run


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
    assert kept.pop("perfgate") == {"anchor": None}
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

    def measure(command, runs, processes, announce, keep, check):
        calls.append((command.arguments, runs, processes, keep))
        return run_data("a")

    monkeypatch.setattr("perfgate.store.calibrate.calibrate", measure)
    assert main(["calibrate", "--runs=4", "--processes", "2", "--", "-k", "mlp"]) == 0
    assert calls == [(["--benchmark-only", "-k", "mlp"], 4, 2, None)]
    assert present(folder).name == "0001_0123456789.json"
    assert "stored" in capsys.readouterr().out


def write_report(folder, *statuses, code=0):
    """A report as the comparison with the stored baseline leaves it."""
    verdicts = [
        status if isinstance(status, Verdict) else Verdict(f"b{n}", status, "because")
        for n, status in enumerate(statuses)
    ]
    content = document(parse_run(run_data("b0")), verdicts, exit_code=code, kind="compare")
    path = folder / "gate" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(content))
    (path.parent / "exit_code").write_text(f"{code}\n")
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
    """`kan-bench gate` with a made-up comparison; the command that it started."""
    asked = []
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "base")

    def gate(*statuses, code, options=()):
        real = subprocess.run

        def run(command, **options):
            if command[0] == "git":
                return real(command, **options)
            asked.append(command)
            if statuses:
                write_report(folder, *statuses, code=code)
            return subprocess.CompletedProcess([], code)

        monkeypatch.setattr(commands.subprocess, "run", run)
        return main(["gate", "main", "--report", "gate", *options])

    return gate, asked


def test_the_gate_compares_with_where_the_branch_began(gated, folder):
    gate, asked = gated
    base = git(folder, "rev-parse", "main")
    git(folder, "checkout", "-q", "-b", "branch")
    git(folder, "commit", "-q", "--allow-empty", "-m", "change")
    assert gate("unchanged", code=0) == 0
    assert f"--against={base}" in asked[0]


@pytest.mark.parametrize("code", [0, 1, 10, 11, 12, 13, 15, 17, 19])
def test_the_gates_status_is_that_of_its_comparison(gated, code):
    gate, _ = gated
    assert gate("unchanged", code=code) == code


@pytest.mark.parametrize(
    ("status", "code"), [("regressed", 10), ("missing", 11), ("incomparable", 13), ("unjudged", 19)]
)
def test_a_green_status_over_a_red_verdict_is_not_believed(gated, status, code):
    # A conftest.py may have set it.
    gate, _ = gated
    assert gate("unchanged", status, code=0) == code


def test_what_is_unclear_fails_the_gate_where_that_is_asked(gated):
    gate, asked = gated
    assert gate(compared("inconclusive"), code=0) == 0
    options = ["--fail-on-inconclusive"]
    assert gate(compared("inconclusive"), code=0, options=options) == 17
    assert "--fail-on-inconclusive" in asked[-1]


def test_what_was_compared_with_no_earlier_code_never_passes_the_gate(gated, folder, capsys):
    gate, _ = gated
    assert gate("inconclusive", code=0) == 19
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == (
        "exit status 19, where pytest ended with 0: of b0 the time is unclear, and no earlier code "
        "was measured beside it"
    )
    # The reports say what the gate says.
    report = json.loads((folder / "gate" / "report.json").read_text())
    assert report["exit"] == {"code": 19, "name": "UNJUDGED"}
    assert (folder / "gate" / "exit_code").read_text() == "19\n"
    assert "Exit status 19 (unjudged)" in (folder / "gate" / "summary.md").read_text()
    assert "of b0 the time is unclear" in report["notes"][-1]
    assert gate("unchanged", code=0) == 0
    assert "exit status" not in capsys.readouterr().out


def compared(status):
    change = TimeChange("median_ns", "base", status, 0.1, 0.2, 0.3, 4, "c" * 40)
    return Verdict("b0", status, "because", [change])


def test_the_comparison_gets_what_it_is_to_judge_by(gated):
    gate, asked = gated
    gate("unchanged", code=0, options=["--baselines=elsewhere", "--pairs=5", "--", "-k", "x"])
    command = asked[0]
    assert {"--baselines=elsewhere", "--pairs=5"} <= set(command)
    assert command[command.index("-k") + 1] == "x"


def test_a_gate_without_a_report_is_not_green(gated, folder, capsys):
    write_report(folder, "unchanged", code=0)  # an earlier run's
    gate, _ = gated
    assert gate(code=0) == 12
    assert "cannot be read" in capsys.readouterr().err


def test_a_base_that_does_not_exist_is_an_error(gated, folder, capsys):
    assert main(["gate", "mian"]) == 1
    assert capsys.readouterr().err.startswith("kan-bench: the revision 'mian' does not exist")


@pytest.mark.parametrize("option", ["--runs=0", "--processes=-1", "--runs=x"])
def test_counts_are_at_least_one(folder, option, capsys):
    with pytest.raises(SystemExit):
        main(["calibrate", option])
    assert f"it is '{option.split('=')[1]}'; expected 1 or more" in capsys.readouterr().err


def test_a_calibration_of_a_part_does_not_drop_the_rest_by_itself(folder, monkeypatch, capsys):
    write_run(folder / ".benchmarks" / "last_run.json", "a", "b")
    main(["accept"])
    asked = []

    def measure(command, order, announce):
        asked.append(order)
        return run_data("b")

    monkeypatch.setattr("perfgate.store.calibrate.measure_in_process", measure)
    assert main(["calibrate"]) == 1
    assert "lacks 1 of the 2 benchmarks" in capsys.readouterr().err
    assert len(asked) == 1  # and not after half an hour
    assert main(["calibrate", "--merge"]) == 0
    assert set(read_run(present(folder)).measurements) == {"a", "b"}


def test_a_run_that_was_disturbed_throughout_is_stored_with_a_word(folder, capsys):
    path = write_run(folder / ".benchmarks" / "last_run.json", "a")
    data = json.loads(path.read_text())
    busy = {"median_ns": 2e6, "ratio": 1.0, "rounds": 0, "disturbed": 9}
    data["benchmarks"][0]["extra_info"]["processes"] = [busy]
    path.write_text(json.dumps(data))
    assert main(["accept"]) == 0
    assert "disturbed in every process of a: their memory is stored" in capsys.readouterr().out
    assert present(folder).exists()


@pytest.mark.parametrize(
    ("error", "code"), [(WorkerStoppedError, 18), (WorkerError, 19), (None, 0)]
)
def test_a_comparison_of_revisions_that_was_stopped_says_so(folder, monkeypatch, error, code):
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "base")
    run = parse_run(run_data("b0"))
    verdict = Verdict("b0", "unjudged" if error else "unchanged", "because", [])
    outcome = Outcome(run, run, [verdict], error and error("it ended"))
    monkeypatch.setattr("perfgate.ab.run.compare_revisions", lambda *a: outcome)
    assert main(["ab", "main", "--report", "ab"]) == code
    assert (folder / "ab" / "exit_code").read_text() == f"{code}\n"


def test_an_option_of_pytest_in_the_wrong_place_says_where_it_belongs(capsys):
    with pytest.raises(SystemExit):
        main(["ab", "HEAD~1", "-k", "mlp"])
    assert "behind --, as in kan-bench ab ... -- -k mlp" in capsys.readouterr().err
