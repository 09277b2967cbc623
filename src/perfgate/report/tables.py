"""The table of what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from perfgate.judge.record import Measurement, Run
from perfgate.report.measured import not_negative, whole, work_entry
from perfgate.report.words import factor

_RESULT_COLUMNS = (
    "implementation",
    "forward ms",
    "backward ms",
    "backward+dx ms",
    "step ms",
    "forward MB",
    "backward MB",
    "saved MB",
    "parameters",
    "trainable",
)
# Over each companion; and at the end.
_RATIO_COLUMNS = ("fwd", "bwd", "bwd+dx", "step")
_FLOOR_COLUMNS = ("fwd floor", "bwd floor")

LEGEND = """\
Times are medians. Memory is the peak above the level before the forward pass, in MB of
10^6 bytes; backward includes what forward keeps, and the gradients. `backward+dx` is with
the gradient of the input. `/mlp` is the median over rounds of the time over the MLP's in the
same round, and so for any other name. `floor` is the fraction reached of what the machine
itself needs: the longer of a matrix product of the same size and a copy of the same bytes,
taken once for each size; it exceeds 100% where the machine was slower then."""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; the first column to the left, the others to the right."""
    from tabulate import tabulate

    sides = ["left", *["right"] * (len(columns) - 1)]
    return str(tabulate(rows, columns, "pipe", colalign=sides, disable_numparse=True))


def results_markdown(run: Run) -> str:
    """The run as Markdown: where and when, then a table for each case."""
    cases: dict[tuple[str, int], dict[str, dict[str, Measurement]]] = defaultdict(dict)
    for measurement in run.measurements.values():
        of = work_entry(measurement.measured)
        if {"case", "batch", "implementation", "pass"} <= of.keys():
            passes = cases[of["case"], of["batch"]].setdefault(of["implementation"], {})
            passes[of["pass"]] = measurement
    environment = run.environment
    parts = [
        f"Measured {run.datetime[:19]} UTC at commit {run.commit[:10]} on "
        f"{environment.get('device_model', 'an unknown device')}, "
        f"torch {environment.get('torch', 'unknown')}, {environment.get('threads', '?')} threads, "
        f"matmul precision {environment.get('matmul_precision', 'unknown')}."
    ]
    for (case, batch), implementations in cases.items():
        all_of = [m for passes in implementations.values() for m in passes.values()]
        beside = list(dict.fromkeys(name for m in all_of for name in m.beside()))
        ratios = [f"{part}/{name}" for name in beside for part in _RATIO_COLUMNS]
        rows = [_result_row(name, passes, beside) for name, passes in implementations.items()]
        table = markdown_table([*_RESULT_COLUMNS, *ratios, *_FLOOR_COLUMNS], rows)
        parts.append(f"### {case}, batch {batch}\n\n{table}")
    parts.append(LEGEND)
    return "\n\n".join(parts) + "\n"


def is_results_table(text: str) -> bool:
    """Whether a text is one of `results_markdown`, of this or an earlier run."""
    return text.startswith("Measured ") and text.rstrip().endswith(
        "where the machine was slower then."
    )


def _result_row(
    implementation: str, passes: Mapping[str, Measurement], beside: Sequence[str]
) -> list[str]:
    forward = passes.get("forward")
    backward = passes.get("backward")
    with_dx = passes.get("backward_with_input_grad")
    step = passes.get("training_step")
    any_pass = next(iter(passes.values()))
    memory = (backward or any_pass).memory
    name = implementation
    if version := any_pass.info.get("package_version"):
        name += f" {version}"
    return [
        name,
        *(_ms(measurement) for measurement in (forward, backward, with_dx, step)),
        *(
            _mb(memory.get(kind))
            for kind in ("forward_peak_bytes", "backward_peak_bytes", "saved_bytes")
        ),
        f"{whole(any_pass.info.get('parameters')) or 0:,}",
        f"{whole(any_pass.info.get('trainable_parameters')) or 0:,}",
        *(_ratio(m, name) for name in beside for m in (forward, backward, with_dx, step)),
        *(_fraction(measurement) for measurement in (forward, backward)),
    ]


def _ms(measurement: Measurement | None) -> str:
    return "" if measurement is None else f"{measurement.median_ns / 1e6:.2f}"


def _mb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.2f}"


def _ratio(measurement: Measurement | None, name: str) -> str:
    """Over a companion, which itself has none."""
    return "" if measurement is None else factor(measurement.beside().get(name))


def _fraction(measurement: Measurement | None) -> str:
    fraction = None if measurement is None else measurement.info.get("floor_fraction")
    known = not_negative(fraction)
    return "" if known is None else f"{known:.0%}"
