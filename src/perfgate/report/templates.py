"""Templates of reports, in which values are text unless they are markup already."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from perfgate.report import words

if TYPE_CHECKING:
    from jinja2 import Environment


def file_text(name: str) -> str:
    """A file of this folder."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def environment(made_text: Callable[[str], str], autoescape: bool) -> Environment:
    """The templates of this folder, which may use the functions of `words`.

    Args:
        made_text: is applied to each value that a template shows and that is no markup.
        autoescape: whether what templates show is HTML, which escapes it after that.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else made_text(str(value))

    templates = Environment(
        loader=FunctionLoader(file_text),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals["words"] = words
    return templates
