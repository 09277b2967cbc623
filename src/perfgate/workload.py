"""What a benchmark hands over to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from perfgate.measure.timing import Timed


class NotEnoughMemoryError(Exception):
    """The workload needs more memory than is free."""


@runtime_checkable
class Workload(Protocol):
    """Work that is measured again and again. `perfgate.network` has one for any network."""

    @property
    def group(self) -> str:
        """Under which heading pytest-benchmark lists it."""

    def describe(self) -> Mapping[str, Any]:
        """What must be equal for two measurements to be comparable; JSON values."""

    def in_turns(self) -> Workload:
        """The work that tells the most where two revisions take turns: itself, or a part of it
        that takes less time and does the same."""

    def prepare(self) -> None:
        """What comes before each run, untimed."""

    def run(self) -> object:
        """What is timed."""

    def release(self) -> None:
        """What comes after, untimed: let go of what the run left."""

    def companions(self) -> Mapping[str, Timed]:
        """Works that take turns with it, by name. The time over that of `reference` is judged
        where stored times are; any other is shown."""

    def peak_bytes(self) -> Mapping[str, int]:
        """Exact sizes by what they are of, which may not grow."""

    def facts(self, median_ns: float) -> Mapping[str, Any]:
        """What else is stored with it, and not judged; JSON values. `forms`, by pass, is how the
        work was done where there are several ways: a verdict says where that differs.

        Args:
            median_ns: the time that was measured.
        """
