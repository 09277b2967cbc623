"""Cells and tables of the page."""

from __future__ import annotations

from collections.abc import Sequence

from perfgate.report.markup import Markup, element, join


def number(text: str, value: float | None, label: str | None = None) -> Markup:
    """A cell that is ordered by its value; what has none comes first.

    On a narrow screen, where there is no header, its label is shown.
    """
    order = str(-1e300 if value is None else value)
    return element("td", text, class_="number", data_value=order, data_label=label)


def table(
    key: str, caption: str, columns: Sequence[tuple[str, bool]], lines: Sequence[Markup]
) -> Markup:
    """A table that scrolls by itself, so that the page does not; the caption stays in place."""
    heads = [
        element("th", name, scope="col", class_="number" if number else None, data_sortable=True)
        for name, number in columns
    ]
    content = element(
        "table", element("thead", element("tr", *heads)), element("tbody", *lines), id=key
    )
    described = {"role": "region", "aria_labelledby": f"{key}-caption"}
    return join(
        element("p", caption, class_="hint", id=f"{key}-caption"),
        element("div", content, class_="scroll", tabindex="0", **described),
    )
