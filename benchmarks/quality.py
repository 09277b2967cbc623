"""How well networks of equal size learn: after equal steps, and after equal time.

    python benchmarks/quality.py [--out DIR] [--tasks NAME ...] [--implementations NAME ...]

Data sets of scikit-learn (the extra `quality`) and formulas. Each implementation is a network with
one hidden layer, as wide as a number of parameters allows, trained by Adam at the learning rate
that is best for it on a part of the training data that is held back. Equal time is the time in
which the MLP takes all steps. Times are those of this machine: leave it alone meanwhile.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kan_impls
from kan_impls.mlp import MLP
from perfgate.report.tables import markdown_table

PARAMETERS = 4000
STEPS = 400
BATCH = 256
SEEDS = 5
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
# Of the steps with which a learning rate is chosen.
CHOOSING_PART = 0.5
HELD_BACK = 0.2
# Errors are taken so often; equal time is told to such a part of all steps.
POINTS = 20


@dataclass(frozen=True)
class Task:
    """What is learned. Inputs are within [-1, 1], targets of a regression have deviation 1.

    Args:
        name: what tables call it.
        x, y: to learn from, shapes `(rows, inputs)` and `(rows, 1)`, or classes of shape `(rows,)`.
        unseen_x, unseen_y: to be judged by.
    """

    name: str
    x: Tensor
    y: Tensor
    unseen_x: Tensor
    unseen_y: Tensor

    @property
    def is_classification(self) -> bool:
        return not self.y.dtype.is_floating_point

    @property
    def outputs(self) -> int:
        return int(self.y.max()) + 1 if self.is_classification else 1

    def loss(self, found: Tensor, wanted: Tensor) -> Tensor:
        if self.is_classification:
            return F.cross_entropy(found, wanted)
        return F.mse_loss(found, wanted)

    def error(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        """The part of wrong classes; or the deviation from the target over that of the target."""
        model.eval()
        with torch.no_grad():
            found = model(x)
        model.train()
        if self.is_classification:
            return float((found.argmax(1) != y).float().mean())
        return float((found - y).square().mean().sqrt() / y.std())

    def without_held_back(self) -> "Task":
        """The training data alone, a part of which is to be judged by."""
        rows = round(len(self.x) * (1 - HELD_BACK))
        parts = (self.x[:rows], self.y[:rows], self.x[rows:], self.y[rows:])
        return Task(self.name, *parts)


FORMULAS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "exp(sin πx + y²)": (2, lambda x: torch.exp(torch.sin(math.pi * x[:, 0]) + x[:, 1] ** 2)),
    "sin(12 x) + y": (2, lambda x: torch.sin(12 * x[:, 0]) + x[:, 1]),
    "x y + z w": (4, lambda x: x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3]),
}
DATA_SETS = ("digits", "wine", "diabetes")


def task_called(name: str) -> Task:
    """A formula, at 1000 random points, or a data set, of which a quarter is unseen.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    generator = torch.Generator().manual_seed(0)
    if name in FORMULAS:
        inputs, formula = FORMULAS[name]
        x = 2 * torch.rand(2000, inputs, generator=generator) - 1
        y, rows = formula(x).unsqueeze(1), 1000
    else:
        from sklearn import datasets

        data = getattr(datasets, f"load_{name}")()
        order = torch.randperm(len(data.data), generator=generator)
        x, y = torch.tensor(data.data)[order].float(), torch.tensor(data.target)[order]
        y = y.float().unsqueeze(1) if name == "diabetes" else y.long()
        rows = len(x) * 3 // 4
    low, high = x[:rows].amin(0), x[:rows].amax(0)
    x = 2 * (x - low) / (high - low).clamp(min=1e-9) - 1
    if y.dtype.is_floating_point:
        y = (y - y[:rows].mean()) / y[:rows].std()
    # Unseen inputs may be outside.
    return Task(name, x[:rows], y[:rows], x[rows:].clamp(-1, 1), y[rows:])


def widths_of(name: str, task: Task, parameters: int = PARAMETERS) -> list[int]:
    """One hidden layer, of as many features as `parameters` allow; one at least."""

    def count(hidden: int) -> int:
        with torch.device("meta"):
            model = model_of(name, [task.x.shape[1], hidden, task.outputs])
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    low, high = 1, parameters
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle - 1)
    return [task.x.shape[1], low, task.outputs]


@dataclass(frozen=True)
class Point:
    """Where a training stands: seconds are those of steps alone."""

    step: int
    seconds: float
    error: float


def model_of(name: str, widths: Sequence[int]) -> nn.Module:
    """A network; the MLP without the sigmoid of the published comparison."""
    return MLP(widths, sigmoid=False) if name == "mlp" else kan_impls.create_model(name, widths)


def train(
    name: str, widths: Sequence[int], task: Task, rate: float, seed: int, steps: int
) -> list[Point]:
    """Points of a training, the last of which is after all steps."""
    torch.manual_seed(seed)
    model = model_of(name, widths)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    points, seconds = [], 0.0
    for step in range(1, steps + 1):
        rows = torch.randperm(len(task.x))[:BATCH]
        start = time.perf_counter()
        optimizer.zero_grad()
        task.loss(model(task.x[rows]), task.y[rows]).backward()
        optimizer.step()
        seconds += time.perf_counter() - start
        if step % max(1, steps // POINTS) == 0 or step == steps:
            points.append(Point(step, seconds, task.error(model, task.unseen_x, task.unseen_y)))
    return points


@dataclass(frozen=True)
class Result:
    """Trainings of an implementation, one from each seed."""

    implementation: str
    widths: Sequence[int]
    rate: float
    trainings: Sequence[Sequence[Point]]

    def after_all_steps(self) -> list[float]:
        return [points[-1].error for points in self.trainings]

    def after(self, seconds: float) -> list[float]:
        """Errors at the last point within that time; of none, at the first one."""
        return [
            next((p.error for p in reversed(points) if p.seconds <= seconds), points[0].error)
            for points in self.trainings
        ]

    def seconds(self) -> float:
        return statistics.median(points[-1].seconds for points in self.trainings)


def best_rate(name: str, widths: Sequence[int], task: Task, steps: int) -> float:
    """The learning rate with the least error on what is held back."""
    own = task.without_held_back()
    errors = {
        rate: train(name, widths, own, rate, seed=1000, steps=max(1, round(steps * CHOOSING_PART)))
        for rate in LEARNING_RATES
    }
    # An error that is no number is not the least.
    return min(
        errors, key=lambda rate: (math.isnan(errors[rate][-1].error), errors[rate][-1].error)
    )


def compare(
    task: Task, names: Sequence[str], steps: int, seeds: int, say: Callable[[str], None]
) -> list[Result]:
    """Trainings of all implementations, seed by seed in turns: a machine that drifts meets all."""
    shapes = {name: widths_of(name, task) for name in names}
    rates = {}
    for name in names:
        say(f"{task.name}: the learning rate of {name}")
        rates[name] = best_rate(name, shapes[name], task, steps)
    trainings: dict[str, list[list[Point]]] = {name: [] for name in names}
    for seed in range(seeds):
        say(f"{task.name}: seed {seed + 1} of {seeds}")
        for name in names:
            trainings[name].append(train(name, shapes[name], task, rates[name], seed, steps))
    return [Result(name, shapes[name], rates[name], trainings[name]) for name in names]


def table(task: Task, results: Sequence[Result]) -> str:
    """Errors in percent, the least first."""
    of_mlp = next((r.seconds() for r in results if r.implementation == "mlp"), math.inf)
    unit = "wrong classes, %" if task.is_classification else "error over deviation, %"
    rows = [
        [
            result.implementation,
            " -> ".join(map(str, result.widths)),
            f"{result.rate:g}",
            _spread(result.after_all_steps()),
            _spread(result.after(of_mlp)),
            f"{1e3 * result.seconds() / result.trainings[0][-1].step:.2f}",
        ]
        for result in sorted(results, key=lambda r: statistics.median(r.after_all_steps()))
    ]
    headings = ["implementation", "widths", "rate", "equal steps", "equal time", "step ms"]
    about = f"{len(task.x)} rows, {unit}: the median of {len(results[0].trainings)} seeds (all)"
    return f"### {task.name}\n\n{about}\n\n{markdown_table(headings, rows)}\n"


def _spread(errors: Sequence[float]) -> str:
    median, low, high = (100 * f(errors) for f in (statistics.median, min, max))
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def default_implementations() -> list[str]:
    """One form of each: the fused one is the same function, and no slower."""
    names = kan_impls.list_variants()
    return [name for name in names if f"fused_{name}" not in names]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("quality"), help="where results go")
    tasks, names = [*FORMULAS, *DATA_SETS], default_implementations()
    parser.add_argument("--tasks", nargs="+", default=tasks, choices=tasks, metavar="NAME")
    parser.add_argument("--implementations", nargs="+", default=names, metavar="NAME")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)

    def say(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    tables, found = [], {}
    for name in options.tasks:
        task = task_called(name)
        results = compare(task, options.implementations, options.steps, options.seeds, say)
        tables.append(table(task, results))
        found[name] = [asdict(result) for result in results]
        # After each task, so that what is ended early has something.
        (options.out / "quality.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.out / "quality.md").write_text("\n".join(tables))
    print("\n".join(tables))


if __name__ == "__main__":
    main()
