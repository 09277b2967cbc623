"""Runs in pytest-benchmark's JSON, made by hand, and reports on them."""

import copy
import json

from perfgate.judge.judge import Judge
from perfgate.judge.limits import Limits
from perfgate.judge.parse import parse_run
from perfgate.judge.verdict import Answers, TimeChange
from perfgate.report.document import Source, document
from perfgate.store.baseline import changing, write_next


def run_data(*names, device_key="cpu_test", ratio=1.0, memory=4096, anchor=None):
    data = {
        "machine_info": {
            "perfgate": {
                "device_type": "cpu",
                "device_model": "Test CPU",
                "torch": "2.13.0",
                "threads": 2,
                "matmul_precision": "highest",
                "device_key": device_key,
            }
        },
        "commit_info": {"id": "0123456789abcdef"},
        "benchmarks": [
            benchmark(name, name, "forward", ratio, memory, median_ns=2e6) for name in names
        ],
        "datetime": "2026-01-02T03:04:05+00:00",
        "version": "5.3.1",
    }
    return data if anchor is None else {**data, "perfgate": {"anchor": anchor}}


def benchmark(
    name,
    implementation,
    pass_name,
    ratio=1.0,
    memory=4096,
    case="reference",
    median_ns=None,
):
    """One entry, of three processes; its time is 2 ms times its ratio to the reference."""
    process = {
        "median_ns": median_ns or 2e6 * ratio,
        "ratio": ratio,
        "ratio_to_mlp": None if implementation == "mlp" else 1.5 * ratio,
        "rounds": 5,
        "disturbed": 1,
    }
    return {
        "fullname": name,
        "name": name,
        "group": None,
        "stats": {"median": 0.002, "rounds": 5, "data": [0.002] * 5},
        "extra_info": {
            "measured": {
                "case": case,
                "implementation": implementation,
                "batch": 100,
                "widths": [1000, 1000, 1],
                "config": {"grid_size": 5},
                "pass": pass_name,
                "reference": "product",
                "cache": "warm",
            },
            "processes": [{**process, "median_ns": process["median_ns"] + i} for i in range(3)],
            "floor_fraction": 0.5,
            "memory": {"forward_peak_bytes": memory, "saved_bytes": 100},
            "parameters": 1234567,
            "trainable_parameters": 1234560,
            "flops": 10**9,
            "evidence": [{"waited_ns": 12, "stolen_ns": 0}],
        },
    }


def store(folder, device_key, data, name):
    """Store a run as the newest baseline for a device."""
    with changing(folder, device_key) as own:
        return write_next(own, data, name)


def write_run(path, *names, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run_data(*names, **options)), encoding="utf-8")
    return path


def node(parameters, test="reference"):
    """pytest's name of a benchmark of this repository."""
    return f"benchmarks/test_{test}.py::test_{test}[{parameters}]"


# For each status a benchmark that the judge gives it to, by what differs from the baseline.
BY_STATUS = {
    "unchanged": node("mlp-forward"),
    "improved": node("fused_fourier_kan-forward"),
    "regressed": node("efficient_kan-forward"),
    "inconclusive": node("fourier_kan-forward"),
    "unjudged": node("busy_kan-forward"),
    "no_baseline": node("new_kan-forward"),
    "missing": node("gone_kan-backward_with_input_grad"),
    "incomparable": node("other_kan-forward"),
}


def judged_runs():
    """A baseline and a run that the judge finds one of each status in."""
    before, now = run_data(), run_data(anchor=None)
    now["commit_info"]["id"] = "fedcba9876543210"
    now["datetime"] = "2026-02-03T04:05:06+00:00"
    changes = {"improved": 0.5, "regressed": 2.0, "inconclusive": 2.0}
    for status in BY_STATUS:
        ratio = changes.get(status, 1.0)
        name = BY_STATUS[status]
        implementation = name.split("[")[1].split("-")[0]
        old = benchmark(name, implementation, "forward")
        runs = [{"ratio": 1 + 0.002 * i, "median_ns": 2e6 + 1000 * i} for i in range(6)]
        old["extra_info"]["calibration"] = {"processes": 3, "runs": runs}
        new = benchmark(name, implementation, "forward", ratio)
        if status == "unjudged":
            for process in new["extra_info"]["processes"]:
                process |= {"rounds": 1, "disturbed": 9}
        if status == "regressed":
            new["extra_info"]["memory"]["forward_peak_bytes"] += 4096
        if status == "incomparable":
            new["extra_info"]["measured"]["batch"] = 200
        if status != "no_baseline":
            before["benchmarks"].append(old)
        if status != "missing":
            now["benchmarks"].append(new)
    return before, now


# What the baseline's code said of those that stored times left open.
IN_TURNS = Answers(
    {
        BY_STATUS[status]: [
            TimeChange("median_ns", "baseline", status, change, 0.03, 0.9, 4, commit="c" * 40)
        ]
        for status, change in {"improved": -0.5, "regressed": 1.0}.items()
    },
    {(BY_STATUS["inconclusive"], "baseline"): "it was stored from uncommitted work"},
)


# For `steps_data`: one is beaten by another in time and in memory.
KANS = [("quick", 2.0, 9.0), ("small", 3.0, 1.0), ("neither", 4.0, 5.0)]


def steps_data(*choices, batch=100, device_key="cpu_test"):
    """A run of training steps: of each choice the name, the time in ms and the peak in MB."""
    data = run_data(device_key=device_key)
    data["machine_info"]["perfgate"]["device_key"] = device_key
    for name, ms, megabytes in choices:
        entry = benchmark(f"{name} {batch}", name, "training_step", median_ns=ms * 1e6)
        entry["extra_info"]["measured"] |= {"batch": batch, "widths": [10, 10, 1]}
        entry["extra_info"]["memory"] = {"backward_peak_bytes": int(megabytes * 1e6)}
        entry["extra_info"]["parameters"] = 250_000  # 1 MB
        data["benchmarks"].append(entry)
    return data


def judged_document(now=None, before=None, **options):
    """A real report: of the runs above, or of the data given."""
    usual_before, usual_now = judged_runs()
    baseline, run = parse_run(before or usual_before), parse_run(now or usual_now)
    verdicts = Judge(baseline, baseline, lambda measurement: Limits()).judge_run(
        run, answers=IN_TURNS
    )
    usual = {
        "exit_code": 10,
        "kind": "compare",
        "false_alarm": 0.01,
        "baseline": Source(baseline, "benchmarks/baselines/cpu_test/0002_a.json"),
        "anchor": Source(baseline, "benchmarks/baselines/cpu_test/0001_a.json"),
        "notes": ["kept .benchmarks/last_run.json"],
    }
    return document(run, verdicts, **{**usual, **options})


def growth_data():
    """A run of the growing series, with two implementations."""
    data = run_data()
    series = {"batch": (1, 10, 1000), "width": (250, 500), "grid": (10, 20), "small": (2, 16)}
    for what, sizes in series.items():
        for size in sizes:
            for implementation in ("mlp", "efficient_kan"):
                for pass_name in ("forward", "backward"):
                    name = node(f"{what}-{size}-{implementation}-{pass_name}", "growth")
                    case = f"{what}-{size}"
                    entry = benchmark(name, implementation, pass_name, memory=size, case=case)
                    entry["extra_info"]["memory"]["backward_peak_bytes"] = 2 * size
                    data["benchmarks"].append(entry)
    return data


def histories(count=3):
    """Stored baselines of the judged benchmarks, oldest first; the last one is the baseline."""
    baseline, _ = judged_runs()
    found = []
    for number in range(count - 1):
        data = copy.deepcopy(baseline)
        data["commit_info"]["id"] = f"{number:07}"
        data["datetime"] = f"2025-12-{number + 1:02}T00:00:00+00:00"
        found.append(parse_run(data))
    return [*found, parse_run(baseline)]
