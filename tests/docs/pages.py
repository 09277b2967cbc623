"""The Markdown pages of the repository, parsed as Markdown is rendered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [
    *READMES,
    ROOT / "CHANGELOG.md",
    ROOT / ".github/CONTRIBUTING.md",
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, up to the next heading."""

    page: Path
    title: str
    text: str

    @property
    def anchor(self) -> str:
        """As GitHub makes it."""
        kept = re.sub(r"[^\w\- ]", "", self.title.lower())
        return kept.replace(" ", "-")


@cache
def tokens(page: Path) -> list[Token]:
    return PARSER.parse(page.read_text(encoding="utf-8"))


def sections(page: Path) -> Iterator[Section]:
    """All sections of a page; what stands before its first heading has no title."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start, title = tokens(page), 0, ""
    for before, token in pairwise(found):
        if before.type == "heading_open":
            assert before.map is not None
            yield Section(page, title, "\n".join(lines[start : before.map[0]]))
            start = before.map[0]
            title = "".join(child.content for child in token.children or ())
    yield Section(page, title, "\n".join(lines[start:]))


def inline(page: Path) -> Iterator[Token]:
    """Links, pictures and code within the lines of a page."""
    for token in tokens(page):
        yield from token.children or ()


def code_blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of the fenced blocks of a page."""
    for token in tokens(page):
        if token.type == "fence":
            yield token.info.strip(), token.content


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
