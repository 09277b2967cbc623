"""The report for what reads JUnit's XML: a test case for each benchmark.

The layout is that of the common junit-10 schema. It has properties for suites only, so that a
test case carries its figures as lines `name=value` of its output; `properties` gives the same
as pairs, for a JUnit file that is written elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from perfgate.judge.exit_codes import FAILING
from perfgate.judge.parse import parse_benchmark
from perfgate.judge.record import BESIDE
from perfgate.plain_text import marked
from perfgate.report.measured import companions, measurement_entry
from perfgate.report.words import SILENT, STATUSES, exit_words, name_parts, status_words

Properties = list[tuple[str, str]]

# What XML 1.0 has no character for.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_FIGURES = (
    "median_ns",
    "ratio",
    "parameters",
    "trainable_parameters",
    "floor_fraction",
    "rounds",
    "disturbed_rounds",
)


def properties(measurement: Mapping[str, Any]) -> Properties:
    """The figures of a measurement of the document, as names and values."""
    found = [(name, measurement[name]) for name in _FIGURES]
    found += [(f"{BESIDE}{n}", measurement[f"{BESIDE}{n}"]) for n in companions([measurement])]
    found += measurement["memory_bytes"].items()
    found.append(("processes", len(measurement["processes"])))
    return [(xml_text(name), xml_text(value)) for name, value in found if value is not None]


def properties_of(name: str, stats: Any) -> Properties:
    """The figures of a benchmark by what pytest-benchmark holds of it, for --junitxml.

    Raises:
        FieldError: its time is none.
    """
    entry = {
        "fullname": name,
        "stats": {"median": stats.stats.median, "rounds": stats.stats.rounds},
        "extra_info": stats.extra_info,
    }
    return properties(measurement_entry(parse_benchmark(entry)))


def properties_by_test(document: Mapping[str, Any]) -> dict[str, Properties]:
    """For each benchmark its figures, and what was judged of it."""
    found = {m["name"]: properties(m) for m in document["measurements"]}
    for verdict in document["verdicts"]:
        judged = [("verdict", verdict["status"]), ("cause", xml_text(verdict["cause"]))]
        found.setdefault(verdict["name"], []).extend(judged)
    return found


def suite_properties(document: Mapping[str, Any]) -> Properties:
    """The run: where, of what, by what it was judged, and how."""
    statuses = [verdict["status"] for verdict in document["verdicts"]]
    baseline = document["baseline"] or {}
    found = [
        ("kan_bench.exit_code", document["exit"]["code"]),
        ("kan_bench.exit_name", document["exit"]["name"]),
        ("kan_bench.kind", document["kind"]),
        ("kan_bench.commit", document["commit"]),
        ("kan_bench.device_key", document["environment"].get("device_key")),
        ("kan_bench.base", document["base"]),
        ("kan_bench.baseline", baseline.get("path")),
        ("kan_bench.baseline_commit", baseline.get("commit")),
        ("kan_bench.false_alarm_probability", document["false_alarm_probability"]),
        *((f"kan_bench.{status}", statuses.count(status)) for status in STATUSES),
    ]
    return [(name, xml_text(value)) for name, value in found if value is not None]


def junit_xml(document: Mapping[str, Any]) -> str:
    """A JUnit file of its own, in which a verdict that must not pass is a failure."""
    cases = list(_cases(document))
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": "kan-bench",
            "tests": str(len(cases)),
            "failures": _count(cases, "failure"),
            "errors": _count(cases, "error"),
            "skipped": _count(cases, "skipped"),
            "time": f"{sum(float(case.get('time', 0)) for case in cases):.9f}",
            "timestamp": xml_text(document["datetime"][:19]),
            "hostname": xml_text(document["environment"].get("device_key", "unknown")),
        },
    )
    facts = ElementTree.SubElement(suite, "properties")
    for name, value in suite_properties(document):
        ElementTree.SubElement(facts, "property", {"name": name, "value": value})
    suite.extend(cases)
    root = ElementTree.Element("testsuites", {"name": "kan-bench"})
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def _cases(document: Mapping[str, Any]) -> Iterator[ElementTree.Element]:
    measurements = {m["name"]: m for m in document["measurements"]}
    verdicts = {verdict["name"]: verdict for verdict in document["verdicts"]}
    figures = properties_by_test(document)
    failing = set(document.get("failing", FAILING))  # which reports of earlier versions lack
    failed = False
    for name in {**verdicts, **measurements}:
        seconds = (measurements.get(name, {}).get("median_ns") or 0) / 1e9
        case = _case(name, seconds)
        if name in verdicts and (outcome := _outcome(verdicts[name], failing)) is not None:
            case.append(outcome)
            failed |= outcome.tag == "failure"
        lines = "\n".join(f"{key}={value}" for key, value in figures[name])
        ElementTree.SubElement(case, "system-out").text = lines
        yield case
    # Otherwise what fails without a verdict, such as an empty run, would look green here.
    if document["exit"]["code"] != 0 and not failed:
        case = _case("kan-bench::exit status", 0)
        message = xml_text(exit_words(document))
        error = {"message": message, "type": document["exit"]["name"].lower()}
        ElementTree.SubElement(case, "error", error).text = message
        yield case


def _outcome(verdict: Mapping[str, Any], failing: set[str]) -> ElementTree.Element | None:
    status = verdict["status"]
    message = xml_text(f"{status_words(status)}: {verdict['cause']}")
    if status in failing:
        outcome = ElementTree.Element("failure", {"message": message, "type": status})
        outcome.text = message
        return outcome
    if status in SILENT:  # a benchmark of which nothing is known did not pass
        return ElementTree.Element("skipped", {"message": message, "type": status})
    return None


def _case(name: str, seconds: float) -> ElementTree.Element:
    """As pytest writes it: the file in dots, and the test."""
    file, function, parameters = name_parts(xml_text(name))
    *place, test = [*([file] if file else []), *function.split("::")]
    classname = ".".join(place).replace(".py", "").replace("/", ".") or "kan-bench"
    test += parameters
    attributes = {"classname": classname, "name": test, "time": f"{seconds:.9f}"}
    return ElementTree.Element("testcase", attributes)


def _count(cases: list[ElementTree.Element], tag: str) -> str:
    return str(sum(case.find(tag) is not None for case in cases))


def xml_text(value: Any) -> str:
    """Text that XML can hold, and that is no more than text to whoever shows it."""
    return _NO_XML.sub("�", marked(str(value)))
