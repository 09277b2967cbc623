"""How often the gate is wrong, from recorded runs of identical code.

    kan-bench calibrate --runs 20 --keep RECORDED -- benchmarks/test_reference.py
    python benchmarks/resample.py RECORDED [MORE ...] [--save FILE]
    python benchmarks/resample.py FILE

In each trial a baseline is calibrated from some of the recorded runs, and another one is judged by
it, as `pytest --benchmark-compare` would: what is not clear is confirmed by further recorded runs.
Then the same with one benchmark's times, in turn, raised by a fraction: how often it is found.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from kan_impls.bench import gate
from kan_impls.bench.calibrate import run_figures
from kan_impls.bench.limits import CPU_LIMITS
from kan_impls.bench.record import (
    Calibration,
    Measurement,
    Process,
    Run,
    parse_process,
    parse_run,
)
from kan_impls.bench.verdict import Judge, Verdict

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
        ratio_to_mlp=process.ratio_to_mlp and process.ratio_to_mlp * factor,
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
    """Verdicts on the first of the others by the accepted ones; the next ones confirm."""
    baseline = joined(accepted, calibrate=True)
    rest = iter(others)
    judgement = Judge(baseline, None, lambda measurement: CPU_LIMITS)

    def measure(names: Sequence[str]) -> dict[str, Sequence[Process]]:
        more = plant(joined([next(rest)]), slow, factor)
        return {name: more.measurements[name].processes for name in names}

    first = plant(joined([next(rest)]), slow, factor)
    return gate.decide(first, judgement.judge_run, measure)[1]


def report_each(runs: Recorded) -> None:
    """Each run once, by all others but the two after it, which confirm."""
    alarms = []
    for index in range(len(runs)):
        turned = [*runs[index:], *runs[:index]]
        count = 1 + gate.FURTHER_RUNS
        statuses = {verdict.status for verdict in judge(turned[count:], turned[:count])}
        alarms.append("regressed" in statuses)
    print(f"each of {len(runs)} runs judged by the others: {sum(alarms)} with a false alarm")


def report_unchanged(runs: Recorded, size: int, trials: int) -> None:
    generator = random.Random(0)
    counts: Counter[str] = Counter()
    alarms = Counter({"regressed": 0, "improved": 0})
    for _ in range(trials):
        statuses = [verdict.status for verdict in trial(runs, size, generator)]
        counts.update(statuses)
        alarms.update(status for status in alarms if status in statuses)
    total = sum(counts.values())
    print(f"identical code, {trials} trials, baselines of {size} runs:")
    print(f"  any regressed {alarms['regressed'] / trials:.2%}, any improved "
          f"{alarms['improved'] / trials:.2%} of runs")  # fmt: skip
    print("  verdicts: " + ", ".join(f"{n / total:.1%} {status}" for status, n in counts.items()))


def report_planted(runs: Recorded, size: int, trials: int, factor: float) -> None:
    print(f"one benchmark {factor - 1:+.0%}, {trials} trials each: found, not clear")
    for name in names_of(runs):
        generator = random.Random(0)
        found: Counter[str] = Counter()
        for _ in range(trials):
            verdicts = trial(runs, size, generator, name, factor)
            found[next(v.status for v in verdicts if v.name == name)] += 1
        unclear = found["inconclusive"] / trials
        print(f"  {name.split('::')[-1]:60} {found['regressed'] / trials:6.1%} {unclear:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recorded", nargs="+", type=Path)
    parser.add_argument("--baseline-runs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--planted", type=float, nargs="*", default=[0.05, 0.10])
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    runs = [run for path in options.recorded for run in read(path)]
    names = names_of(runs)
    runs = [[{name: part[name] for name in names} for part in run] for run in runs]
    if options.save:
        save(options.save, runs)
    size = min(options.baseline_runs, len(runs) - 1 - gate.FURTHER_RUNS)
    if size < 2:
        parser.error(f"there are {len(runs)} recorded runs; expected 5 or more: record some")
    report_each(runs)
    report_unchanged(runs, size, options.trials)
    for fraction in options.planted:
        report_planted(runs, size, max(20, options.trials // 5), 1 + fraction)


if __name__ == "__main__":
    main()
