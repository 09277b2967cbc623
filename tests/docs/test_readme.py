"""The README shows what the stored baseline holds, in both languages."""

from __future__ import annotations

import json
import re
import runpy
from xml.etree import ElementTree

import pytest

from perfgate.judge.parse import parse_run
from perfgate.judge.record import Run
from perfgate.report.tables import MEMORY, results_markdown
from tests.docs.pages import READMES, ROOT

PICTURE = runpy.run_path(str(ROOT / "docs/picture.py"))


@pytest.fixture(scope="module")
def stored() -> Run:
    """The run that the README shows; not read on import, where its absence would stop every
    benchmark."""
    return parse_run(json.loads(PICTURE["BASELINE"].read_text()))


def _rows(markdown: str) -> dict[str, dict[str, str]]:
    """Of the table of implementations the cells of each row, by column in small letters."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    start = next(i for i, line in enumerate(lines) if line.startswith("| implementation "))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    columns = [name.lower() for name in cells[0]]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in cells[1:]}


def test_table_shows_the_times_of_the_stored_baseline(stored: Run) -> None:
    shown, rows = _rows((ROOT / "README.md").read_text()), _rows(results_markdown(stored))
    assert shown.keys() == rows.keys()
    timed = [column for column in shown["mlp"] if column.endswith((" ms", "/mlp"))]
    assert len(timed) == 8
    for name, row in rows.items():
        assert {c: shown[name][c] for c in timed} == {c: row[c] for c in timed}


def test_table_shows_the_bytes_of_the_code_as_it_is() -> None:
    exact = json.loads((ROOT / "benchmarks/baselines/device_free.json").read_text())
    for name, row in _rows((ROOT / "README.md").read_text()).items():
        own = exact["cases"]["reference"][name]["passes"]["backward"]
        for column, kind in MEMORY.items():
            # Measured on a CPU: up to 20 kB more than without a device.
            assert abs(float(row[column.lower()]) - own[kind] / 1e6) <= 0.02


def test_picture_shows_the_stored_baseline(stored: Run) -> None:
    root = ElementTree.parse(PICTURE["PICTURE"]).getroot()
    described = root.find(".//{http://purl.org/dc/elements/1.1/}description")
    assert described is not None
    assert described.text is not None
    shown = {name: tuple(pair) for name, pair in json.loads(described.text).items()}
    assert shown == PICTURE["figures"](stored)


def test_readme_is_read_in_a_minute() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def _what_no_language_changes(markdown: str) -> dict[str, list[str]]:
    """Commands and code, tables, links, levels of headings, names in code, and figures."""
    prose = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    prose = "\n".join(line for line in prose.splitlines() if not line.startswith("|"))
    prose = prose.replace("10M", "").replace("1000 万", "")
    return {
        "code": re.findall(r"```.*?```", markdown, flags=re.DOTALL),
        "tables": [line for line in markdown.splitlines() if line.startswith("|")],
        "links": sorted(re.findall(r"\]\((?!README)([^)]+)\)", prose)),
        "headings": re.findall(r"^#+", prose, flags=re.MULTILINE),
        "names": sorted(re.findall(r"`[^`]+`", prose)),
        "figures": sorted(re.findall(r"\d[\d.,/]*\d", prose)),
    }


def test_the_readmes_of_both_languages_say_the_same() -> None:
    english, chinese = (_what_no_language_changes(page.read_text()) for page in READMES)
    for kind, found in english.items():
        assert chinese[kind] == found, kind
