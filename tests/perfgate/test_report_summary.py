"""The report as Markdown: a step summary, and a comment on a pull request."""

import argparse
import re
import shlex
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from perfgate.judge.parse import parse_run
from perfgate.judge.verdict import MemoryChange, TimeChange, Verdict
from perfgate.options import wanted_baseline
from perfgate.report.document import document
from perfgate.report.summary import LIMIT, escape, summary_markdown
from perfgate.report.words import one_line
from tests.perfgate.runs import BY_STATUS, judged_document, node, run_data

# Names that mean something to Markdown, HTML or GitHub.
HOSTILE = (
    "a|b",
    "`code`",
    "a``b`c",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</details>",
    "</code>",
    "**bold** _slanted_ __init__ a_b_c",
    "~~gone~~",
    "[link](http://a.b)",
    "![image](http://a.b)",
    "[ref]: http://a.b",
    "&lt; &amp; &#124;",
    "\\| \\\\| \\`",
    "$x$ $$y$$",
    "two\nlines\r\nthree",
    "tab\tand\x1b[31m",
    "<!-- comment",
    "http://a.b www.a.b",
    "“ü”—🙂",
    "half \udcff of one",
)
AT_THE_START = ("# heading", "- item", "1. item", "+ item", "---", "=== x", "> quoted", "[ ] box")


class Page(HTMLParser):
    """What a reader of rendered Markdown sees: tags, the text, and the cells of each row."""

    def __init__(self, markdown):
        super().__init__()
        self.tags, self.text, self.rows, self.in_cell = [], "", [], False
        self.feed(MarkdownIt("commonmark").enable("table").enable("strikethrough").render(markdown))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data


def judged(*verdicts, **options):
    usual = {"exit_code": 10, "kind": "compare", "false_alarm": 0.01}
    return document(parse_run(run_data()), verdicts, **{**usual, **options})


def test_the_headline_says_the_outcome_and_the_counts():
    text = summary_markdown(judged_document())
    assert text.splitlines()[0] == "## Benchmarks: Failed: something became slower or larger"
    assert (
        "1 regressed, 1 missing, 1 incomparable, 1 unjudged, 1 inconclusive, 1 no baseline, "
        "1 improved, 1 unchanged. Exit status 10 (regressed)."
    ) in text
    assert "Test CPU, torch 2.13.0, 2 threads, matmul precision highest" in text
    passed = summary_markdown(judged(Verdict("a", "unchanged", "same"), exit_code=0))
    assert passed.startswith("## Benchmarks: Passed: nothing is worse\n")
    unclear = [Verdict("a", "inconclusive", ""), Verdict("b", "no_baseline", "")]
    text = summary_markdown(judged(*unclear, Verdict("c", "improved", ""), exit_code=0))
    assert text.startswith(
        "## Benchmarks: Passed: nothing is known to be worse; 2 of 3 are unclear\n"
    )
    measured = summary_markdown(judged(kind="measure", exit_code=0))
    assert measured.startswith("## Benchmarks: Passed: measured, nothing was judged\n")


def test_what_must_be_looked_at_comes_first_and_the_rest_is_folded():
    text = summary_markdown(judged_document())
    first, folded = text.split("<details>")
    words = [
        "regressed",
        "missing",
        "incomparable",
        "unjudged",
        "inconclusive",
        "no baseline",
        "improved",
    ]
    assert [row[0] for row in Page(first).rows[1:]] == words
    assert [row[0] for row in Page(folded).rows[1:]] == [*words, "unchanged"]
    assert "All 8 verdicts" in folded
    assert folded.count("</details>") == 1


def test_a_row_has_the_figures_that_decided():
    times = [
        TimeChange("ratio", "baseline", "unchanged", 0.01, 0.02, 0.03, 6),
        TimeChange("ratio", "anchor", "regressed", 0.125, 0.05, 0.061, 6, "c" * 40),
    ]
    memory = [
        MemoryChange("saved_bytes", "improved", 1_000_000, 10),
        MemoryChange("backward_peak_bytes", "regressed", 10, 11),
        MemoryChange("forward_peak_bytes", "regressed", 4096, 8192),
    ]
    document = judged(Verdict(BY_STATUS["regressed"], "regressed", "why", times, memory))
    assert Page(summary_markdown(document)).rows[1] == [
        "regressed",
        "reference[efficient_kan-forward]",
        "+12.5%",
        "5.0%",
        "6.1%",
        "+4,096 B",
        "6",
        "why",
    ]


def test_the_evidence_is_told():
    text = Page(summary_markdown(judged_document())).text
    for fact in (
        "device: cpu_test",
        "baseline: benchmarks/baselines/cpu_test/0002_a.json, commit 0123456789, 2026-01-02 03:04",
        "processes for each: 3",
        "rounds that count: 93",
        "rounds dropped, because others used the machine: 45",
        "probability of any false alarm in a run of unchanged code: 1%",
        "kept .benchmarks/last_run.json",
    ):
        assert fact in text


def wanted_by(text):
    """The baseline that the printed command names, and what it runs, as pytest takes them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--benchmark-compare", nargs="?", default=False, const=True)
    parser.add_argument("names", nargs="*")
    (command,) = re.findall("measure again: pytest (.*)", text)
    found = parser.parse_args(shlex.split(command))
    return wanted_baseline(found.benchmark_compare), found.names


def test_the_commands_measure_again_what_is_unclear_and_accept():
    text = Page(summary_markdown(judged_document())).text
    names = " ".join(f"'{BY_STATUS[status]}'" for status in ("regressed", "inconclusive"))
    assert f"measure again: pytest {names} --benchmark-compare" in text
    assert wanted_by(text) == (None, [BY_STATUS["regressed"], BY_STATUS["inconclusive"]])
    assert "accept these figures as the new baseline: kan-bench accept" in text
    many = [Verdict(node(str(number)), "regressed", "slow") for number in range(4)]
    assert (
        "measure again: pytest --benchmark-compare\n" in Page(summary_markdown(judged(*many))).text
    )
    calm = summary_markdown(judged(Verdict("a", "unchanged", "same"), exit_code=0))
    assert "kan-bench accept" not in calm
    two = judged(Verdict("a", "regressed", "slow"), kind="ab", base="v1")
    assert "kan-bench ab v1" in summary_markdown(two)
    assert "accept" not in summary_markdown(two)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_or_cause_is_text_whatever_it_holds(name):
    document = judged(
        Verdict(f"t[{name}]", "regressed", name), Verdict("b", "unchanged", ""), notes=[name]
    )
    page = Page(summary_markdown(document))
    assert {"script", "img", "a", "em", "strong", "s"}.isdisjoint(page.tags)
    assert {len(row) for row in page.rows} == {8}
    assert page.rows[1][1] == f"t[{one_line(name)}]"
    assert page.rows[1][7] == one_line(name).strip()
    assert one_line(name) in page.text.split("Notes")[1]
    assert page.tags.count("details") == 1


@pytest.mark.parametrize("note", AT_THE_START)
def test_a_note_begins_no_block(note):
    document = judged(notes=[note], kind="measure")
    document["environment"] = {"device_model": note}
    page = Page(summary_markdown(document))
    assert page.tags.count("h1") == page.tags.count("ol") == page.tags.count("hr") == 0
    assert page.tags.count("h2") == 1
    assert page.tags.count("blockquote") == 0
    assert page.text.count(note) == 2


def test_what_the_template_does_not_escape_itself_is_escaped():
    report = judged(kind="measure")
    report["datetime"] = "<i>*a* @b</i>"
    page = Page(summary_markdown(report))
    assert {"i", "em"}.isdisjoint(page.tags)
    assert "<i>*a* @b</i> UTC" in page.text


def test_nobody_is_called_and_nothing_linked():
    for text in ("@somebody fix #12", "see http://a.b/c", "WWW.a.b", "x@y.z"):
        assert Page(escape(text)).text.strip() == text
        for call in ("@s", "#1", "http://a", "WWW.a", "@y"):
            assert call not in escape(text)


def test_a_faulty_escape_would_be_seen(monkeypatch):
    monkeypatch.setattr("perfgate.report.summary._SPECIAL", {})
    page = Page(summary_markdown(judged(Verdict("<script>a|b", "regressed", "x"))))
    assert "script" in page.tags
    assert page.rows[1][1] != "<script>a|b"


def long_verdict(number):
    change = TimeChange("ratio", "baseline", "regressed", 0.5, 0.5, 0.02, 0.03, 6)
    memory = [MemoryChange("saved_bytes", "regressed", 0, 4096)]
    name = node(f"kan_{number}|`{'x' * 200}`-forward")
    return Verdict(name, "regressed", "slow " * 40, [change], memory)


@pytest.mark.parametrize("count", [1, 30, 3000])
def test_it_fits_into_a_comment_and_says_what_is_left_out(count):
    text = summary_markdown(judged(*map(long_verdict, range(count))))
    assert len(text.encode()) <= LIMIT
    assert text.count("<details>") == text.count("</details>") == 1
    assert "### Evidence" in text
    shown = text.split("<details>")[0].count("kan_")
    assert shown > 0
    left_out = f"{count - shown} more are not shown here" if shown < count else "All"
    assert left_out in text
    assert f"All {count} verdicts" in text
    assert {len(row) for row in Page(text).rows} == {8}


def test_even_senseless_texts_fit():
    notes = ["|" * 100_000] * 100
    document = judged(Verdict("<" * 100_000, "regressed", "&" * 100_000), notes=notes)
    document["environment"] = {"device_model": "*" * 100_000}
    text = summary_markdown(document, limit=20_000)
    assert len(text.encode()) <= 20_000
    assert "report.json and report.html hold it all" in text
