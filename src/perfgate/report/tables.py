"""The table of what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from perfgate.failures import Failure
from perfgate.judge.record import Measurement, Run
from perfgate.report.measured import (
    heading,
    label,
    measurement_entry,
    not_negative,
    row_key,
    says_all,
    whole,
    work_entry,
)
from perfgate.report.pareto import costs_of
from perfgate.report.words import PASSES, factor, milliseconds

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
# Of tables that have it, before the rest.
ERROR_LEGEND = """\
`error` is the largest difference of output and gradients to those that the same layer gives in
float64, relative to them; only layers from elsewhere have it."""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; the first column to the left, the others to the right."""
    from tabulate import tabulate

    sides = ["left", *["right"] * (len(columns) - 1)]
    return str(tabulate(rows, columns, "pipe", colalign=sides, disable_numparse=True))


def results_markdown(run: Run, failures: Sequence[Failure] = ()) -> str:
    """The run as Markdown: where and when, then a table for each `heading`, and what is fastest and
    smallest there. What failed has a row with the reason."""
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
    failed = _failed_passes(failures)
    for title in dict.fromkeys([*tables, *failed]):
        found = tables.get(title, {})
        all_of = [m for passes in found.values() for m in passes.values()]
        beside = list(dict.fromkeys(name for m in all_of for name in m.beside()))
        has_errors = any("float64_error" in m.info for m in all_of)
        rows = [_result_row(passes, beside, has_errors) for passes in found.values()]
        said = ["\n".join(_add_failed(rows, failed.get(title, {}))), _advice(all_of)]
        columns = list(rows[0])
        table = markdown_table(columns, [[row.get(name, "") for name in columns] for row in rows])
        parts.append("\n\n".join([f"### {title}", table, *filter(None, said)]))
    if any("float64_error" in m.info for m in run.measurements.values()):
        parts.append(ERROR_LEGEND)
    parts.append(LEGEND)
    return "\n\n".join(parts) + "\n"


def _failed_passes(failures: Sequence[Failure]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """By heading and implementation: each reason, and the passes that it is of."""
    found: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(dict))
    for failure in failures:
        work = work_entry(failure.work)
        if says_all(work):
            reasons = found[heading(work)][label(work)]
            reasons.setdefault(failure.reason, []).append(PASSES[work["pass"]])
    return found


def _add_failed(
    rows: list[dict[str, str]], failed: Mapping[str, Mapping[str, list[str]]]
) -> list[str]:
    """Mark the row of each implementation that failed; one of its own where nothing else is known
    of it. The reasons, a line each."""
    said = []
    for name, reasons in failed.items():
        own = [row for row in rows if row["implementation"].split(" (")[0] == name]
        passes = "" if not own else ", ".join(p for found in reasons.values() for p in found) + " "
        if not own:
            rows.append({"implementation": name})
        (own or rows)[-1]["implementation"] += f" ({passes}failed)"
        said += [f"- {name} failed, {', '.join(of)}: {reason}" for reason, of in reasons.items()]
    return said


def _advice(measurements: Sequence[Measurement]) -> str:
    """The fastest and the smallest of several rows; empty where a step of fewer is known."""
    costs = costs_of([measurement_entry(measurement) for measurement in measurements])
    if len(costs) < 2:
        return ""
    fastest, (time, _) = min(costs, key=lambda row: row[1][0])
    smallest, (_, size) = min(costs, key=lambda row: row[1][1])
    return (
        f"Fastest: {fastest}, {milliseconds(time * 1e6)} ms a step. Smallest: {smallest}, "
        f"{size:,.2f} MB with its parameters."
    )


def is_results_table(text: str) -> bool:
    """Whether a text is one of `results_markdown`, of this or an earlier run."""
    return text.startswith("Measured ") and text.rstrip().endswith(
        "where the machine was slower then."
    )


def _result_row(
    passes: Mapping[str, Measurement], beside: Sequence[str], has_errors: bool
) -> dict[str, str]:
    """Cells by their columns; empty where nothing was measured."""
    of_pass = [passes.get(name) for name in PASSES]
    any_pass = next(iter(passes.values()))
    memory, info = passes.get("backward", any_pass).memory, any_pass.info
    name, version = label(work_entry(any_pass.measured)), info.get("package_version")
    row = {"implementation": f"{name} ({version}, external)" if version else name}
    if has_errors:
        error = not_negative(info.get("float64_error"))
        row["error"] = "" if error is None else f"{error:.1e}"
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
