"""Text from files and names of others, made safe to show.

A name is whatever a test, a branch or a stranger's baseline calls itself. A terminal obeys control
characters, readers are misled by those that turn the direction of writing, and a CI takes lines
that begin with `::`, or hold `##[`, for commands.
"""

from __future__ import annotations

import re

# Control characters, what turns or hides writing, and halves of characters, which no file can hold.
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ud800-\udfff]+"
)
# GitHub and Azure find these anywhere in a line,
_COMMAND = re.compile(r"##(?=\[|vso\[)")
# and these at its beginning.
_COMMAND_LINE = re.compile(r"^(\s*)::")


def one_line(text: str) -> str:
    """Text without line ends, and without what is more than text to whoever shows it."""
    return _COMMAND.sub("# #", _HIDDEN.sub(" ", text))


def marked(text: str) -> str:
    """The same with a mark for every character that is left out."""
    return _COMMAND.sub("# #", _HIDDEN.sub(lambda found: "\ufffd" * len(found[0]), text))


def printable(text: str) -> str:
    """The same line by line, for a terminal whose lines a CI may read."""
    return "\n".join(_COMMAND_LINE.sub(r"\1: :", one_line(line)) for line in text.split("\n"))
