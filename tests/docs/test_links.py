"""Links within the repository lead to files and headings; `make docs` asks the same of the site."""

import pytest

from tests.docs.pages import PAGES, inline, name, sections

OUTSIDE = ("https://", "http://", "mailto:")


def targets(page):
    for token in inline(page):
        target = token.attrGet("href") or token.attrGet("src")
        if target is not None and not target.startswith(OUTSIDE):
            yield target


def broken(page):
    """What does not lead anywhere."""
    for target in targets(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in {section.anchor for section in sections(there)}:
            yield f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page):
    assert not list(broken(page))


def test_a_wrong_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One title\n[a](page.md#one-title) [b](none.md) ![c](#two)\n`[d](code.md)`\n")
    assert list(broken(page)) == ["none.md: no such file", "#two: no such heading"]
