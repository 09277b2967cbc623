"""`pytest --pyargs kan_impls.contract --variant path/file.py:factory`: a test for each clause.

Without `--variant` these are the implementations that installed packages bring.
"""

from __future__ import annotations

import pytest
import torch

from kan_impls import registry
from kan_impls.contract.clause import Clause
from kan_impls.contract.clauses import CLAUSES
from kan_impls.contract.subject import Subject, subjects_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = metafunc.config.getoption("variants_brought", None) or registry.brought()
    if not names:
        raise pytest.Collector.CollectError(
            "the contract came without an implementation; expected "
            "--variant path/file.py:factory, package.module:factory, or the name of one of "
            f"{', '.join(registry.list_variants())}: name one"
        )
    subjects = [each for name in names for each in subjects_of(registry.get_variant(name))]
    metafunc.parametrize("subject", subjects, ids=str)
    metafunc.parametrize("clause", CLAUSES, ids=str)


@pytest.fixture
def device(pytestconfig: pytest.Config) -> torch.device:
    """That of `--device`, where a plugin has this option; else a GPU where there is one."""
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(pytestconfig.getoption("device", None) or usual)


def test_contract(subject: Subject, clause: Clause, device: torch.device) -> None:
    problem = clause.problem(subject, device)
    if problem is None:
        return
    if clause is not CLAUSES[0] and CLAUSES[0].problem(subject, device):
        pytest.skip(f"{subject} cannot be called, as another test says")
    pytest.fail(problem, pytrace=False)
