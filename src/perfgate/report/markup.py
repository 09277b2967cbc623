"""HTML from Python: text is escaped unless it is markup already."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from typing import Any

# What HTML has no character for, and what turns the direction of writing.
_NO_HTML = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# Elements without an end.
_VOID = {"input", "meta", "br"}


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


Content = str | int | None


def element(tag: str, *children: Content, **attributes: str | int | bool | None) -> Markup:
    """An element; children that are not `Markup` are escaped.

    A trailing underscore of an attribute's name is dropped (`class_`), others are hyphens;
    True is an attribute without a value, None and False are none.
    """
    shown = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_quoted(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = join(*children)
    return Markup(f"<{tag}{shown}>" if tag in _VOID else f"<{tag}{shown}>{inside}</{tag}>")


def join(*children: Content) -> Markup:
    """All of them one after the other."""
    return Markup("".join(
        child if isinstance(child, Markup) else _quoted(child)
        for child in children if child is not None
    ))  # fmt: skip


def _quoted(value: str | int) -> str:
    # A character that HTML does not have would be read as another one.
    return html.escape(_NO_HTML.sub("\ufffd", str(value)))


def json_script(key: str, data: Any) -> Markup:
    """Data for scripts of the page. No `<` in it, so that nothing in it ends the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{key}">{safe}</script>')


def hash_source(script: str) -> str:
    """What a content security policy calls this very script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def fill(template: str, parts: Mapping[str, str]) -> str:
    """A template with its `{{names}}` replaced, once: what a part holds is left alone."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
