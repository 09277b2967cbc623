"""Templates of reports, in which values are text unless they are markup already."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from perfgate.report import words

if TYPE_CHECKING:
    from jinja2 import Template


def file_text(name: str) -> str:
    """A file of this folder."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def template(
    name: str, as_text: Callable[[str], str], autoescape: bool, *filters: Callable[..., str]
) -> Template:
    """A template of this folder, which may use the functions of `words`.

    Args:
        name: its file.
        as_text: is applied to each value that the template shows and that is no markup.
        autoescape: whether values are then escaped for HTML.
        filters: further functions, by their names.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def finalize(value: Any) -> Any:
        # By the protocol and not by the class: a process may hold two copies of markupsafe.
        return value if hasattr(value, "__html__") else as_text(str(value))

    environment = Environment(
        loader=FunctionLoader(file_text),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["words"] = words
    environment.filters |= {function.__name__: function for function in filters}
    # No number is written that JSON has not.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(name)
