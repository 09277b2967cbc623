"""The GPU check without a GPU: its budget, its failures, its tables, and a dry run of it all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # where the check finds its own package, too

from gpucheck import (  # noqa: E402
    compile_times,
    environment,
    junit,
    output,
    plan,
    report,
    rounds,
    sanitized,
    steps,
    stopwatch,
    times,
)
from gpucheck.process import run_program  # noqa: E402
from gpucheck.rounds import Budget, Subject  # noqa: E402
from gpucheck.steps import FailedError, NotRunError, Step, TimedOutError  # noqa: E402

from kan_impls.fused import compiler, kernels  # noqa: E402
from tests.fused_helpers import needs_nvrtc  # noqa: E402
from tests.tensor_core_models import KERNEL, PROBE  # noqa: E402


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds
        return seconds


@pytest.fixture
def clock():
    return Clock()


# Steps


def run(listed, clock, budget=100):
    return steps.run_steps(listed, budget, clock, say=lambda line: None)


def raising(error):
    def step(limit):
        raise error

    return step


def test_a_failed_step_is_recorded_and_the_next_ones_run(clock):
    errors = [
        FailedError("broken", {"found": 1}), TimedOutError("too long", {"found": 2}),
        NotRunError("no tool"), ZeroDivisionError("a fault"),
    ]  # fmt: skip
    listed = [Step(str(n), 10, raising(error)) for n, error in enumerate(errors)]
    outcomes = run([*listed, Step("last", 10, lambda limit: {"found": 3})], clock)
    assert [(o.status, o.reason, o.data) for o in outcomes] == [
        ("failed", "broken", {"found": 1}),
        ("timed out", "too long", {"found": 2}),
        ("not run", "no tool", {}),
        ("failed", "ZeroDivisionError: a fault", {}),
        ("passed", "", {"found": 3}),
    ]


def test_every_step_gets_its_limit_and_no_more_than_is_left(clock):
    limits = []

    def greedy(limit):
        limits.append(limit)
        clock.work(limit)
        return {}

    outcomes = run([Step(str(n), limit, greedy) for n, limit in enumerate((60, 60, 30))], clock)
    assert limits == [60, 40]
    assert [o.status for o in outcomes] == ["passed", "passed", "no time left"]
    assert [o.seconds for o in outcomes] == [60, 40, 0]


@pytest.mark.parametrize(
    ("status", "expected"),
    [("passed", 0), ("not run", 0), ("failed", 1), ("timed out", 1), ("no time left", 1)],
)
def test_the_exit_status_is_that_of_the_worst_step(status, expected):
    outcomes = [steps.Outcome("a", "passed", 1, 2), steps.Outcome("b", status, 1, 2)]
    assert steps.exit_status(outcomes) == expected
    assert steps.as_json(outcomes, "cuda", 3)["exit_status"] == expected


def test_the_limits_of_all_steps_fit_into_eight_minutes(tmp_path):
    listed = plan.Check("cuda", False, tmp_path, tmp_path).steps()
    assert sum(step.limit_s for step in listed) <= plan.BUDGET_S < 8 * 60


# Programs


def test_a_program_and_what_it_started_end_at_the_limit(tmp_path):
    script = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']); "
        "print(child.pid, flush=True); child.wait()"
    )
    start = time.monotonic()
    with pytest.raises(TimedOutError, match="limit of 1 s") as caught:
        run_program([sys.executable, "-c", script], 1, {}, tmp_path / "log", tmp_path)
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


def test_a_program_sees_its_environment_and_its_output_is_kept(tmp_path):
    script = "import os, sys; print(os.environ['GIVEN']); sys.exit(3)"
    log = tmp_path / "log"
    log.write_text("before\n")
    command = [sys.executable, "-c", script]
    assert run_program(command, 20, {"GIVEN": "yes"}, log, tmp_path) == (3, "yes\n")
    assert log.read_text() == "before\nyes\n"


class Programs:
    """Instead of programs: `results` by the name of the log, exit status and output each."""

    def __init__(self, results):
        self.results = results
        self.commands = []

    def __call__(self, command, limit, environment, log, folder):
        self.commands.append(list(map(str, command)))
        result = self.results[log.stem]
        result = result.pop(0) if isinstance(result, list) else result
        if callable(result):
            result = result(command)
        if isinstance(result, Exception):
            raise result
        return result


def check(tmp_path, results, device="cuda"):
    return plan.Check(device, False, tmp_path, tmp_path, Programs(results))


def leaves(data, status=0, text=""):
    """A program that writes `data` and exits with `status`."""

    def program(command):
        output.write(Path(command[3]), data)
        return status, text

    return program


def test_without_a_gpu_the_machine_fails_and_nothing_else_is_run(tmp_path, clock):
    gone = leaves({"cuda_available": False}, 1, "torch finds no GPU\n")
    outcomes = run(check(tmp_path, {"environment": gone}).steps(), clock, 475)
    assert [o.status for o in outcomes] == ["failed"] + ["not run"] * 6
    assert outcomes[0].reason == "exit status 1: torch finds no GPU"
    assert {o.reason for o in outcomes[1:]} == {"no CUDA device"}


def test_a_program_that_is_ended_leaves_what_it_had_found(tmp_path):
    def program(command):
        output.write(Path(command[3]), {"steps": {"fp32": {}}})
        raise TimedOutError("ended", {"output": "text"})

    with pytest.raises(TimedOutError) as caught:
        check(tmp_path, {"times": program}).times(60)
    assert caught.value.data == {"output": "text", "steps": {"fp32": {}}}


def test_the_times_are_told_to_end_before_their_limit(tmp_path):
    checked = check(tmp_path, {"times": leaves({"found": 1})})
    assert checked.times(100) == {"found": 1}
    (command,) = checked._run_program.commands
    assert command[command.index("--seconds") + 1] == "85"


# The stop-watch


class FakeEvent:
    """An event that the GPU passes when `gpu.launched` work is done."""

    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.at = self.gpu.busy_until = max(self.gpu.busy_until, self.gpu.now)

    def query(self):
        return self.gpu.now >= self.at

    def synchronize(self):
        self.gpu.now = max(self.gpu.now, self.at)

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


class FakeGpu:
    """Launching takes the host 1 ms, the work 10 us; a cycle is a nanosecond."""

    def __init__(self, monkeypatch):
        self.now = self.busy_until = 0.0
        fake = SimpleNamespace(
            Event=lambda enable_timing: FakeEvent(self),
            _sleep=lambda cycles: self.put(cycles * 1e-9),
        )
        monkeypatch.setattr(stopwatch.torch, "cuda", fake)
        buffer = SimpleNamespace(zero_=lambda: self.put(20e-6))
        monkeypatch.setattr(stopwatch, "_flush_buffer", lambda device: buffer)

    def put(self, seconds):
        self.busy_until = max(self.busy_until, self.now) + seconds

    def work(self):
        self.now += 1e-3
        self.put(10e-6)


def test_a_cold_run_is_timed_without_the_host(monkeypatch):
    gpu = FakeGpu(monkeypatch)
    cold = stopwatch._Cold(gpu.work, lambda: None, None)
    assert cold() == pytest.approx(10e-6)
    assert cold._cycles == 1_000_000  # 1 ms and the flush: just enough


def test_the_gpu_is_kept_busy_for_as_long_as_launching_takes(monkeypatch):
    gpu = FakeGpu(monkeypatch)

    def slow():
        for _ in range(3):
            gpu.work()

    cold = stopwatch._Cold(slow, lambda: None, None)
    assert cold() == pytest.approx(30e-6)
    assert cold._cycles == 4_000_000


def test_back_to_back_runs_count_the_host(monkeypatch):
    gpu = FakeGpu(monkeypatch)
    warm = stopwatch._BackToBack(gpu.work)
    assert warm() == pytest.approx(1e-3, rel=0.6)  # the first event waits for the host, too
    assert warm._runs == 2


JUNIT = """<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1">
<testcase classname="a" name="good"><properties><property name="kind" value="seven"/></properties>
</testcase><testcase classname="a" name="also"/>
<testcase classname="a" name="bad"><failure message="1 != 2">trace</failure></testcase>
<testcase classname="a" name="left"><skipped message="one GPU"/></testcase>
</testsuite></testsuites>"""


def test_tests_are_counted_from_their_report(tmp_path):
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    assert junit.read(path) == {
        "tests": 4, "failures": 1, "errors": 0, "skipped": 1, "passed": 2,
        "failed_tests": {"a::bad": "1 != 2"}, "skip_reasons": {"one GPU": 1},
        "properties": {"a::good kind": "seven"},
    }  # fmt: skip


def pytest_run(status, text):
    def program(command):
        path = next(part.partition("=")[2] for part in command if part.startswith("--junitxml"))
        if text:
            Path(path).write_text(text)
        return status, "the output"

    return program


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (1, JUNIT, "1 failed, 0 errors"),
        (4, "", "pytest exited with 4"),
        (0, '<testsuite tests="2" failures="0" errors="0" skipped="2"/>', "all were skipped"),
    ],
)
def test_tests_that_did_not_pass_are_a_failure(tmp_path, status, text, message):
    with pytest.raises(FailedError, match=message):
        check(tmp_path, {"gpu-0": pytest_run(status, text)}).tests("gpu", [["tests"]], 60)


def test_parts_of_the_tests_run_side_by_side_and_are_counted_together(tmp_path):
    good = JUNIT.replace("failure", "properties")
    ended = TimedOutError(
        "ended", {"output": "a.py::one PASSED [ 3%]\na.py::two[x y] FAILED [ 6%]\na.py::three "}
    )
    results = {"all-0": pytest_run(0, good), "all-1": pytest_run(1, JUNIT), "all-2": ended}
    shards = [["a"], ["b"], ["c"]]
    with pytest.raises(TimedOutError, match="all-1: 1 failed, 0 errors; all-2 ended") as caught:
        check(tmp_path, results).tests("all", shards, 60)
    found = caught.value.data
    assert (found["tests"], found["passed"], found["failures"], found["skipped"]) == (10, 6, 2, 2)
    assert found["failed_tests"] == {"a::bad": "1 != 2", "a.py::two[x y]": ""}
    assert found["skip_reasons"] == {"one GPU": 2}
    del results["all-1"], results["all-2"]
    results["all-1"] = pytest_run(0, good)
    counted = check(tmp_path, results).tests("all", shards[:2], 60)
    assert (counted["tests"], counted["passed"]) == (8, 6)


def test_every_test_of_the_contract_is_in_one_part(pytester):
    file, *keywords = plan.CONTRACT[0][0], *(part[2] for part in plan.CONTRACT[:3])
    options = ["-c", str(ROOT / "pyproject.toml"), "--collect-only", "-q"]
    collected = pytester.runpytest(*options, str(ROOT / file))
    names = [line for line in collected.outlines if "::" in line]
    assert len(names) > 100
    *wanted, rest = keywords
    assert rest == "not fused"
    for name in names:
        assert sum(keyword in name for keyword in wanted) == ("fused" in name), name


def test_only_files_with_gpu_tests_are_imported(tmp_path):
    (tmp_path / "test_b.py").write_text("@pytest.mark.gpu")
    (tmp_path / "test_a.py").write_text("import absent")
    assert plan.gpu_tests(tmp_path) == [[str(tmp_path / "test_b.py"), "-m", "gpu"]]
    assert str(ROOT / "tests/test_gpu.py") in plan.gpu_tests()[0]


CLEAN = "========= ERROR SUMMARY: 0 errors\n"
DIRTY = "========= ERROR SUMMARY: 2 errors\n"
RACES = "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([(0, CLEAN), (99, DIRTY)], None),
        ([(0, CLEAN), (99, RACES)], None),
        ([(99, DIRTY)], "exit status 99, ERROR SUMMARY: 2 errors"),
        ([(0, "")], "exit status 0, no summary"),
        ([(1, "Traceback")], "exit status 1, no summary"),
        ([(0, CLEAN), (0, CLEAN)], "a planted fault was not seen"),
        ([(0, CLEAN), (1, "Traceback")], "a planted fault was not seen"),
        ([(0, CLEAN), TimedOutError("ended")], "the planted fault: ended"),
    ],
)
def test_a_sanitizer_must_be_silent_and_must_be_able_to_speak(tmp_path, monkeypatch, runs, message):
    monkeypatch.setattr(plan, "find_sanitizer", lambda: Path("/tool"))
    checked = check(tmp_path, {"memcheck": runs})
    if message is None:
        assert checked.sanitizer("memcheck", 60)["summary"] == "ERROR SUMMARY: 0 errors"
    else:
        with pytest.raises(FailedError, match=message):
            checked.sanitizer("memcheck", 60)


def test_without_the_sanitizer_it_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "find_sanitizer", lambda: None)
    with pytest.raises(NotRunError, match="compute-sanitizer is not installed"):
        check(tmp_path, {}).sanitizer("memcheck", 60)


SMI = """#!/bin/sh
case "$1" in *event_reasons*) echo 'Field "x" is not a valid field to query.'; exit 2;; esac
echo "NVIDIA H200, 580.1, 345 MHz, 1980 MHz, 3201 MHz, 3201 MHz"
echo "NVIDIA H200, second"
"""


def test_an_older_driver_is_asked_for_less(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = environment.nvidia_smi()
    assert (found["name"], found["driver_version"]) == ("NVIDIA H200", "580.1")
    assert found["clocks.max.sm"] == "1980 MHz"
    assert environment.clocks()["clocks.sm"]  # the first value of whatever is answered


def test_without_a_driver_there_is_a_reason(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert environment.nvidia_smi() == {"error": "nvidia-smi is not installed"}


def test_the_reference_has_kernels_of_every_pass_and_mode():
    names = compile_times.reference_kernels(kernels.Device(90, 132))
    assert set(names) <= set(kernels.kernels_of_all())
    for basis in ("Fourier<5>", "Scaled<WithSilu<BSpline<5, 3>>>"):
        for which in ("forward", "weight_grad", "input_grad"):
            assert sum(name.startswith(f"{which}<{basis}") for name in names) == 3


@needs_nvrtc
@pytest.mark.parametrize("name", sanitized.PLANTS.values())
def test_the_planted_faults_compile(name):
    files = {**compiler.sources(), compiler.MAIN: sanitized.PLANTED}
    symbol = compiler.compile_kernel(name, "sm_90", files).symbol
    assert "Problem" in symbol  # which is what --kernel-name looks for
    ours = compiler.compile_kernel("reduce<float>", "sm_90").symbol
    assert "Problem" in ours


@needs_nvrtc
@pytest.mark.parametrize("option", ["--fmad=true", "--fmad=false"])
def test_the_probe_of_the_tensor_core_compiles(option):
    files = {**compiler.sources(), compiler.MAIN: PROBE}
    assert compiler.compile_kernel(KERNEL, "sm_90", files, (*compiler.OPTIONS, option)).image


# Rounds


def subject(name, clock, seconds, **options):
    return Subject(name, {"cold": lambda: clock.work(seconds)}, **options)


def test_subjects_take_turns_and_the_time_ends_the_rounds(clock):
    order = []

    def named(name):
        return lambda: order.append(name) or clock.work(1)

    subjects = [Subject(name, {"cold": named(name)}) for name in "abc"]
    start = clock()
    rounds.run_rounds(subjects, 10, clock)
    assert "".join(order[:9]) == "abcbcacab"
    assert clock() - start == 10


def test_a_slow_subject_is_measured_a_few_times_only(clock):
    slow, fast = subject("slow", clock, 30), subject("fast", clock, 1)
    rounds.run_rounds([slow, fast], 120, clock)
    assert len(slow.samples["cold"]) == rounds.MIN_ROUNDS
    assert len(fast.samples["cold"]) > 20


def test_even_without_time_everything_is_measured_once(clock):
    subjects = [subject(name, clock, 5) for name in "abc"]
    rounds.run_rounds(subjects, 0, clock)
    assert [len(s.samples["cold"]) for s in subjects] == [1, 1, 1]


def test_a_measure_that_fails_is_taken_once_and_named(clock):
    taken = []

    def fail():
        taken.append(1)
        raise RuntimeError("out of memory\nand more")

    broken = Subject("a", {"graph": fail, "cold": lambda: clock.work(1)})
    rounds.run_rounds([broken], 5, clock)
    assert len(taken) == 1
    assert broken.errors == {"graph": "RuntimeError: out of memory"}
    assert len(broken.samples["cold"]) == 5
    assert rounds.summarize(broken, None)["errors"] == broken.errors


def test_ratios_are_of_the_same_round_whatever_the_clock_does():
    # The machine is twice as slow in every other round, and one round is missing.
    mlp = Subject("mlp", samples={"cold": {0: 1e-6, 1: 2e-6, 2: 1e-6, 3: 2e-6}})
    mine = Subject("mine", samples={"cold": {0: 3e-6, 1: 6e-6, 3: 6e-6}})
    row = rounds.summarize(mine, mlp)["cold"]
    assert row["ratio"] == row["ratio_low"] == row["ratio_high"] == pytest.approx(3)
    assert row["median_us"] == pytest.approx(6)
    assert row["rounds"] == 3
    assert "ratio" not in rounds.summarize(mlp, mlp)["cold"]


def test_the_floor_is_the_longer_of_product_and_copy():
    row = {"cold": {"median_us": 40.0}, "warm": {"median_us": 10.0}, "errors": {"graph": "x"}}
    product = {"cold": {"median_us": 10.0}, "warm": {"median_us": 8.0}}
    copy = {"cold": {"median_us": 20.0}}
    rounds.add_floor(row, product, copy)
    assert row["cold"]["floor_fraction"] == 0.5
    assert row["cold"]["floor_us"] == 20
    assert "floor_fraction" not in row["warm"]  # no copy was measured that way


def test_a_budget_is_shared_and_ends(clock):
    budget = Budget(100, clock)
    assert budget.share(0.3) == 30
    clock.work(90)
    assert budget.share(0.3) == 10
    clock.work(20)
    assert (budget.share(0.3), budget.left) == (0, -10)


# Times


@pytest.fixture
def fake_work(monkeypatch, clock):
    """Measuring takes a tenth of a second of the fake clock; product form fails."""

    def measures_of(work, device, clear=None):
        return {"warm": lambda: clock.work(0.1)}

    monkeypatch.setattr(times, "measures_of", measures_of)


def test_the_times_stay_within_their_budget(fake_work, clock):
    start, kept = clock(), []
    budget = Budget(60, clock)
    measured = times.Times(times.SMALL, times.torch.device("cpu"), budget, kept.append)
    measured.run()
    assert clock() - start <= 60
    assert len(kept) >= 4
    assert kept[-1] is measured.found
    assert times.problems_of(measured.found) == []


def test_what_could_not_be_measured_is_a_problem():
    found = {
        "steps": {"fp32": {"mlp": {"errors": {"graph": "no capture"}}, "b": {}}},
        "layer": {"tf32": {"forward": {"a": {"errors": {"all": times.NO_CUDA}}}}},
        "sweep": [
            {"rows": 1, "mode": "fp32", "kind": "fourier", "skipped": "needs 9 GB"},
            {
                "rows": 2, "mode": "fp32", "kind": "fourier", "pass": "forward",
                "fused": {"errors": {"cold": "misaligned"}}, "product": {},
            },
        ],
    }  # fmt: skip
    assert times.problems_of(found) == [
        "fp32 mlp graph: no capture",
        "sweep 2 rows fp32 fourier forward fused: misaligned",
    ]


def test_the_table_of_the_sweep():
    cell = {"rows": 512, "mode": "tf32", "kind": "splines", "pass": "forward"}
    fused = {"cold": {"median_us": 12.34, "ratio": 0.5}}
    text = report.sweep_table(
        [
            {**cell, "fused": fused, "product": {"cold": {"median_us": 24.68}}},
            {**cell, "pass": "input_grad", "fused": {"errors": {"all": "x"}}, "product": {}},
            {"rows": 65_536, "mode": "fp32", "kind": "fourier", "skipped": "needs 99.0 GB"},
        ]
    )
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    assert cells[2] == ["512", "tf32", "splines", "forward", "12.3", "24.7", "0.500"]
    assert cells[3][-3:] == ["", "", ""]
    assert cells[4][3:] == ["all", "", "", "needs 99.0 GB"]


def test_the_table_of_a_group():
    figures = {"median_us": 12.34, "low_us": 12.0, "high_us": 13.0, "ratio": 0.9871}
    rows = {
        "mlp": {"cold": {"median_us": 10.0, "low_us": 9.0, "high_us": 11.0}},
        "mine": {
            "cold": {**figures, "floor_fraction": 0.5},
            "memory": {"forward_peak_bytes": 1_500_000, "backward_peak_bytes": 2_000_000},
            "errors": {"graph": "refused | here"},
        },
    }
    lines = report.rows_table(rows).splitlines()
    assert "warm" not in lines[0]
    for part in ("12.3 (12.0-13.0)", "0.987", "50%", "1.50", "2.00", r"graph: refused \| here"):
        assert part in lines[3], part


# All of it


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    start = time.monotonic()
    process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "benchmarks/gpu_check.py"), "--device", "cpu", "--small",
            "--out", str(out),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=out, text=True, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    found = json.loads((out / "gpu-check.json").read_text())
    return SimpleNamespace(
        status=process.returncode, text=text, seconds=time.monotonic() - start, found=found,
        markdown=(out / "gpu-check.md").read_text(),
    )  # fmt: skip


def test_a_dry_run_passes_quickly_and_says_what_it_did_not_run(dry_run):
    assert dry_run.status == 0, dry_run.text
    assert dry_run.seconds < 30
    statuses = {step["name"]: (step["status"], step["reason"]) for step in dry_run.found["steps"]}
    assert statuses == {
        "environment": ("passed", ""),
        "compile": ("not run", "no CUDA device"),
        "gpu tests": ("not run", "no CUDA device"),
        "contract on cuda": ("not run", "no CUDA device"),
        "memcheck": ("not run", "no CUDA device"),
        "racecheck": ("not run", "no CUDA device"),
        "times": ("passed", ""),
    }
    assert "[7/7] times" in dry_run.text


def test_the_json_of_a_dry_run_has_all_fields(dry_run):
    data = {step["name"]: step["data"] for step in dry_run.found["steps"]}
    assert {"nvidia_smi", "torch", "cuda", "nvrtc", "doctor"} <= data["environment"].keys()
    measured = data["times"]
    rows = measured["steps"]["fp32"]
    for name in ("mlp", "fused_fourier_kan product", "efficient_kan", "fourier_kan"):
        figures = rows[name]["warm"]
        assert figures["low_us"] <= figures["median_us"] <= figures["high_us"]
        assert figures["floor_fraction"] > 0
        assert rows[name]["memory"]["backward_peak_bytes"] > 0
        assert ("ratio" in figures) == (name != "mlp")
    assert rows["fused_fourier_kan fused"] == {"errors": {"all": times.NO_CUDA}}
    assert measured["layer"]["fp32"].keys() == {"forward", "weight_grad", "input_grad"}
    assert len(measured["sweep"]) == 2 * 2 * 3
    assert measured["rates"]["copy"]["bytes_per_s"] > 0
    assert measured["rates"]["product fp32"]["flops_per_s"] > 0


def test_the_markdown_is_that_of_the_json(dry_run):
    assert report.markdown(dry_run.found) == dry_run.markdown
    for part in ("## Steps", "## Doctor", "### Training step, fp32", "### Kernels over product"):
        assert part in dry_run.markdown
