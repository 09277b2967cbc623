"""The figures of the page, and their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfgate.judge.record import BESIDE
from perfgate.report.markup import Content, Markup, element, join
from perfgate.report.measured import companions
from perfgate.report.page_parts import number, table
from perfgate.report.words import (
    date,
    device_words,
    factor,
    kind_words,
    megabytes,
    milliseconds,
    short_names,
)


def figure_table(document: Mapping[str, Any]) -> Markup:
    """What was measured, a line for each benchmark."""
    measured = document["measurements"]
    if not measured:
        return element("p", "Nothing was measured.", class_="hint")
    beside = companions(measured)
    kinds = list(dict.fromkeys(kind for entry in measured for kind in entry["memory_bytes"]))
    columns = [
        ("benchmark", False), ("median ms", True), ("over reference", True),
        *((f"over {name}", True) for name in beside),
        *((f"{kind_words(kind)} MB", True) for kind in kinds),
        ("parameters", True), ("floor", True), ("rounds", True), ("disturbed", True),
        ("processes", True),
    ]  # fmt: skip
    short = short_names(entry["name"] for entry in measured)
    lines = [_figure_line(entry, short[entry["name"]], beside, kinds) for entry in measured]
    caption = (
        "Times are medians; memory is the peak above the level before the forward pass, in MB of "
        "10⁶ bytes; floor is the part reached of what the machine itself can do."
    )
    return table("figure-table", caption, columns, lines)


def _figure_line(
    entry: Mapping[str, Any], short: str, beside: Sequence[str], kinds: Sequence[str]
) -> Markup:
    floor = entry["floor_fraction"]
    parameters = entry["parameters"]
    sizes = [entry["memory_bytes"].get(kind) for kind in kinds]
    cells: list[Content] = [
        number(milliseconds(entry["median_ns"]), entry["median_ns"]),
        number(factor(entry["ratio"]), entry["ratio"]),
        *_ratios(entry, beside),
        *(number(megabytes(size), size) for size in sizes),
        number("" if parameters is None else f"{parameters:,}", parameters),
        number("" if floor is None else f"{floor:.0%}", floor),
        number(f"{entry['rounds']:,}", entry["rounds"]),
        number(f"{entry['disturbed_rounds']:,}", entry["disturbed_rounds"]),
        number(str(len(entry["processes"])), len(entry["processes"])),
    ]
    name = element("th", element("code", short, title=entry["name"]), scope="row")
    return element("tr", name, *cells)


def _ratios(entry: Mapping[str, Any], beside: Sequence[str]) -> list[Markup]:
    ratios = [entry.get(f"{BESIDE}{name}") for name in beside]
    return [number(factor(ratio), ratio) for ratio in ratios]


def evidence(document: Mapping[str, Any]) -> Markup:
    """The machine, what the run was compared with, and what each process saw."""
    alarm = document["false_alarm_probability"]
    commands = document["commands"]
    facts: list[tuple[str, Content]] = [
        ("device", device_words(document["environment"])),
        ("baseline", _source(document["baseline"])),
        ("oldest baseline", _source(document["anchor"])),
        ("compared revision", document["base"]),
        ("probability of any false alarm", None if alarm is None else f"{100 * alarm:.3g}%"),
        ("begins a new history, because", document["new_history_because"]),
        ("measure again", element("code", commands["reproduce"])),
        (
            "accept these figures",
            element("code", commands["accept"]) if commands["accept"] else None,
        ),
        *((str(key), str(value)) for key, value in document["environment"].items()),
        *(("note", note) for note in document["notes"]),
    ]
    shown = [join(element("dt", name), element("dd", value)) for name, value in facts if value]
    return join(element("dl", *shown), _processes(document), _pairs(document))


def _source(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return "none"
    parts = [source["path"], f"commit {source['commit'][:10]}", date(source["datetime"])]
    return ", ".join(part for part in parts if part)


def _processes(document: Mapping[str, Any]) -> Markup | None:
    measured = document["measurements"]
    short = short_names(entry["name"] for entry in measured)
    beside = companions(measured)
    lines = [
        _process_line(short[entry["name"]], place, process, entry, beside)
        for entry in measured
        for place, process in enumerate(entry["processes"], start=1)
    ]
    columns = [
        ("benchmark", False), ("process", True), ("median ms", True), ("over reference", True),
        *((f"over {name}", True) for name in beside),
        ("rounds", True), ("disturbed", True), ("seen", False),
    ]  # fmt: skip
    if not lines:
        return None
    caption = "Medians of each process over its undisturbed rounds."
    processes = table("process-table", caption, columns, lines)
    return element("details", element("summary", "What each process measured and saw"), processes)


def _process_line(
    short: str,
    place: int,
    process: Mapping[str, Any],
    entry: Mapping[str, Any],
    beside: Sequence[str],
) -> Markup:
    seen = entry["evidence"][place - 1] if place <= len(entry["evidence"]) else {}
    words = [f"{key} {value}" for key, value in seen.items()]
    return element(
        "tr",
        element("th", element("code", short), scope="row"),
        number(str(place), place),
        number(milliseconds(process["median_ns"]), process["median_ns"]),
        number(factor(process["ratio"]), process["ratio"]),
        *_ratios(process, beside),
        number(f"{process['rounds']:,}", process["rounds"]),
        number(f"{process['disturbed_rounds']:,}", process["disturbed_rounds"]),
        element("td", ", ".join(words)),
    )


def _pairs(document: Mapping[str, Any]) -> Markup | None:
    measured = document["measurements"]
    short = short_names(entry["name"] for entry in measured)
    lines = [
        element(
            "tr",
            element("th", element("code", short[entry["name"]]), scope="row"),
            number(str(place), place),
            number(factor(pair["time_factor"]), pair["time_factor"]),
            number(f"{pair['rounds']:,}", pair["rounds"]),
            number(f"{pair['disturbed_rounds']:,}", pair["disturbed_rounds"]),
        )
        for entry in measured
        for place, pair in enumerate(entry["pairs"], start=1)
    ]
    columns = [
        ("benchmark", False), ("pair", True), ("time", True), ("rounds", True), ("disturbed", True),
    ]  # fmt: skip
    if not lines:
        return None
    earlier = document["base"] or "the earlier code"
    caption = f"Each pair of processes, taking turns: this code over {earlier}."
    pairs = table("pair-table", caption, columns, lines)
    return element("details", element("summary", "What each pair of processes measured"), pairs)
