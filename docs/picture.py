"""Draws the README's picture, time and memory of each implementation, from a stored baseline.

    python docs/picture.py [BASELINE.json] [PICTURE.svg]

The figures are those of the file; the picture holds them as text too, by which a test knows it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from perfgate.judge.parse import parse_run
from perfgate.judge.record import Run

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/picture.svg"
# The one that README's table shows.
BASELINE = ROOT / (
    "benchmarks/baselines/cpu_zen3-25.1.1_avx2_cores2_torch2.13_threads2_highest/"
    "0005_2558048f42.json"
)
COLOURS = ("#0072B2", "#E69F00")


def figures(run: Run) -> dict[str, tuple[float, float]]:
    """Of each implementation a step's time and the peak of memory, both over the MLP's."""
    steps = {
        measurement.measured["implementation"]: measurement
        for measurement in run.measurements.values()
        if measurement.measured["pass"] == "training_step"
    }
    times = {name: step.beside().get("mlp", 1.0) for name, step in steps.items()}
    peaks = {name: step.memory["backward_peak_bytes"] for name, step in steps.items()}
    return {
        name: (round(times[name], 2), round(peaks[name] / peaks["mlp"], 2))
        for name in sorted(times, key=times.__getitem__)
    }


def caption(run: Run) -> str:
    """Where and when."""
    environment = run.environment
    return (
        f"[1000, 1000, 1] (MLP [1000, 10000, 1]), batch 100, about 10M parameters each; "
        f"{environment['device_model']}, {environment['threads']} threads, "
        f"torch {environment['torch']}, {run.datetime[:10]}"
    )


def draw(run: Run, target: Path) -> None:
    """Write the picture."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "kan-impls", "svg.fonttype": "none", "font.size": 10}
    from matplotlib import pyplot

    of = figures(run)
    titles = ("time of a training step, over the MLP's", "peak of memory, over the MLP's")
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 2.6), sharey=True, layout="constrained")
    for axis, title, colour, column in zip(axes, titles, COLOURS, (0, 1), strict=True):
        values = [pair[column] for pair in of.values()]
        bars = axis.barh(list(of), values, color=colour)
        axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=3)
        axis.set(title=title, xscale="log", xlim=(0.5, 2.2 * max(values)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.axvline(1, color="#808890", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.supxlabel(caption(run), fontsize=8)
    # Without a date the same figures are the same file.
    figure.savefig(target, metadata={"Description": json.dumps(of), "Date": None})


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("baseline", nargs="?", type=Path, default=BASELINE)
    parser.add_argument("picture", nargs="?", type=Path, default=PICTURE)
    given = parser.parse_args()
    draw(parse_run(json.loads(given.baseline.read_text())), given.picture)


if __name__ == "__main__":
    main()
