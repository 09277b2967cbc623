"""What executes an instruction: a function of the threads that take part."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tests.ptx import warp
from tests.ptx.arithmetic import computed
from tests.ptx.parse import Fault, Instruction
from tests.ptx.registers import Registers, dtype_of, write

if TYPE_CHECKING:
    from tests.ptx.machine import Machine

Mask = np.ndarray | None  # threads that take part; all of them if None
Step = Callable[[Mask], None]


class Steps:
    """Of one machine."""

    def __init__(self, machine: Machine, registers: Registers) -> None:
        self._machine, self._registers = machine, registers

    def step(self, instruction: Instruction, block: int) -> Step:
        """What executes an instruction for the threads of a mask.

        Raises:
            Fault: it is not modelled.
        """
        step = self._unguarded(instruction, block)
        if not instruction.guard:
            return step
        guard = self._registers.source(instruction.guard, "pred")

        def guarded(mask: Mask) -> None:
            chosen = ~guard if instruction.is_negated else guard
            chosen = chosen.copy() if mask is None else chosen & mask
            if chosen.any():
                step(None if chosen.all() else chosen)

        return guarded

    def _unguarded(self, instruction: Instruction, block: int) -> Step:
        head, arguments = instruction.parts[0], instruction.arguments
        if head == "bra":
            target = self._machine.labels[arguments[0]]
            return lambda mask: self._machine.go(mask, target)
        if head == "ret":
            return self._machine.leave
        if instruction.name == "bar.sync" and arguments == ("0",):
            return lambda mask: self._machine.wait(mask, block + 1)
        if head == "ld":
            return self._load(instruction)
        if head == "st":
            return self._store(instruction)
        if head == "cp":
            return self._copy(instruction)
        if instruction.name == warp.MMA:
            return self._multiply(instruction)
        if instruction.name == warp.SHUFFLE:
            return self._exchange(instruction, block)
        return self._arithmetic(instruction)

    def _arithmetic(self, instruction: Instruction) -> Step:
        function, result, types = computed(instruction)
        first, *others = instruction.arguments
        target = self._registers.target(first, result)
        pairs = zip(others, types, strict=True)
        sources = [self._registers.source(text, type_) for text, type_ in pairs]
        return lambda mask: write(target, function(*sources), mask)

    def _active(self, mask: Mask) -> np.ndarray:
        return self._machine.threads if mask is None else np.flatnonzero(mask)

    def _addresses(self, text: str) -> Callable[[np.ndarray], np.ndarray]:
        """Of some threads."""
        base, distance = self._registers.address(text)
        if np.ndim(base) == 0:
            return lambda active: np.full(len(active), int(base) + distance)
        return lambda active: base[active].astype(np.int64) + distance

    def _who(self, space: str, active: np.ndarray) -> np.ndarray:
        return self._machine.identity[active] if space == "global" else active

    def _load(self, instruction: Instruction) -> Step:
        type_, space = instruction.type, instruction.parts[1]
        texts, place = _listed(instruction.arguments[0]), instruction.arguments[1]
        targets = [self._registers.target(text, type_) for text in texts]
        addresses, dtype = self._addresses(place), dtype_of(type_)
        memory = self._machine.spaces[space]

        def load(mask: Mask) -> None:
            active = self._active(mask)
            who = self._who(space, active)
            found = memory.load(who, addresses(active), dtype.itemsize, len(targets)).view(dtype)
            for n, target in enumerate(targets):
                target[active] = found[:, n]

        return load

    def _store(self, instruction: Instruction) -> Step:
        type_, space = f"u{instruction.type[1:]}", instruction.parts[1]
        place, texts = instruction.arguments[0], _listed(instruction.arguments[1])
        sources = [self._registers.source(text, type_) for text in texts]
        addresses, memory = self._addresses(place), self._machine.spaces[space]

        def store(mask: Mask) -> None:
            active = self._active(mask)
            values = [np.broadcast_to(source, self._machine.count)[active] for source in sources]
            memory.store(self._who(space, active), addresses(active), np.stack(values, 1))

        return store

    def _copy(self, instruction: Instruction) -> Step:
        arguments = instruction.arguments
        if instruction.name == "cp.async.commit_group":
            return lambda mask: self._machine.shared.commit(self._active(mask))
        if instruction.name == "cp.async.wait_group":
            return lambda mask: self._machine.shared.wait(self._active(mask), int(arguments[0]))
        to, source = map(self._addresses, arguments[:2])
        size, read = int(arguments[2]), self._registers.source(arguments[3], "u32")

        def copy(mask: Mask) -> None:
            active = self._active(mask)
            bytes_read = np.broadcast_to(read, self._machine.count)[active]
            if not np.isin(bytes_read, (0, size)).all():
                raise Fault("not modelled: a copy of a part")
            values = np.zeros((len(active), size // 2), np.uint16)
            reads = bytes_read > 0
            if reads.any():
                some = active[reads]
                found = self._machine.spaces["global"].load(
                    self._machine.identity[some], source(some), 4, size // 4
                )
                values[reads] = np.ascontiguousarray(found).view(np.uint16)
            self._machine.shared.start_copy(active, to(active), values)

        return copy

    def _multiply(self, instruction: Instruction) -> Step:
        d, a, b, c = map(_listed, instruction.arguments)
        targets = [self._registers.target(text, "f32") for text in d]
        fragments = [
            [self._registers.source(text, type_) for text in texts]
            for texts, type_ in ((a, "b32"), (b, "b32"), (c, "f32"))
        ]
        return lambda mask: warp.multiply(targets, *fragments, mask)

    def _exchange(self, instruction: Instruction, block: int) -> Step:
        target, value, distance, _, members = instruction.arguments
        to = self._registers.target(target.partition("|")[0], "b32")
        source = self._registers.source(value, "b32")
        by, members = (self._registers.source(text, "b32") for text in (distance, members))

        def exchange(mask: Mask) -> None:
            active = self._active(mask)
            if (np.broadcast_to(members, self._machine.count)[active] != 0xFFFFFFFF).any():
                raise Fault("not modelled: a shuffle of some lanes")
            self._machine.shuffles.offer(active, block, to, source, by)
            self._machine.meet(mask)

        return exchange


def _listed(text: str) -> list[str]:
    """Registers such as `{%f1, %f2}` or `%f1`."""
    return [part.strip() for part in text.strip("{}").split(",")]
