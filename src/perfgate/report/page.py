"""The report as one page that needs no network: verdicts, plots, figures and evidence.

plotly brings plotly.js, which becomes part of the page; everything else is plain HTML, of
`page.html.j2`. A content security policy lets nothing be loaded, and no script run but the page's
own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from perfgate.judge.record import BESIDE, Run
from perfgate.judge.verdict import AGAINST
from perfgate.report import words
from perfgate.report.figures import case_sections
from perfgate.report.growth import growth_sections, is_growth
from perfgate.report.history import history_section
from perfgate.report.measured import companions, label, says_all, work_entry
from perfgate.report.plot import Section, looks
from perfgate.report.rows import rows
from perfgate.report.templates import file_text, template

INSTALL = "pip install 'kan-impls[report]'"

# What HTML has no character for, and what turns the direction of writing.
_NO_HTML = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


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
    plotly, script = _plotly_js(), file_text("page.js")
    from markupsafe import Markup

    sections, measured = _sections(document, history), document["measurements"]
    beside = companions(measured)
    kinds = dict.fromkeys(kind for entry in measured for kind in entry["memory_bytes"])
    return template("page.html.j2", _as_html, autoescape=True).render(
        document=document,
        rows=rows(document["verdicts"], worst_first=True),
        sections=sections,
        **_plot_data(sections),
        short=words.short_names(entry["name"] for entry in measured),
        beside={f"over {name}": f"{BESIDE}{name}" for name in beside},
        memory={kind: f"{words.kind_words(kind)} MB" for kind in kinds},
        against=AGAINST,
        policy=policy(plotly, script),
        style=Markup(file_text("page.css")),
        plotly=Markup(plotly),
        script=Markup(script),
    )


def _as_html(text: str) -> str:
    return _NO_HTML.sub("\ufffd", text)


def policy(*scripts: str) -> str:
    """Nothing is loaded; these scripts run, and plotly writes styles and makes images."""
    hashes = " ".join(map(_hash_source, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash_source(script: str) -> str:
    """What a content security policy calls this very script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


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


def _sections(document: Mapping[str, Any], history: Sequence[Run]) -> list[Section]:
    works = [entry["measured"] for entry in document["measurements"]]
    works += [work_entry(m.measured) for run in history for m in run.measurements.values()]
    found = looks(map(label, filter(says_all, works)), companions(document["measurements"]))
    sections = [
        *case_sections(document["measurements"], found, is_growth),
        *growth_sections(document, history, found),
        history_section(document, history),
    ]
    return [section for section in sections if section is not None and section.plots]


def _plot_data(sections: Sequence[Section]) -> dict[str, Any]:
    """Plots by the id of their place, and the lists of those that share a place."""
    drawn: dict[str, Any] = {}
    choices: dict[str, Any] = {}
    for number, section in enumerate(sections):
        plots = [plot.json for plot in section.plots]
        if section.choose:
            choices[f"choice-{number}"] = plots
        else:
            drawn |= {f"plot-{number}-{index}": plot for index, plot in enumerate(plots)}
    return {"drawn": drawn, "choices": choices}
