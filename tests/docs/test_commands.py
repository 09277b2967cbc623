"""Every command of the pages exists: programs, subcommands, options, targets, files, markers."""

import contextlib
import importlib.util
import io
import re
import shlex

import pytest

from kan_impls.fused.__main__ import parser as fused_parser
from perfgate.cli import parser as bench_parser
from tests.docs.pages import PAGES, ROOT, code_blocks, inline, name

PROGRAMS = ("make", "kan-bench", "pytest", "python", "pip")
# What stands for a number in a line that explains an option.
PLACEHOLDERS = {"SECONDS": "1", "N": "3"}
# A command, up to what ends it in a shell.
ENDS = re.compile(r"\s*(?:&&|;|\|)\s*")
PATH = re.compile(r"(?:tests|benchmarks|docs|examples)/[\w./-]+")


def commands(page):
    """The words of each command in the blocks and within the lines of a page."""
    lines = [
        line
        for language, text in code_blocks(page)
        if language in ("", "sh", "bash")
        for line in text.replace("\\\n", " ").splitlines()
    ]
    lines += [token.content for token in inline(page) if token.type == "code_inline"]
    for line in lines:
        for part in ENDS.split(line):
            with contextlib.suppress(ValueError):  # no quoted words: no command
                words = shlex.split(part, comments=True)
                if words and words[0] in PROGRAMS and len(words) > 1:
                    yield words


def complaint(words, config):
    """What is wrong with a command, or None."""
    program, *arguments = [PLACEHOLDERS.get(word, word) for word in words]
    return {
        "make": _make,
        "kan-bench": _kan_bench,
        "pytest": _pytest,
        "python": _python,
        "pip": _pip,
    }[program](arguments, config)


def _make(arguments, config):
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    variables = set(re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for argument in arguments:
        variable, equals, _ = argument.partition("=")
        if (variable not in variables) if equals else (argument not in known):
            return f"make has no {argument}"
    return None


def _kan_bench(arguments, config):
    split = arguments.index("--") if "--" in arguments else len(arguments)
    return _parsed(bench_parser(), arguments[:split]) or _pytest(arguments[split + 1 :], config)


def _parsed(parser, arguments):
    if len(arguments) == 1 and arguments[0] in _subcommands(parser):
        return None  # a subcommand by its name
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(arguments)
    except SystemExit as end:
        return said.getvalue().splitlines()[-1] if end.code else None
    return None


def _pytest(arguments, config):
    markers = {re.split(r"[:(]", line)[0] for line in config.getini("markers")}
    for before, argument in zip([None, *arguments], arguments, strict=False):
        if argument.startswith("--"):
            try:
                config.getoption(argument.partition("=")[0])
            except ValueError:
                return f"pytest has no {argument}"
        elif before == "-m":
            if unknown := set(re.findall(r"\w+", argument)) - {"and", "or", "not"} - markers:
                return f"no marker is called {', '.join(unknown)}"
        elif PATH.fullmatch(argument) and not (ROOT / argument).exists():
            return f"{argument} does not exist"
    return None


def _python(arguments, config):
    if arguments[0] == "-m":
        if importlib.util.find_spec(arguments[1]) is None:
            return f"no module is called {arguments[1]}"
        return _parsed(fused_parser(), arguments[2:]) if arguments[1] == "kan_impls.fused" else None
    return None if (ROOT / arguments[0]).exists() else f"{arguments[0]} does not exist"


def _pip(arguments, config):
    text = (ROOT / "pyproject.toml").read_text()
    extras = text[text.index("[project.optional-dependencies]") : text.index("[project.scripts]")]
    for argument in arguments:
        for extra in re.findall(r"(?:kan-impls|\.)\[([\w,]+)\]", argument):
            for one in extra.split(","):
                if not re.search(rf"^{one} = \[", extras, re.MULTILINE):
                    return f"there is no extra {one}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page, pytestconfig):
    said = {shlex.join(words): complaint(words, pytestconfig) for words in commands(page)}
    assert not {command: wrong for command, wrong in said.items() if wrong}


def options(page):
    """The options that stand alone within the lines of a page."""
    for token in inline(page):
        if token.type == "code_inline" and (found := re.match(r"--[a-z][\w-]+", token.content)):
            yield found[0]


# Of programs that are not ours, and of scripts that list theirs by --help.
OF_OTHERS = {"--junitxml", "--help"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_exist(page, pytestconfig):
    ours = "".join(map(_help, (bench_parser(), fused_parser())))
    unknown = [
        option
        for option in options(page)
        if option not in OF_OTHERS
        and not re.search(rf"{option}\b", ours)
        and _pytest([option], pytestconfig)
    ]
    assert not unknown


def _help(parser):
    """The help of a command line and of its subcommands."""
    return "".join(each.format_help() for each in (parser, *_subcommands(parser).values()))


def _subcommands(parser):
    (subparsers,) = parser._subparsers._group_actions
    return subparsers.choices


@pytest.mark.parametrize(
    "command",
    [
        "make benhc",
        "make bench DEVISE=cpu",
        "kan-bench gat main",
        "kan-bench ab main --fail-on-improved",
        "kan-bench calibrate -- --devise=cpu",
        "pytest --benchmark-onyl",
        "pytest -m grwth",
        "pytest tests/test_none.py",
        "python docs/none.py",
        "python -m kan_impls.none",
        "python -m kan_impls.fused doctr",
        "pip install -e '.[none]'",
    ],
)
def test_a_wrong_command_is_seen(command, pytestconfig):
    assert complaint(shlex.split(command), pytestconfig)
