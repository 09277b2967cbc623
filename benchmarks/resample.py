"""What stored times leave open, from recorded runs of identical code.

    kan-bench calibrate --runs 20 --keep RECORDED -- benchmarks/test_reference.py
    python benchmarks/resample.py RECORDED [MORE ...] [--save FILE]
    python benchmarks/resample.py FILE

In each trial a baseline is calibrated from some of the recorded runs, and another one is judged by
it, as `pytest --benchmark-compare` would before it measures anything in turns: how much of what did
not change is cleared, and the rest would take turns. Then the same with one benchmark's times, in
turn, raised by a fraction: how often that is cleared, which would be a miss.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from perfgate.judge.judge import Judge
from perfgate.judge.limits import CPU_LIMITS
from perfgate.judge.parse import parse_process, parse_run
from perfgate.judge.record import Calibration, Measurement, Process, Run
from perfgate.judge.verdict import Verdict
from perfgate.store.calibrate import run_figures

# For each run, for each of its processes, what it says of each benchmark.
Recorded = Sequence[Sequence[Mapping[str, Process]]]


def read(path: Path) -> Recorded:
    """The runs of a folder that `kan-bench calibrate --keep` filled, or of a file of `save`."""
    if path.is_file():
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        return [[{n: parse_process(p) for n, p in part.items()} for part in run] for run in runs]
    by_run: dict[str, list[Mapping[str, Process]]] = {}
    for file in sorted(path.glob("run*-process*.json")):
        measurements = parse_run(json.loads(file.read_text(encoding="utf-8"))).measurements
        found = {name: m.processes[0] for name, m in measurements.items()}
        by_run.setdefault(file.name.split("-")[0], []).append(found)
    return list(by_run.values())


def save(path: Path, runs: Recorded) -> None:
    """Write the figures of all processes, without their rounds."""
    data = [[{name: asdict(p) for name, p in part.items()} for part in run] for run in runs]
    path.write_text(json.dumps({"runs": data}, separators=(",", ":")) + "\n", encoding="utf-8")


def measurements_of(runs: Recorded) -> dict[str, list[Measurement]]:
    """For each benchmark that all processes measured, one measurement of each run."""
    return {
        name: [Measurement(name, {}, [part[name] for part in run]) for run in runs]
        for name in names_of(runs)
    }


def names_of(runs: Recorded) -> list[str]:
    """The benchmarks that all processes measured."""
    return [name for name in runs[0][0] if all(name in part for run in runs for part in run)]


def joined(runs: Recorded, calibrate: bool = False) -> Run:
    """Recorded runs as one, with the calibration that they make."""
    found = {}
    for name, of in measurements_of(runs).items():
        calibration = Calibration(len(runs[0]), [f for m in of if (f := run_figures([m]))])
        processes = [process for m in of for process in m.processes]
        found[name] = Measurement(
            name, {}, processes, calibration=calibration if calibrate else None
        )
    return Run({}, "", "", found)


def slower(process: Process, factor: float) -> Process:
    return replace(
        process,
        median_ns=process.median_ns * factor,
        ratio=process.ratio and process.ratio * factor,
        beside={name: ratio * factor for name, ratio in process.beside.items()},
    )


def plant(run: Run, name: str, factor: float) -> Run:
    """The run, with one benchmark's times raised."""
    if name not in run.measurements:
        return run
    old = run.measurements[name]
    new = replace(old, processes=[slower(process, factor) for process in old.processes])
    return replace(run, measurements={**run.measurements, name: new})


def trial(
    runs: Recorded, size: int, generator: random.Random, slow: str = "", factor: float = 1
) -> Sequence[Verdict]:
    """Verdicts on a run by a baseline of `size` others."""
    chosen = generator.sample(list(runs), len(runs))
    return judge(chosen[:size], chosen[size:], slow, factor)


def judge(
    accepted: Recorded, others: Recorded, slow: str = "", factor: float = 1
) -> Sequence[Verdict]:
    """Verdicts on the first of the others by the accepted ones."""
    judgement = Judge(joined(accepted, calibrate=True), None, lambda measurement: CPU_LIMITS)
    return judgement.judge_run(plant(joined(others[:1]), slow, factor))


def report_unchanged(runs: Recorded, size: int, trials: int) -> None:
    generator = random.Random(0)
    counts: Counter[str] = Counter()
    for _ in range(trials):
        counts.update(verdict.status for verdict in trial(runs, size, generator))
    total = sum(counts.values())
    print(f"identical code, {trials} trials, baselines of {size} runs:")
    print("  " + ", ".join(f"{n / total:.1%} {status}" for status, n in counts.items()))


def report_planted(runs: Recorded, size: int, trials: int, factor: float) -> None:
    print(f"one benchmark {factor - 1:+.0%}, {trials} trials each: called unchanged")
    for name in names_of(runs):
        generator = random.Random(0)
        missed = 0
        for _ in range(trials):
            verdicts = trial(runs, size, generator, name, factor)
            missed += next(v.status for v in verdicts if v.name == name) == "unchanged"
        print(f"  {name.split('::')[-1]:60} {missed / trials:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recorded", nargs="+", type=Path)
    parser.add_argument("--baseline-runs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--planted", type=float, nargs="*", default=[0.10])
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    runs = [run for path in options.recorded for run in read(path)]
    names = names_of(runs)
    runs = [[{name: part[name] for name in names} for part in run] for run in runs]
    if options.save:
        save(options.save, runs)
    size = min(options.baseline_runs, len(runs) - 1)
    if size < 2:
        parser.error(f"there are {len(runs)} recorded runs; expected 3 or more: record some")
    report_unchanged(runs, size, options.trials)
    for fraction in options.planted:
        report_planted(runs, size, max(20, options.trials // 5), 1 + fraction)


if __name__ == "__main__":
    main()
