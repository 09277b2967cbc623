"""The text of PTX as instructions in basic blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ENDS_BLOCK = ("bra", "ret", "bar", "shfl")


class Fault(Exception):  # noqa: N818  (of a kernel, not of this package)
    """What a kernel must not do, or what this package does not model."""


@dataclass(frozen=True)
class Instruction:
    """`parts` are of the name, as `("add", "s32")`; `guard` is a register, or empty."""

    text: str
    parts: tuple[str, ...]
    arguments: tuple[str, ...]
    guard: str = ""
    is_negated: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.parts)

    @property
    def type(self) -> str:
        return self.parts[-1]


@dataclass
class Kernel:
    """An entry function.

    Args:
        parameter: name of its only parameter, a struct of `parameter_bytes`.
        registers: type by the letters that their names begin with, and how many there are.
        blocks: control enters at the first instruction, and leaves or waits at the last one.
        labels: to the index of the block that begins there.
    """

    parameter: str
    parameter_bytes: int
    max_threads: int
    registers: dict[str, tuple[str, int]] = field(default_factory=dict)
    blocks: list[list[Instruction]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


def parse(text: str, symbol: str) -> Kernel:
    """The entry function `symbol` of a PTX text.

    Raises:
        Fault: a line of no known form.
    """
    _, _, entry = text.partition(f".entry {symbol}(")
    header, _, body = entry.partition("\n{")
    name, size = re.search(r"\.param .*?(\w+)\[(\d+)\]", header).groups()
    kernel = Kernel(name, int(size), int(re.search(r"\.maxntid (\d+)", header)[1]))
    block: list[Instruction] = []
    for line in _lines(body):
        if line.startswith(".reg"):
            kind, prefix, count = re.match(r"\.reg \.(\w+)\s+%(\w+?)<(\d+)>", line).groups()
            kernel.registers[prefix] = (kind, int(count))
        elif line.endswith(":"):
            if block:
                kernel.blocks.append(block)
                block = []
            kernel.labels[line[:-1]] = len(kernel.blocks)
        elif not line.startswith(".pragma"):
            instruction = _instruction(line)
            if instruction.parts[0] == "shfl" and block:  # alone: lanes wait there for each other
                kernel.blocks.append(block)
                block = []
            block.append(instruction)
            if block[-1].parts[0] in ENDS_BLOCK:
                kernel.blocks.append(block)
                block = []
    return kernel


def _lines(body: str) -> Iterator[str]:
    """Those of the function, without comments."""
    for line in body.split("\n"):
        if line.startswith("}"):
            return
        line = line.partition("//")[0].strip()
        if line and not line.startswith(".loc"):
            yield line


def _instruction(line: str) -> Instruction:
    match = re.fullmatch(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.]*)\s*(.*);", line)
    if match is None:
        raise Fault(f"not modelled: `{line}`")
    negated, guard, name, arguments = match.groups()
    found = re.findall(r"\{[^}]*\}|\[[^]]*\]|[^,\s]+", arguments)
    return Instruction(line, tuple(name.split(".")), tuple(found), guard or "", negated == "!")
