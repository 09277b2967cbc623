"""The table of what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from perfgate.judge.record import Measurement, Run
from perfgate.report.measured import (
    heading,
    label,
    not_negative,
    row_key,
    says_all,
    whole,
    work_entry,
)
from perfgate.report.words import PASSES, factor

# How columns call the passes; ratios are shorter.
_SHORT = ("fwd", "bwd", "bwd+dx", "step")
MEMORY = {
    "forward MB": "forward_peak_bytes",
    "backward MB": "backward_peak_bytes",
    "saved MB": "saved_bytes",
}

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
    """The run as Markdown: where and when, then a table for each `heading`."""
    tables: dict[str, dict[str, dict[str, Measurement]]] = defaultdict(dict)
    for measurement in run.measurements.values():
        work = work_entry(measurement.measured)
        if says_all(work):
            passes = tables[heading(work)].setdefault(row_key(work), {})
            passes[work["pass"]] = measurement
    environment = run.environment
    parts = [
        f"Measured {run.datetime[:19]} UTC at commit {run.commit[:10]} on "
        f"{environment.get('device_model', 'an unknown device')}, "
        f"torch {environment.get('torch', 'unknown')}, {environment.get('threads', '?')} threads, "
        f"matmul precision {environment.get('matmul_precision', 'unknown')}."
    ]
    for title, found in tables.items():
        all_of = [m for passes in found.values() for m in passes.values()]
        beside = list(dict.fromkeys(name for m in all_of for name in m.beside()))
        rows = [_result_row(passes, beside) for passes in found.values()]
        table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
        parts.append(f"### {title}\n\n{table}")
    parts.append(LEGEND)
    return "\n\n".join(parts) + "\n"


def is_results_table(text: str) -> bool:
    """Whether a text is one of `results_markdown`, of this or an earlier run."""
    return text.startswith("Measured ") and text.rstrip().endswith(
        "where the machine was slower then."
    )


def _result_row(passes: Mapping[str, Measurement], beside: Sequence[str]) -> dict[str, str]:
    """Cells by their columns; empty where nothing was measured."""
    of_pass = [passes.get(name) for name in PASSES]
    any_pass = next(iter(passes.values()))
    memory, info = passes.get("backward", any_pass).memory, any_pass.info
    name, version = label(work_entry(any_pass.measured)), info.get("package_version")
    row = {"implementation": f"{name} {version}" if version else name}
    for column, measurement in zip(PASSES.values(), of_pass, strict=True):
        row[f"{column} ms"] = f"{measurement.median_ns / 1e6:.2f}" if measurement else ""
    for column, kind in MEMORY.items():
        row[column] = f"{memory[kind] / 1e6:.2f}" if kind in memory else ""
    row["parameters"] = f"{whole(info.get('parameters')) or 0:,}"
    row["trainable"] = f"{whole(info.get('trainable_parameters')) or 0:,}"
    for name in beside:  # which itself has no ratio
        for column, measurement in zip(_SHORT, of_pass, strict=True):
            ratios = measurement.beside() if measurement else {}
            row[f"{column}/{name}"] = factor(ratios.get(name))
    for column, measurement in zip(_SHORT[:2], of_pass, strict=False):
        fraction = not_negative(measurement.info.get("floor_fraction")) if measurement else None
        row[f"{column} floor"] = "" if fraction is None else f"{fraction:.0%}"
    return row
