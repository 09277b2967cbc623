"""What a clause of the contract is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kan_impls.contract.subject import Subject

# Rows of the inputs of most clauses.
BATCH = 9

Check = Callable[[Subject, torch.device], None]


@dataclass(frozen=True)
class Clause:
    """One demand of the contract.

    Args:
        name: the demand in words.
        check: raises an AssertionError that says what is wrong. It draws its own inputs, so that no
            clause depends on another.
        remedy: what to do then.
    """

    name: str
    check: Check
    remedy: str

    def __str__(self) -> str:
        return self.name

    def problem(self, subject: Subject, device: torch.device) -> str | None:
        """What is wrong with a subject, in words; None if nothing is."""
        torch.manual_seed(0)
        try:
            self.check(subject, device)
        except Exception as error:  # whatever somebody's layer raises
            found = str(error).strip() or "it is not met"
            if not isinstance(error, AssertionError):
                found = f"the layer raised {type(error).__name__}: {found}"
            return f"{subject}: expected that {self.name}; {found}. What to do: {self.remedy}."
        return None


def clause(name: str, remedy: str) -> Callable[[Check], Clause]:
    """Makes a clause of its check."""
    return lambda check: Clause(name, check, remedy)
