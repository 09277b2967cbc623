"""Where and when a figure was measured. None of it is part of the device key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfgate.fields import mapping, member, text
from perfgate.judge.place import key_in, ours


@dataclass(frozen=True)
class Machine:
    """Which machine a run came from.

    Args:
        id: hash of the system's own id; None where it has none, as in a container.
        hypervisor: its name, `none` on bare metal; None if unknown.
        boot: hash of the id of this start of the system; None if unknown.
    """

    id: str | None
    hypervisor: str | None = None
    boot: str | None = None


def same_machine(a: Machine | None, b: Machine | None) -> bool:
    """Whether two runs certainly came from one machine; False if either does not tell."""
    if a is None or b is None:
        return False
    same_boot = a.boot is not None and a.boot == b.boot
    return same_boot or (a.id is not None and a.id == b.id and a.hypervisor == b.hypervisor)


@dataclass(frozen=True)
class Origin:
    """Where and when a run of a calibration was measured.

    Args:
        datetime: ISO 8601, UTC.
        machine, boot: as of `Machine`.
        commit: of the code.
    """

    datetime: str
    machine: str | None = None
    boot: str | None = None
    commit: str = "unknown"

    @property
    def cluster(self) -> tuple[str, str | None]:
        """The day and the machine, which runs have in common that are alike."""
        return self.datetime[:10], self.machine or self.boot

    def is_of(self, machine: Machine | None) -> bool:
        """Whether it was certainly measured on that machine."""
        if machine is None:
            return False
        return same_machine(Machine(self.machine, machine.hypervisor, self.boot), machine)


def parse_machine(machine_info: Mapping[str, Any]) -> Machine | None:
    """The machine that `machine_info` names; None if it names none.

    Raises:
        FieldError: a part is of the wrong kind.
    """
    where = f"machine_info.{key_in(machine_info)}.machine"
    part = ours(machine_info, "machine_info").get("machine")
    if part is None:
        return None
    return parse_machine_entry(part, where)


def parse_machine_entry(part: Any, where: str) -> Machine:
    """A machine as a run describes it.

    Raises:
        FieldError: a part is of the wrong kind.
    """
    whole = mapping(part, where)
    return Machine(*(_text(whole, name, where) for name in ("id", "hypervisor", "boot")))


def parse_origin(part: Any, where: str) -> Origin:
    """An entry of a calibration's `origins`.

    Raises:
        FieldError: a part is missing or of the wrong kind.
    """
    whole = mapping(part, where)
    return Origin(
        datetime=text(member(whole, "datetime", where), f"{where}.datetime"),
        machine=_text(whole, "machine", where),
        boot=_text(whole, "boot", where),
        commit=text(whole.get("commit", "unknown"), f"{where}.commit"),
    )


def _text(part: Mapping[str, Any], name: str, where: str) -> str | None:
    value = part.get(name)
    return None if value is None else text(value, f"{where}.{name}")
