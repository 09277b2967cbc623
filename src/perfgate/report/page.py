"""The report as one page that needs no network: verdicts, plots, figures and evidence.

plotly brings plotly.js, which becomes part of the page; everything else is plain HTML. A content
security policy lets nothing be loaded, and no script run but the page's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from perfgate.judge.record import Run
from perfgate.report.figures import case_sections
from perfgate.report.growth import growth_sections, is_growth
from perfgate.report.history import history_section
from perfgate.report.markup import Markup, element, fill, hash_source, join, json_script
from perfgate.report.measured import companions, work_entry
from perfgate.report.page_figures import evidence, figure_table
from perfgate.report.page_verdicts import verdict_part
from perfgate.report.plot import Plot, Section, styles
from perfgate.report.words import count_words, date, exit_words, unjudged

INSTALL = "pip install 'kan-impls[report]'"


class PageError(Exception):
    """The page cannot be made; the message says what to do."""


def page(document: Mapping[str, Any], history: Sequence[Run] = ()) -> str:
    """The page.

    Args:
        document: the report.
        history: the stored baselines of the device, newest last.

    Raises:
        PageError: plotly is not installed.
    """
    plotly, script = _plotly_js(), _file("page.js")
    sections = _sections(document, history)
    parts = {
        "policy": join(policy(plotly, script)),
        "title": join(_title(document)),
        "style": _file("page.css"),
        "heading": _heading(document),
        "outcome": _outcome(document),
        "navigation": _navigation(sections),
        "verdicts": verdict_part(document),
        "plots": join(*(_section(number, part) for number, part in enumerate(sections))),
        "figures": figure_table(document),
        "evidence": evidence(document),
        "data": _data(sections),
        "plotly": plotly,
        "script": script,
    }
    return fill(_file("page.html"), parts)


def policy(*scripts: str) -> str:
    """Nothing is loaded; these scripts run, and plotly writes styles and makes images."""
    hashes = " ".join(map(hash_source, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise PageError(
            f"report.html is not written, because plotly is not installed ({error}); expected it "
            f"for the plots: {INSTALL}"
        ) from error
    # As HTML reads line ends: the policy's hash is that of what the browser sees.
    return str(get_plotlyjs()).replace("\r\n", "\n")


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _sections(document: Mapping[str, Any], history: Sequence[Run]) -> list[Section]:
    works = [entry["measured"] for entry in document["measurements"]]
    works += [work_entry(m.measured) for run in history for m in run.measurements.values()]
    looks = styles(
        (work["implementation"] for work in works if "implementation" in work),
        companions(document["measurements"]),
    )
    found = [
        *case_sections(document["measurements"], looks, is_growth),
        *growth_sections(document, history, looks),
        history_section(document, history),
    ]
    return [section for section in found if section is not None and section.plots]


def _title(document: Mapping[str, Any]) -> str:
    return f"Benchmarks of {document['commit'][:10]}: {exit_words(document)}"


def _heading(document: Mapping[str, Any]) -> Markup:
    device = str(document["environment"].get("device_model", "an unknown device"))
    when = f"Commit {document['commit'][:10]}, measured {date(document['datetime'])}"
    return join(f"Benchmarks on {device}", element("small", when))


def _outcome(document: Mapping[str, Any]) -> Markup:
    status = document["exit"]
    outcome = "Passed" if status["code"] == 0 else "Failed"
    mark = "unclear" if outcome == "Passed" and unjudged(document) else outcome.lower()
    counts = count_words(verdict["status"] for verdict in document["verdicts"])
    return element(
        "div",
        element("strong", f"{outcome}: {exit_words(document)}"),
        f"{counts}. " if counts else "",
        f"Exit status {status['code']}, {status['name'].lower().replace('_', ' ')}.",
        class_=f"outcome {mark}",
    )


def _navigation(sections: Sequence[Section]) -> Markup:
    links = [("verdicts", "Verdicts")]
    links += [(f"part-{number}", section.title) for number, section in enumerate(sections)]
    links += [("figures", "All figures"), ("evidence", "Evidence")]
    return join(*(element("a", title, href=f"#{key}") for key, title in links))


def _section(number: int, section: Section) -> Markup:
    plots = [_figure(key, plot) for key, plot in _placed(number, section)]
    return element(
        "section",
        element("h2", section.title),
        element("p", section.text, class_="hint") if section.text else None,
        _choice(number, section) if section.choose else None,
        element("div", *plots, class_="plots three" if len(plots) == 3 else "plots"),
        id=f"part-{number}",
    )


def _placed(number: int, section: Section) -> list[tuple[str, Plot]]:
    """Each plot and the id of its place; plots to choose from have one place."""
    plots = section.plots[:1] if section.choose else section.plots
    return [(f"plot-{number}-{index}", plot) for index, plot in enumerate(plots)]


def _figure(key: str, plot: Plot) -> Markup:
    drawn = element(
        "div", class_="plot", id=key, role="img", aria_label=plot.alt,
        style=f"height: {plot.height}px",
    )  # fmt: skip
    return element("figure", element("figcaption", plot.title), drawn)


def _choice(number: int, section: Section) -> Markup:
    options = [element("option", plot.title) for plot in section.plots]
    select = element(
        "select", *options, data_plots=f"choice-{number}", data_place=f"plot-{number}-0"
    )
    return element("p", element("label", "Benchmark: ", select))


def _data(sections: Sequence[Section]) -> Markup:
    fixed, choices = {}, []
    for number, section in enumerate(sections):
        if section.choose:
            plots = [_json(plot) for plot in section.plots]
            choices.append(json_script(f"choice-{number}", plots))
        else:
            fixed.update({key: _json(plot) for key, plot in _placed(number, section)})
    return join(json_script("plot-data", fixed), *choices)


def _json(plot: Plot) -> dict[str, Any]:
    return {"alt": plot.alt, "data": plot.data, "layout": plot.layout, "height": plot.height}
