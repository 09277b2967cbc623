"""The GPU check without a GPU: its limits, its failures, its tables, and a dry run of it all."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # where the check finds its own modules, too

import gpu_compile_times  # noqa: E402
import gpu_machine  # noqa: E402
import gpu_programs as programs  # noqa: E402
import gpu_report  # noqa: E402
import gpu_sanitized  # noqa: E402
import test_gpu_check as check  # noqa: E402
from gpu_programs import NotInstalledError, ProgramError, TimedOutError  # noqa: E402

from kan_impls.fused import compiler, kernels  # noqa: E402
from tests.fused_helpers import needs_nvrtc  # noqa: E402
from tests.tensor_core_models import KERNEL, PROBE  # noqa: E402

# The budget


def test_the_limits_of_all_steps_leave_time_for_times_within_eight_minutes():
    assert set(check.LIMITS_S) == {*check.PARTS, *programs.SANITIZERS}
    assert sum(check.LIMITS_S.values()) + 120 <= check.BUDGET_S < 478 < 8 * 60
    assert "timeout --foreground -k 5 478 " in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    ("seconds", "fixtures", "outcome"),
    [
        (check.BUDGET_S, ["measure"], pytest.skip.Exception),
        (check.BUDGET_S, [], pytest.fail.Exception),
        (0, [], None),
    ],
)
def test_what_finds_no_time_is_named_and_fails_unless_it_is_a_time(
    monkeypatch, seconds, fixtures, outcome
):
    began = SimpleNamespace(create_time=lambda: time.time() - seconds)
    monkeypatch.setattr(check.psutil, "Process", lambda: began)
    request = SimpleNamespace(fixturenames=fixtures, node=SimpleNamespace(nodeid="a::b"))
    found = {"left_out": []}
    look = check.seconds_left.__wrapped__
    if outcome is None:
        assert look(request, found) == pytest.approx(check.BUDGET_S, abs=1)
        assert found["left_out"] == []
    else:
        with pytest.raises(outcome, match="left out, since no time is left"):
            look(request, found)
        assert found["left_out"] == ["a::b"]


@pytest.mark.parametrize("left", [30, 1000])
def test_a_step_gets_its_limit_and_no_more_than_is_left(left):
    limits, found = [], {"programs": {}}
    check.run_step(found, "contract", left, lambda limit: limits.append(limit) or {"passed": 3})
    assert limits == [min(left, check.LIMITS_S["contract"])]
    assert found["programs"] == {"contract": {"passed": 3}}


@pytest.mark.parametrize(
    ("error", "outcome", "data"),
    [
        (ProgramError("broken", {"found": 1}), pytest.fail.Exception, {"found": 1}),
        (TimedOutError("too long", {"found": 2}), pytest.fail.Exception, {"found": 2}),
        (NotInstalledError("no tool"), pytest.skip.Exception, None),
    ],
)
def test_a_step_that_fails_leaves_what_it_found(error, outcome, data):
    def run(limit):
        raise error

    found = {"programs": {}}
    with pytest.raises(outcome, match=str(error)):
        check.run_step(found, "gpu", 100, run)
    assert found["programs"].get("gpu") == data


# Programs


def test_a_program_and_what_it_started_end_at_the_limit(tmp_path):
    script = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']); "
        "print(child.pid, flush=True); child.wait()"
    )
    start = time.monotonic()
    with pytest.raises(TimedOutError, match="limit of 1 s") as caught:
        programs.run_program([sys.executable, "-c", script], 1, tmp_path / "log")
    assert time.monotonic() - start < 10
    started = Path(f"/proc/{int(caught.value.data['output'])}")
    # Ended, if perhaps not yet collected by the process that inherited it; on a busy machine the
    # signal takes a moment.
    deadline = time.monotonic() + 10
    while _runs(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(started)


def _runs(process):
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_finds_the_packages_and_its_output_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GIVEN", "yes")
    script = "import os, sys, gpu_record; print(os.environ['GIVEN']); sys.exit(3)"
    log = tmp_path / "log"
    assert programs.run_program([sys.executable, "-c", script], 20, log) == (3, "yes\n")
    assert log.read_text() == "yes\n"


class Programs:
    """Instead of programs: `results` by the name of the log; status and output, or what raises."""

    def __init__(self, **results):
        self.results, self.commands, self.limits = results, [], []

    def __call__(self, command, limit, log):
        self.commands.append(list(map(str, command)))
        self.limits.append(limit)
        result = self.results[log.stem.replace("-", "_")]
        result = result(command) if callable(result) else result
        if isinstance(result, Exception):
            raise result
        return result


def entry(status, **fields):
    return {"status": status, "seconds": 1.0, **fields}


GOOD = {
    "a::good": entry("passed", properties={"kind": "seven"}),
    "a::also": entry("passed"),
    "a::left": entry("skipped", reason="one GPU"),
}
BAD = {"b::bad": entry("failed", reason="1 != 2"), "b::good": entry("passed")}


def pytest_run(status, tests, running=None):
    """A run that leaves a record, and its exit status; it is ended if that is None."""

    def program(command):
        path = next(p.partition("=")[2] for p in command if p.startswith("--record"))
        if tests is not None:
            Path(path).write_text(json.dumps({"tests": tests, "running": running}))
        return TimedOutError("ended at its limit of 60 s") if status is None else (status, "")

    return program


@pytest.mark.parametrize(
    ("status", "tests", "message"),
    [
        (1, BAD, "^gpu-0: 1 failed$"),
        (4, None, "gpu-0: pytest exited with 4"),
        (0, {"a::b": entry("skipped")}, "no test passed: all were skipped"),
        (None, {}, "gpu-0 ended at its limit of 60 s"),
    ],
)
def test_tests_that_did_not_pass_are_a_failure(tmp_path, status, tests, message):
    with pytest.raises(ProgramError, match=message):
        programs.run_tests(
            "gpu", [["tests"]], 60, tmp_path, Programs(gpu_0=pytest_run(status, tests))
        )


def test_parts_of_the_tests_run_side_by_side_and_are_counted_together(tmp_path):
    ended = pytest_run(None, {"c::one": entry("passed"), "c::two": entry("failed")}, "c::three")
    run = Programs(all_0=pytest_run(0, GOOD), all_1=pytest_run(1, BAD), all_2=ended)
    expected = "all-1: 1 failed; all-2 ended at its limit of 60 s in c::three"
    with pytest.raises(TimedOutError, match=expected) as caught:
        programs.run_tests("all", [["a"], ["b"], ["c"]], 60, tmp_path, run)
    found = caught.value.data
    assert (len(found["tests"]), found["passed"], found["failed"], found["skipped"]) == (7, 4, 2, 1)
    assert found["tests"]["b::bad"]["reason"] == "1 != 2"
    passed = programs.run_tests("all", [["a"]], 60, tmp_path, run)
    assert passed == {"passed": 2, "failed": 0, "skipped": 1, "tests": GOOD}


def test_an_earlier_record_is_not_taken_for_this_runs(tmp_path):
    programs.run_tests("gpu", [["a"]], 60, tmp_path, Programs(gpu_0=pytest_run(0, GOOD)))
    with pytest.raises(ProgramError, match="pytest exited with 4"):
        programs.run_tests("gpu", [["a"]], 60, tmp_path, Programs(gpu_0=(4, "")))


def test_every_test_of_the_contract_is_in_one_part(pytester):
    file, *keywords = programs.CONTRACT[0][0], *(part[2] for part in programs.CONTRACT[:3])
    options = ["-c", str(ROOT / "pyproject.toml"), "--collect-only", "-q"]
    collected = pytester.runpytest(*options, str(ROOT / file))
    names = [line for line in collected.outlines if "::" in line]
    assert len(names) > 100
    *wanted, rest = keywords
    assert rest == " and ".join(f"not {keyword}" for keyword in wanted)
    for name in names:
        assert sum(keyword in name for keyword in wanted) <= 1, name


def test_only_files_with_gpu_tests_are_imported(tmp_path):
    (tmp_path / "test_b.py").write_text("@pytest.mark.gpu")
    (tmp_path / "test_a.py").write_text("import absent")
    assert programs.gpu_tests(tmp_path) == [[str(tmp_path / "test_b.py"), "-m", "gpu"]]
    for name in ("test_gpu.py", "perfgate/test_timing.py"):
        assert str(ROOT / "tests" / name) in programs.gpu_tests()[0]


CLEAN = "========= ERROR SUMMARY: 0 errors\n"
DIRTY = "========= ERROR SUMMARY: 2 errors\n"
RACES = "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"


@pytest.mark.parametrize(
    ("run", "planted", "message"),
    [
        ((0, CLEAN), (99, DIRTY), None),
        ((0, CLEAN), (99, RACES), None),
        ((99, DIRTY), None, "exit status 99, ERROR SUMMARY: 2 errors"),
        ((0, ""), None, "exit status 0, no summary"),
        ((1, "Traceback"), None, "exit status 1, no summary"),
        ((0, CLEAN), (0, CLEAN), "a planted fault was not seen"),
        ((0, CLEAN), (1, "Traceback"), "a planted fault was not seen"),
        ((0, CLEAN), TimedOutError("ended"), "the planted fault: ended"),
    ],
)
def test_a_sanitizer_must_be_silent_and_must_be_able_to_speak(
    tmp_path, monkeypatch, run, planted, message
):
    monkeypatch.setattr(programs, "find_sanitizer", lambda: Path("/tool"))
    started = Programs(memcheck=run, memcheck_planted=planted)
    if message is None:
        found = programs.sanitize("memcheck", 60, tmp_path, started)
        assert found["summary"] == "ERROR SUMMARY: 0 errors"
        assert started.commands[1] == [*started.commands[0], "--plant", "memcheck"]
        assert sum(started.limits) <= 60
    else:
        with pytest.raises(ProgramError, match=message):
            programs.sanitize("memcheck", 60, tmp_path, started)


def test_without_the_sanitizer_it_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "find_sanitizer", lambda: None)
    with pytest.raises(NotInstalledError, match="compute-sanitizer is not installed"):
        programs.sanitize("memcheck", 60, tmp_path, Programs())


# The machine and its kernels


SMI = """#!/bin/sh
case "$1" in *event_reasons*) echo 'Field "x" is not a valid field to query.'; exit 2;; esac
echo "NVIDIA H200, 580.1, 345 MHz, 1980 MHz, 3201 MHz, 3201 MHz"
echo "NVIDIA H200, second"
"""


def test_an_older_driver_is_asked_for_less(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = gpu_machine.nvidia_smi()
    assert (found["name"], found["driver_version"]) == ("NVIDIA H200", "580.1")
    assert found["clocks.max.sm"] == "1980 MHz"
    assert gpu_machine.clocks()["clocks.sm"]  # the first value of whatever is answered


def test_without_a_driver_there_is_a_reason(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_machine.nvidia_smi() == {"error": "nvidia-smi is not installed"}


def test_the_reference_has_kernels_of_every_pass_and_mode():
    names = gpu_compile_times.reference_kernels(kernels.Device(90, 132))
    assert set(names) <= set(kernels.kernels_of_all())
    for basis in ("Fourier<5>", "Scaled<WithSilu<BSpline<5, 3>>>"):
        for which in ("forward", "weight_grad", "input_grad"):
            assert sum(name.startswith(f"{which}<{basis}") for name in names) == 3


@needs_nvrtc
@pytest.mark.parametrize("name", gpu_sanitized.PLANTS.values())
def test_the_planted_faults_compile(name):
    files = {**compiler.sources(), compiler.MAIN: gpu_sanitized.PLANTED}
    symbol = compiler.compile_kernel(name, "sm_90", files).symbol
    assert "Problem" in symbol  # which is what --kernel-name looks for
    ours = compiler.compile_kernel("reduce<float>", "sm_90").symbol
    assert "Problem" in ours


@needs_nvrtc
@pytest.mark.parametrize("option", ["--fmad=true", "--fmad=false"])
def test_the_probe_of_the_tensor_core_compiles(option):
    files = {**compiler.sources(), compiler.MAIN: PROBE}
    assert compiler.compile_kernel(KERNEL, "sm_90", files, (*compiler.OPTIONS, option)).image


# The report


def test_a_line_of_the_table_of_times():
    info = {
        "measured": {
            "case": "reference fused tf32",
            "batch": 100,
            "pass": "forward",
            "implementation": "fused_fourier_kan",
        },
        "processes": [
            {
                "median_ns": 12340.0,
                "ratio": 1.5,
                "ratio_to_mlp tf32": 0.9871,
                "rounds": 9,
                "disturbed": 0,
            }
        ],
        "memory": {"forward_peak_bytes": 1_500_000, "backward_peak_bytes": 2_000_000},
        "floor_fraction": 0.5,
        "launches": 2,
    }
    row = gpu_report.row_of(info)
    assert (row["rounds"], row["launches"], row["beside"]) == (9, 2, {"mlp tf32": 0.9871})
    lines = gpu_report.times_table([row]).splitlines()
    assert [part.strip() for part in lines[2].split("|")[1:-1]] == [
        "reference fused tf32",
        "100",
        "forward",
        "fused_fourier_kan",
        "12.3",
        "0.987",
        "mlp tf32",
        "50%",
        "1.50",
        "2.00",
    ]


def test_the_report_names_what_failed_and_what_was_left_out():
    found = {
        "exit_status": 1,
        "seconds": 470.0,
        "device": "cuda",
        "left_out": ["c.py::test_late_time[x]"],
        "tests": {
            "c.py::test_tests[gpu]": entry("failed", reason="gpu-0: 1 failed | more\nlines"),
            "c.py::test_early_time[a]": entry("passed"),
            "c.py::test_early_time[b]": entry("failed", reason="misaligned"),
            "c.py::test_early_time[c]": entry("skipped", reason="needs 99.0 GB"),
            "c.py::test_late_time[x]": entry("skipped", reason="left out, since no time is left"),
        },
        "programs": {"gpu": {"passed": 2, "failed": 1, "skipped": 1, "tests": {**GOOD, **BAD}}},
    }
    text = gpu_report.markdown(found)
    for part in (
        "Failed on cuda in 470 s",
        r"gpu-0: 1 failed \| more lines",
        "- `b::bad`: 1 != 2",
        "- good, kind: seven",
        "misaligned",
        "needs 99.0 GB",
        "1: late_time[x]",
    ):
        assert part in text, part
    assert "early_time[a]" not in text  # its line is in the table of times


OUTCOMES = """
import pytest

def test_passes(record_property):
    record_property("kind", 7)

def test_fails():
    assert 1 == 2

def test_is_skipped():
    pytest.skip("one GPU")

@pytest.fixture
def broken():
    raise RuntimeError("no context")

def test_has_no_fixture(broken):
    pass

def test_ends_the_process():
    import os
    os._exit(7)
"""


def test_a_record_holds_every_test_even_if_the_process_ends(tmp_path):
    (tmp_path / "test_outcomes.py").write_text(OUTCOMES)
    path = tmp_path / "deep" / "record.json"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "gpu_record",
        f"--record={path}",
        str(tmp_path),
        f"--rootdir={tmp_path}",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
    ]
    status, text = programs.run_program(command, 60, tmp_path / "log")
    assert status == 7, text
    found = json.loads(path.read_text())
    assert found["running"] == "test_outcomes.py::test_ends_the_process"
    by_name = {nodeid.rpartition("::")[2]: entry for nodeid, entry in found["tests"].items()}
    assert by_name["test_passes"]["status"] == "passed"
    assert by_name["test_passes"]["properties"] == {"kind": "7"}
    assert by_name["test_fails"]["reason"].startswith("assert 1 == 2")
    assert by_name["test_is_skipped"]["reason"] == "one GPU"
    assert by_name["test_has_no_fixture"]["status"] == "failed"
    assert "no context" in by_name["test_has_no_fixture"]["reason"]


# All of it


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks/test_gpu_check.py",
        "-m",
        "gpu_check",
        "-p",
        "gpu_record",
        f"--record={out / 'gpu-check.json'}",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "--benchmark-enable",
        "--benchmark-max-time=0.01",
        # The last run is kept in the root folder: a developer's stays.
        "--device=cpu",
        "-c",
        str(ROOT / "pyproject.toml"),
        f"--rootdir={out}",
        "-k",
        "not time or accurate and training_step",
    ]
    status, text = programs.run_program(command, 90, out / "log")
    return SimpleNamespace(
        status=status,
        text=text,
        found=json.loads((out / "gpu-check.json").read_text()),
        markdown=(out / "gpu-check.md").read_text(),
    )


def test_a_dry_run_passes_and_says_what_it_did_not_run(dry_run):
    assert dry_run.status == 0, dry_run.text
    statuses = {
        nodeid.rpartition("::")[2]: (entry["status"], entry.get("reason", ""))
        for nodeid, entry in dry_run.found["tests"].items()
        if "time[" not in nodeid
    }
    left = ("skipped", "needs a CUDA device")
    assert statuses == {
        "test_machine": ("passed", ""),
        "test_compile": left,
        "test_tests[gpu]": left,
        "test_tests[contract]": left,
        "test_sanitizer[memcheck]": left,
        "test_sanitizer[racecheck]": left,
        **{f"test_rates[{precision}]": ("passed", "") for precision in check.PRECISIONS},
    }


def test_the_json_of_a_dry_run_has_all_fields(dry_run):
    found = dry_run.found
    assert (found["exit_status"], found["running"], found["left_out"]) == (0, None, [])
    assert {"nvidia_smi", "torch", "cuda", "nvrtc", "doctor"} <= found["machine"].keys()
    rows = {(row["implementation"], row.get("backend")): row for row in found["times"]}
    assert rows.keys() == {
        ("mlp", None),
        ("fused_fourier_kan", "product"),
        ("fused_efficient_kan", "product"),
        ("efficient_kan", None),
        ("fourier_kan", None),
    }
    for (name, _), row in rows.items():
        assert row["median_us"] > 0
        assert row["floor_fraction"] > 0
        assert row["memory"]["backward_peak_bytes"] > 0
        assert row["precision"] == "accurate"
        assert row["beside"].keys() == (set() if name == "mlp" else {"mlp accurate"})
    for rate in found["rates"].values():
        assert rate["bytes_per_s"] > 0
        assert rate["flops_per_s"] > 0


def test_the_markdown_is_that_of_the_json(dry_run):
    assert gpu_report.markdown(dry_run.found) == dry_run.markdown
    for part in ("# GPU check\n\nPassed", "## Steps", "## Doctor", "## Rates", "## Times"):
        assert part in dry_run.markdown


def test_without_a_gpu_the_check_says_so_in_one_line(monkeypatch):
    if check.gpu_machine.torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        ["make", "--no-print-directory", "gpu-check", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert not done.stdout
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("make")]
    assert len(lines) == 1
    assert "device is 'cuda'" in lines[0]
    assert "expected one that exists" in lines[0]
