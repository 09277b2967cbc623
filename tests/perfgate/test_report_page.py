"""The page as it is written; what a browser makes of it is tested beside."""

import base64
import copy
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from perfgate.judge.parse import parse_run
from perfgate.judge.verdict import Verdict
from perfgate.report.document import document
from perfgate.report.figures import case_sections
from perfgate.report.growth import growth_sections, is_growth
from perfgate.report.history import history_section
from perfgate.report.measured import label, says_all
from perfgate.report.page import page
from perfgate.report.plot import log_axis, looks, new_figure
from perfgate.report.templates import template
from tests.perfgate.runs import (
    BY_STATUS,
    benchmark,
    growth_data,
    histories,
    judged_document,
    judged_runs,
    run_data,
)

HOSTILE = "x.py::test_x[<script>alert(1)</script>&<!--\"'|]"
VOID = {"meta", "input", "br"}


class Reader(HTMLParser):
    """Tags with their attributes, visible text, and the contents of scripts by id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.scripts, self.cells = [], [], "", {}, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts[dict(attributes).get("id")] = ""
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            key = next(reversed([a.get("id") for t, a in self.tags if t == "script"]))
            self.scripts[key] += data
        elif "style" not in self.open:
            self.text += data
            if {"td", "th"} & {*self.open}:
                self.cells[-1][-1] += data


@pytest.fixture(autouse=True)
def _short_plotly(monkeypatch):
    """5 MB less for each page; the browser's test has the real one."""
    monkeypatch.setattr("perfgate.report.page._plotly_js", lambda: "let plotly;")


def measured(data):
    return document(parse_run(data), [], exit_code=0, kind="measure")


def test_the_heading_says_device_commit_and_date():
    reader = Reader(page(judged_document()))
    assert "Benchmarks on Test CPU" in reader.text
    assert "Commit fedcba9876, measured 2026-02-03 04:05:06 UTC" in reader.text
    assert "Failed: something became slower or larger" in reader.text
    assert "Exit status 10, regressed." in reader.text


@pytest.mark.parametrize(
    ("statuses", "code", "mark"),
    [
        (["unchanged"], 0, "passed"),
        (["unchanged", "inconclusive"], 0, "unclear"),
        (["regressed", "inconclusive"], 10, "failed"),
    ],
)
def test_what_is_unclear_does_not_look_passed(statuses, code, mark):
    verdicts = [Verdict(status, status, "") for status in statuses]
    report = document(parse_run(run_data()), verdicts, exit_code=code, kind="compare")
    classes = [a.get("class") for _, a in Reader(page(report)).tags]
    assert f"outcome {mark}" in classes


def test_the_verdicts_can_be_read_without_scripts():
    reader = Reader(page(judged_document()))
    rows = reader.cells[1 : 1 + len(BY_STATUS)]
    words = [
        "regressed",
        "missing",
        "incomparable",
        "unjudged",
        "inconclusive",
        "no baseline",
        "improved",
        "unchanged",
    ]
    assert [row[0] for row in rows] == words
    name, change, limit, _, memory, processes = rows[0][1:7]
    assert name == "reference[efficient_kan-forward]"
    assert (change, limit, memory, processes) == ("+100%", "3.0%", "+4,096 B", "4")
    for part in (
        "time +100%, limit 3.0%, not excluded up to 90.0%, 4 pairs of processes: regressed, ",
        "in turns with the code of the baseline, cccccccccc",
        "time over reference +100%, limit 2.0%, not excluded up to ",
        ", 3 processes: inconclusive, against the baseline",
        "against the oldest baseline",
        "forward peak 4,096 B to 8,192 B (+4,096 B): regressed",
        BY_STATUS["regressed"],
    ):
        assert part in rows[0][7]
    hidden = [attributes for tag, attributes in reader.tags if "hidden" in attributes]
    assert [attributes["id"] for attributes in hidden] == ["controls"]


def test_the_figures_and_the_evidence_are_tables():
    reader = Reader(page(judged_document()))
    row = next(row for row in reader.cells if row[0] == "reference[efficient_kan-forward]")
    assert row[1:] == ["4.00", "2.000", "3.000", "0.01", "0.00", "1,234,567", "50%", "15", "3", "3"]
    for part in (
        "waited_ns 12, stolen_ns 0",
        "0002_a.json",
        "kan-bench accept",
        "kept .benchmarks/last_run.json",
        "matmul precision highest",
        "1%",
    ):
        assert part in reader.text


def test_two_revisions_show_their_pairs():
    pairs = parse_run(run_data(BY_STATUS["unchanged"], ratio=1.01))
    reader = Reader(page(judged_document(kind="ab", base="v1 & v2", pairs=pairs), histories()))
    assert "taking turns: this code over v1 & v2" in reader.text
    assert "time, over that of v1 & v2 +100%" in reader.text
    assert "History" not in reader.text


def test_a_name_is_text_whatever_it_holds():
    data = run_data(HOSTILE, "plain")
    data["benchmarks"][0]["extra_info"]["measured"] |= {"implementation": HOSTILE, "case": HOSTILE}
    data["machine_info"]["perfgate"]["device_model"] = HOSTILE
    usual = page(judged_document(now=run_data("b", "plain"), before=run_data("b", "plain")))
    report = judged_document(now=data, before=data, notes=[HOSTILE, "{{script}}"])
    report["commands"]["reproduce"] = HOSTILE
    text = page(report, [parse_run({**data, "datetime": HOSTILE})])
    count = len([1 for tag, _ in Reader(usual).tags if tag == "script"])
    reader = Reader(text)
    scripts = [attributes for tag, attributes in reader.tags if tag == "script"]
    assert len(scripts) == count + 1  # the data of the history
    assert "<script>alert" not in text
    assert reader.text.count("<script>alert(1)</script>") > 5
    assert "{{script}}" in reader.text
    assert not any(attribute.startswith("on") for _, found in reader.tags for attribute in found)
    drawn = json.loads(reader.scripts["plot-data"])
    names = {trace["name"] for plot in drawn.values() for trace in plot["data"]}
    # plotly reads tags in names, but shows entities as what they stand for.
    assert any("&lt;script&gt;" in name for name in names)
    assert not any("<" in name for name in names)


def test_a_template_without_autoescape_would_be_seen(monkeypatch):
    def unsafe(name, as_text, autoescape):
        assert autoescape
        return template(name, as_text, autoescape=False)

    monkeypatch.setattr("perfgate.report.page.template", unsafe)
    with pytest.raises(AssertionError):
        test_a_name_is_text_whatever_it_holds()


def test_what_html_has_no_character_for_is_replaced():
    name = "a\x00\x1b\udcff\u202eb"
    reader = Reader(page(judged_document(now=run_data(name), before=run_data("b"), notes=[name])))
    assert "a\ufffd\ufffd\ufffd\ufffdb" in reader.text
    assert name not in reader.text


def test_data_of_the_script_cannot_end_it():
    text = page(judged_document(now=run_data(HOSTILE), before=run_data(HOSTILE)), histories())
    for key in re.findall(r'<script type="application/json" id="([^"]+)">', text):
        data = text.split(f'id="{key}">')[1].split("</script>")[0]
        assert not set("<>&") & {*data}
        assert json.loads(data)


def test_the_scripts_of_the_policy_are_those_of_the_page(monkeypatch):
    """With a second copy of markupsafe, too, as a test that runs pytest inside pytest leaves it."""
    text = page(judged_document())
    for name in [name for name in sys.modules if name.split(".")[0] == "markupsafe"]:
        monkeypatch.delitem(sys.modules, name)
    again = page(judged_document())
    assert again == text
    allowed = set(re.findall("sha256-[^&]+=", text))
    scripts = re.findall("<script>(.*?)</script>", text, flags=re.DOTALL)
    assert {
        f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
        for script in scripts
    } == allowed


def test_nothing_of_the_page_is_elsewhere():
    text = page(judged_document(), histories())
    reader = Reader(text)
    links = [
        value
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "poster", "srcset")
    ]
    assert all(link.startswith("#") for link in links)
    assert len(links) > 3
    assert "url(" not in text
    assert "@import" not in text
    policy = next(a["content"] for _, a in reader.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_each_section_can_be_reached():
    reader = Reader(page(judged_document(now=growth_data()), histories()))
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len({*ids})
    links = [attributes["href"][1:] for tag, attributes in reader.tags if tag == "a"]
    assert {*links} <= {*ids}
    assert len(links) == 3 + 4 + 1  # and the growing series, and the history


def sections_of(report, history=()):
    works = [entry["measured"] for entry in report["measurements"]]
    known = looks(label(work) if says_all(work) else "" for work in works)
    return [
        *case_sections(report["measurements"], known, is_growth),
        *growth_sections(report, history, known),
        *filter(None, [history_section(report, history)]),
    ]


def all_plots():
    plain = run_data("x.py::test_a", "x.py::test_b")
    for entry in plain["benchmarks"]:
        entry["extra_info"] = {}
    reports = [judged_document(), measured(growth_data()), measured(plain)]
    return [
        plot
        for report in reports
        for section in sections_of(report, histories())
        for plot in section.plots
    ]


def test_every_axis_has_a_unit_and_plotly_knows_every_attribute():
    plots = all_plots()
    assert len(plots) > 15
    for plot in plots:
        drawn = plot.json
        assert drawn["data"]
        axes = {name: axis for name, axis in drawn["layout"].items() if "axis" in name}
        assert len(axes) >= 2
        for axis in axes.values():
            if axis.get("type") != "category":
                title = axis["title"]["text"]
                assert re.search(r", |time over|commit", title), title
        assert len(plot.alt) > 30
    with pytest.raises(ValueError, match="colour"):
        new_figure(300).add_scatter(colour="red")


def test_the_plots_of_a_case_show_its_figures():
    data = run_data()
    for implementation, ratio in (("mlp", 1), ("fused", 2)):
        for pass_name in ("training_step", "forward", "backward_with_input_grad"):
            entry = benchmark(f"{implementation} {pass_name}", implementation, pass_name, ratio)
            entry["extra_info"]["memory"] = {"backward_peak_bytes": 3_000_000 * ratio}
            data["benchmarks"].append(entry)
    (section,) = sections_of(measured(data))
    assert section.title == "reference, batch 100"
    assert section.text == "Widths: 1000 → 1000 → 1 (mlp, fused)."
    alt = section.plots[0].alt
    time, memory, pareto, ratio = (plot.json for plot in section.plots)
    assert [trace["name"] for trace in pareto["data"][1:]] == ["mlp", "fused"]
    fused = time["data"][1]
    assert (fused["name"], fused["x"][0], fused["y"][0]) == ("fused", pytest.approx(4.0), "step")
    assert fused["error_x"]["array"][0] == pytest.approx(1e-6)
    assert time["layout"]["yaxis"]["categoryarray"] == ["forward", "backward+dx", "step"]
    assert time["layout"]["yaxis"]["autorange"] == "reversed"  # the first one on top
    assert memory["data"][1]["y"] == ["backward peak", "backward+dx peak"]
    assert memory["data"][1]["x"] == [6.0, 6.0]
    assert [trace["name"] for trace in ratio["data"]] == ["fused"]
    assert ratio["data"][0]["x"] == [3.0, 3.0, 3.0]
    assert ratio["layout"]["shapes"][0]["x0"] == 1
    assert "fused 4 to 4" in alt
    colours = {trace["marker"]["color"] for trace in time["data"]}
    symbols = {trace["marker"]["symbol"] for trace in time["data"]}
    assert len(colours) == len(symbols) == 2


def test_figures_of_two_timers_share_no_plot():
    data, events = run_data("mlp"), run_data("mlp graph", "mlp")
    events["benchmarks"][0]["extra_info"]["measured"] |= {"implementation": "mlp", "mode": "graph"}
    for entry in events["benchmarks"]:
        entry["fullname"] += " by events"
        entry["extra_info"]["measured"]["timer"] = "events"
    data["benchmarks"] += events["benchmarks"]
    wall, by_events = sections_of(measured(data))
    assert by_events.title == f"{wall.title}, timer events"
    names = [[trace["name"] for trace in s.plots[0].json["data"]] for s in (wall, by_events)]
    assert names == [["mlp"], ["mlp graph", "mlp"]]


def test_growth_by_two_timers_is_drawn_twice():
    data, events = growth_data(), growth_data()
    for entry in events["benchmarks"]:
        entry["fullname"] += " by events"
        entry["extra_info"]["measured"]["timer"] = "events"
    data["benchmarks"] += events["benchmarks"]
    titles = [plot.title for plot in sections_of(measured(data))[0].plots]
    assert len(titles) == 12
    assert titles[6] == "forward, timer events: time"


def test_a_history_has_only_figures_of_one_timer():
    old, now = run_data("a"), run_data("a")
    now["commit_info"]["id"] = "f" * 40
    now["benchmarks"][0]["extra_info"]["measured"]["timer"] = "events"
    found = sections_of(measured(now), [parse_run(old), parse_run(old)])
    assert "in 1 runs" in found[-1].plots[0].alt


def test_growth_is_drawn_over_what_grows():
    sections = sections_of(measured(growth_data()))
    titles = [section.title for section in sections]
    grown = ["Growth with batch", "Growth with width", "Growth with grid"]
    assert titles == [*grown, "Small networks"]
    assert [plot.title for plot in sections[0].plots] == [
        "forward: time",
        "forward: peak memory",
        "forward: time over mlp",
        "backward: time",
        "backward: peak memory",
        "backward: time over mlp",
    ]
    assert sections[0].plots[1].json["data"][0]["y"] == [1e-6, 1e-5, 1e-3]
    over = sections[0].plots[2].json
    assert [(line["x"], line["y"]) for line in over["data"]] == [([1, 10, 1000], [1.5] * 3)]
    assert over["layout"]["shapes"][0]["y0"] == 1
    memory = sections[0].plots[4].json
    assert memory["data"][0]["x"] == [1, 10, 1000]
    assert memory["data"][0]["y"] == [2e-6, 2e-5, 2e-3]
    assert memory["layout"]["xaxis"]["tickvals"] == [1, 10, 1000]
    assert memory["layout"]["xaxis"]["type"] == memory["layout"]["yaxis"]["type"] == "log"


def test_growth_comes_from_the_newest_run_that_has_it():
    old, new = growth_data(), growth_data()
    new["commit_info"]["id"] = "abcdefabcdef"
    new["benchmarks"] = [b for b in new["benchmarks"] if "batch" in b["fullname"]]
    history = [parse_run(old), parse_run(new)]
    report = measured(run_data())
    known = looks(["mlp", "efficient_kan"])
    texts = {section.title: section.text for section in growth_sections(report, history, known)}
    assert texts["Growth with batch"].startswith("Not of this run, but of abcdefabcd, 2026-01-02")
    assert "of 0123456789," in texts["Growth with grid"]
    assert list(growth_sections(report, [], known)) == []
    assert "Growth with grid" in Reader(page(report, history)).text


def plot_of(section, status):
    return next(plot.json for plot in section.plots if plot.title.endswith(f"({status})"))


def test_the_history_ends_with_this_run_within_the_limits_of_its_baseline():
    section = history_section(judged_document(), histories())
    assert section.plots[0].title == "reference[efficient_kan-forward] (regressed)"
    plot = section.plots[0].json
    time, peak, _ = plot["data"]
    assert time["x"] == [0, 1, 2, 3]
    assert time["y"] == [1.0, 1.0, 1.0, 2.0]
    assert peak["y"] == pytest.approx([4.096e-3] * 3 + [8.192e-3])
    assert peak["customdata"] == ["4,096"] * 3 + ["8,192"]
    band, line = plot["layout"]["shapes"][:2]
    assert (band["y0"], band["y1"]) == (pytest.approx(1 / 1.02), pytest.approx(1.02))
    assert (band["x0"], band["x1"]) == (pytest.approx(1.7), pytest.approx(3.3))
    assert line["y0"] == pytest.approx(4.096e-3)
    labels = plot["layout"]["xaxis"]["ticktext"]
    assert (labels[0], labels[-1]) == ("0000000<br>2025-12-01", "fedcba9<br>2026-02-03")
    new = plot_of(section, "no baseline")
    assert new["data"][0]["x"] == [3]
    assert "shapes" not in new["layout"]


def test_a_new_history_and_an_accepted_run_are_seen():
    history = histories()
    _, now = judged_runs()
    accepted = history_section(judged_document(), [*history, parse_run(now)])
    assert accepted.plots[0].json["data"][0]["x"] == [0, 1, 2, 3]
    now["kan_impls"] = {"anchor": "another machine"}
    section = history_section(judged_document(now=now), history)
    assert section.plots[0].json["layout"]["shapes"][-1]["label"]["text"] == "new history"
    assert history_section(judged_document(), []) is None
    assert history_section(measured(run_data()), history) is None


@pytest.mark.parametrize("ends", [(1, 1), (0.001, 5000), (2, 3), (15, 1300), (0, 7, 80)])
def test_a_log_axis_shows_all_of_its_values_with_whole_numbers_at_the_ticks(ends):
    axis = log_axis("time, ms", ends)
    first, last = axis["range"]
    assert all(10**first < value < 10**last for value in ends if value)
    assert axis["tickformat"] == ","  # without it, 2 and 5 stand for those of any decade


def test_a_run_of_other_plugins_has_a_page():
    data = run_data("x.py::test_a")
    data["benchmarks"][0]["extra_info"] = {}
    data["machine_info"] = {}
    reader = Reader(page(measured(data), histories()))
    assert "Other benchmarks" in reader.text
    assert "Benchmarks on an unknown device" in reader.text
    assert "Nothing was judged." in reader.text


def test_what_a_document_may_hold_has_a_page():
    """Nulls stand wherever the schema lets them."""
    report = copy.deepcopy(judged_document())
    for entry in report["measurements"]:
        entry |= {
            "median_ns": None,
            "ratio": None,
            "ratio_to_mlp": None,
            "baseline": None,
            "memory_bytes": {},
            "floor_fraction": None,
            "parameters": None,
        }
        for process in entry["processes"]:
            process |= {"median_ns": None, "ratio": None, "ratio_to_mlp": None}
    for verdict in report["verdicts"]:
        for change in verdict["times"]:
            change |= {"change_fraction": None, "limit_fraction": None, "visible_fraction": None}
    assert "regressed" in Reader(page(report, histories())).text
