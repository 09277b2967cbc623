"""The GPU check as Markdown, out of its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfgate.judge.parse import parse_process
from perfgate.report.tables import markdown_table

Found = Mapping[str, Any]

LEGEND = """\
Times are medians in microseconds, of the GPU alone, by events, with its cache flushed before; in
the mode `graph` those of replays. On a CPU they are wall time. `/` is the median over rounds of
the time over that of what stands beside, in the same round. `floor` is the fraction reached of the
longer of the library's matrix products of the same sizes in the same precision and a copy of the
same bytes, measured in the same way. Memory is the peak above the level before the forward pass."""

COLUMNS = (
    "case",
    "batch",
    "pass",
    "implementation",
    "µs",
    "/",
    "beside",
    "floor",
    "forward MB",
    "backward MB",
)


def row_of(info: Found) -> dict[str, Any]:
    """A line of the table of times, out of what `measure` leaves with a benchmark."""
    process = parse_process(info["processes"][0], "the benchmark")
    return {
        **info["measured"],
        "median_us": process.median_ns * 1e-3,
        "beside": process.beside,
        "rounds": process.rounds,
        **{key: info[key] for key in ("memory", "floor_fraction", "launches") if key in info},
        "evidence": info.get("evidence", []),
    }


def markdown(found: Found) -> str:
    """Tables of everything that the check found."""
    left_out = found.get("left_out", [])
    steps = {
        name: test
        for name, test in found["tests"].items()
        if "_time[" not in name or (test["status"] != "passed" and name not in left_out)
    }
    parts = [
        "# GPU check",
        f"{'Failed' if found['exit_status'] else 'Passed'} on {_place(found)} in "
        f"{found['seconds']:.0f} s.",
        _steps_table(steps),
        *_details(found),
    ]
    if rows := found.get("kernels"):
        parts.append(_compile_table(rows))
    if rates := found.get("rates"):
        parts.append("## Rates\n\n" + "\n".join(_rates(rates)))
    if rows := found.get("times"):
        parts.append(f"## Times\n\n{LEGEND}\n\n{times_table(rows)}")
    if left_out:
        names = ", ".join(map(_short, left_out))
        parts.append(f"## Left out, since no time was left\n\n{len(left_out)}: {names}")
    return "\n\n".join(parts) + "\n"


def _place(found: Found) -> str:
    machine = found.get("machine", {})
    smi = machine.get("nvidia_smi", {})
    words = [
        smi.get("name") or found.get("device", "an unknown device"),
        f"driver {smi['driver_version']}" if "driver_version" in smi else "",
        *(f"{name} {machine[name]}" for name in ("torch", "cuda", "nvrtc") if machine.get(name)),
    ]
    return ", ".join(filter(None, words))


def _steps_table(tests: Found) -> str:
    rows = [
        [_short(name), test["status"], f"{test['seconds']:.1f}", cell(test.get("reason", ""))]
        for name, test in tests.items()
    ]
    return "## Steps\n\n" + markdown_table(("step", "status", "s", "note"), rows)


def _short(nodeid: str) -> str:
    return nodeid.rpartition("::")[2].removeprefix("test_")


def cell(text: str) -> str:
    """A text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")[:200]


def _details(found: Found) -> Iterator[str]:
    """What the tests of each step failed with and recorded, the sanitizers' words, the doctor's."""
    for name, step in found.get("programs", {}).items():
        tests = step.get("tests", {})
        lines = [f"{key}: {step[key]}" for key in ("passed", "failed", "skipped") if key in step]
        lines = [f"- {', '.join(lines)}"] if lines else []
        lines += [f"- {key}: {step[key]}" for key in ("summary", "planted") if key in step]
        for nodeid, test in tests.items():
            if test["status"] == "failed":
                lines.append(f"- `{nodeid}`: {cell(test['reason'])}")
            lines += [
                f"- {_short(nodeid)}, {k}: {v}" for k, v in test.get("properties", {}).items()
            ]
        if output := step.get("output"):
            lines += ["```", output[-2000:].strip(), "```"]
        yield f"### {name}\n\n" + "\n".join(lines)
    if lines := found.get("machine", {}).get("doctor"):
        yield "## Doctor\n\n```\n" + "\n".join(lines) + "\n```"


def _compile_table(kernels: Mapping[str, Found]) -> str:
    rows = [
        [
            f"`{name}`",
            f"{row['compile_s']:.2f}",
            f"{row['read_s'] * 1e3:.1f}",
            f"{row['read_and_load_s'] * 1e3:.1f}",
            str(row["registers"]),
        ]
        for name, row in kernels.items()
    ]
    total = sum(row["compile_s"] for row in kernels.values())
    columns = ("kernel", "compile s", "from disk ms", "from disk and load ms", "registers")
    return f"## Compiling\n\n{markdown_table(columns, rows)}\n\n{total:.1f} s one by one."


def _rates(rates: Mapping[str, Found]) -> Iterator[str]:
    for precision, rate in rates.items():
        yield (
            f"- {precision}: products {rate['flops_per_s'] / 1e12:,.3g} TFLOP/s, "
            f"copies {rate['bytes_per_s'] / 1e9:,.3g} GB/s"
        )


def times_table(rows: list[dict[str, Any]]) -> str:
    """One line for each measurement. Beside the kernels stands the product form, or the MLP."""
    return markdown_table(COLUMNS, [_line(row) for row in rows])


def _line(row: Found) -> list[str]:
    name, ratio = next(iter(row["beside"].items()), ("", None))
    fraction, memory = row.get("floor_fraction"), row.get("memory", {})
    return [
        row["case"],
        str(row["batch"]),
        row["pass"],
        row["implementation"],
        f"{row['median_us']:.1f}",
        "" if ratio is None else f"{ratio:.3f}",
        name,
        "" if fraction is None else f"{fraction:.0%}",
        *(
            f"{memory[key] / 1e6:.2f}" if key in memory else ""
            for key in ("forward_peak_bytes", "backward_peak_bytes")
        ),
    ]
