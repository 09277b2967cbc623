"""The check as Markdown, out of its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perfgate.report.tables import markdown_table

MEASURES = ("cold", "warm", "graph")
Row = Mapping[str, Any]

LEGEND = """\
Times are medians in microseconds, in brackets the quartiles. `cold`: time of the GPU alone, its
cache flushed before each run. `warm`: back to back, the host's launches included. `graph`:
replay of a CUDA graph, back to back. On a CPU `warm` is wall time. `/MLP` is the median over
rounds of the time over the MLP's in the same round. `floor` is the fraction reached of the longer
of the library's matrix products of the same sizes in the same precision and a copy of the same
bytes, measured in the same way. Memory is the peak above the level before the forward pass."""


def markdown(check: Mapping[str, Any]) -> str:
    """Tables of everything that the check found."""
    steps = {step["name"]: step for step in check["steps"]}
    parts = [
        "# GPU check",
        f"{'Failed' if check['exit_status'] else 'Passed'} on {_place(check, steps)} in "
        f"{check['seconds']:.0f} s.",
        _steps_table(check["steps"]),
        *_failures(check["steps"]),
    ]
    if lines := steps.get("environment", {}).get("data", {}).get("doctor"):
        parts.append("## Doctor\n\n```\n" + "\n".join(lines) + "\n```")
    if rows := steps.get("compile", {}).get("data", {}).get("kernels"):
        parts.append(_compile_table(rows))
    if times := steps.get("times", {}).get("data"):
        parts += _times(times)
    return "\n\n".join(parts) + "\n"


def _place(check: Mapping[str, Any], steps: Mapping[str, Any]) -> str:
    data = steps.get("environment", {}).get("data", {})
    smi = data.get("nvidia_smi", {})
    words = [
        smi.get("name") or check["device"],
        f"driver {smi['driver_version']}" if "driver_version" in smi else "",
        f"torch {data['torch']}" if "torch" in data else "",
        f"CUDA {data['cuda']}" if data.get("cuda") else "",
        f"NVRTC {data['nvrtc']}" if "nvrtc" in data else "",
    ]
    return ", ".join(filter(None, words))


def _steps_table(steps: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [s["name"], s["status"], f"{s['seconds']:.1f}", f"{s['limit_s']:.0f}", _note(s)]
        for s in steps
    ]
    return "## Steps\n\n" + markdown_table(("step", "status", "s", "limit s", "note"), rows)


def _note(step: Mapping[str, Any]) -> str:
    data = step["data"]
    notes = [step["reason"], data.get("summary", "")]
    if "passed" in data:
        notes.append(f"{data['passed']} passed, {data['skipped']} skipped")
    return _cell("; ".join(filter(None, notes)))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:200]


def _failures(steps: Iterable[Mapping[str, Any]]) -> list[str]:
    parts = []
    for step in steps:
        data = step["data"]
        lines = [
            f"- `{name}`: {_cell(text)}" for name, text in data.get("failed_tests", {}).items()
        ]
        lines += [f"- {name}: {value}" for name, value in data.get("properties", {}).items()]
        if not lines and step["status"] in ("failed", "timed out") and data.get("output"):
            lines = ["```", data["output"][-2000:].strip(), "```"]
        if lines:
            parts.append(f"### {step['name']}\n\n" + "\n".join(lines))
    return parts


def _compile_table(kernels: Mapping[str, Row]) -> str:
    rows = [
        [
            f"`{name}`", f"{row['compile_s']:.2f}", f"{row['read_s'] * 1e3:.1f}",
            f"{row['read_and_load_s'] * 1e3:.1f}", str(row["registers"]),
        ]
        for name, row in kernels.items()
    ]  # fmt: skip
    total = sum(row["compile_s"] for row in kernels.values())
    columns = ("kernel", "compile s", "from disk ms", "from disk and load ms", "registers")
    return f"## Compiling\n\n{markdown_table(columns, rows)}\n\n{total:.1f} s one by one."


def _times(times: Mapping[str, Any]) -> list[str]:
    size = f"batch {times['batch']}, hidden layer {times['width']} to {times['width']}"
    parts = [f"## Times\n\n{size}.\n\n{LEGEND}", *_rates(times["rates"])]
    for mode, rows in times["steps"].items():
        parts.append(f"### Training step, {mode}\n\n{rows_table(rows)}")
    for mode, passes in times["layer"].items():
        for which, rows in passes.items():
            parts.append(f"### Hidden layer, {which}, {mode}\n\n{rows_table(rows)}")
    if times["sweep"]:
        parts.append(f"### Kernels over product form, by batch\n\n{sweep_table(times['sweep'])}")
    return parts


def _rates(rates: Mapping[str, Row]) -> list[str]:
    lines = []
    for name, row in rates.items():
        if "bytes_per_s" in row:
            lines.append(f"- {name}: {row['bytes_per_s'] / 1e9:,.3g} GB/s")
        elif "flops_per_s" in row:
            lines.append(f"- {name}: {row['flops_per_s'] / 1e12:,.3g} TFLOP/s")
    return ["\n".join(lines)] if lines else []


def rows_table(rows: Mapping[str, Row]) -> str:
    """One line for each implementation and floor."""
    measures = [m for m in MEASURES if any(m in row for row in rows.values())]
    has_memory = any("memory" in row for row in rows.values())
    columns = ["implementation"]
    for measure in measures:
        columns += [f"{measure} µs", "/MLP", "floor"]
    columns += ["forward MB", "backward MB"] if has_memory else []
    return markdown_table(
        [*columns, "note"], [_line(name, row, measures, has_memory) for name, row in rows.items()]
    )


def _line(name: str, row: Row, measures: Sequence[str], has_memory: bool) -> list[str]:
    cells = [name]
    for measure in measures:
        cells += _figures(row.get(measure, {}))
    if has_memory:
        memory = row.get("memory", {})
        for key in ("forward_peak_bytes", "backward_peak_bytes"):
            cells.append(f"{memory[key] / 1e6:.2f}" if key in memory else "")
    errors = row.get("errors", {})
    return [*cells, _cell("; ".join(f"{key}: {text}" for key, text in errors.items()))]


def _figures(figures: Row) -> list[str]:
    if "median_us" not in figures:
        return ["", "", ""]
    low, middle, high = (figures[key] for key in ("low_us", "median_us", "high_us"))
    ratio, fraction = figures.get("ratio"), figures.get("floor_fraction")
    return [
        f"{middle:.1f} ({low:.1f}-{high:.1f})",
        "" if ratio is None else f"{ratio:.3f}",
        "" if fraction is None else f"{fraction:.0%}",
    ]


def sweep_table(cells: Sequence[Row]) -> str:
    """Times of both forms, and kernels over product form: below 1 the kernels are faster."""
    rows = []
    for cell in cells:
        place = [str(cell["rows"]), cell["mode"], cell["kind"], cell.get("pass", "all")]
        if "skipped" in cell:
            rows.append([*place, "", "", cell["skipped"]])
            continue
        found = [cell[backend].get("cold", cell[backend].get("warm", {})) for backend in FORMS]
        times = [f"{f['median_us']:.1f}" if "median_us" in f else "" for f in found]
        ratio = f"{found[0]['ratio']:.3f}" if "ratio" in found[0] else ""
        rows.append([*place, *times, ratio])
    columns = ("rows", "mode", "basis", "pass", "kernels µs", "product µs", "kernels/product")
    return markdown_table(columns, rows)


FORMS = ("fused", "product")
