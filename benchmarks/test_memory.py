"""The device-free gate: bytes, operator calls, FLOPs and traffic of every implementation, exactly,
and how they grow.

It allocates nothing, times nothing and needs no device, so it runs inside plain `pytest`. After a
change that is meant, `pytest benchmarks/test_memory.py --accept-memory` stores the new figures.
"""

from functools import cache, partial
from pathlib import Path

import pytest
import torch
from memory_cases import BROUGHT, CASES, COST_LAWS, LAWS, OWN, layer_figures, measure

from kan_impls import get_variant, list_variants
from perfgate.judge.growth_law import deviations
from perfgate.measure.costs import UndeclaredCostError
from perfgate.measure.device_free import TooManyOperatorsError
from perfgate.store import device_free_baseline as baseline
from perfgate.store.baseline import BaselineError


@pytest.fixture
def path(pytestconfig):
    """Where the figures are stored: beside the baselines of devices."""
    folder = pytestconfig.getoption("baselines") or Path(__file__).parent / "baselines"
    return folder / "device_free.json"


@pytest.fixture
def accepting(pytestconfig):
    return pytestconfig.getoption("--accept-memory", default=False)


@pytest.fixture
def stored(path, accepting):
    """What is stored, or None while accepting; skips under another torch, where only the
    growth laws are judged."""
    if accepting:
        return None
    try:
        found = baseline.read(path)
    except BaselineError as error:
        pytest.fail(str(error), pytrace=False)
    if reason := baseline.incomparable(found, torch.__version__):
        pytest.skip(reason)
    return found


def fail_if_any(sentences):
    if sentences:
        pytest.fail("\n".join(sentences), pytrace=False)


@pytest.mark.parametrize("key", CASES, ids="-".join)
def test_figures_are_the_stored_ones(key, path, accepting, stored):
    try:
        now = measure(CASES[key])
    except TooManyOperatorsError as error:
        pytest.fail(
            f"{key.implementation} at {key.case}: {error}, as in_blocks=True in its law does",
            pytrace=False,
        )
    except UndeclaredCostError as error:
        pytest.fail(f"{key.implementation} at {key.case}: {error}", pytrace=False)
    except Exception as error:  # whatever somebody's layer raises on tensors without values
        if key.implementation not in BROUGHT:
            raise
        reason = str(error).partition("\n")[0]
        pytest.skip(f"{key} cannot be followed without a device: {type(error).__name__}: {reason}")
    if accepting:
        baseline.accept(path, torch.__version__, {key: now}, CASES)
    elif key.implementation in BROUGHT and key not in stored.entries:
        pytest.skip(f"{key} is not stored, and has {now.passes}; store it with --accept-memory")
    else:
        fail_if_any(baseline.differences(stored, key, now))


def test_nothing_is_stored_of_what_does_not_exist(accepting, stored):
    if not accepting:
        fail_if_any(baseline.unknown(stored, CASES))


@cache  # the laws of bytes and of costs may speak of the same sizes
def figures_of(implementation, sizes):
    return layer_figures(get_variant(implementation), sizes)


@pytest.mark.parametrize("laws", [LAWS, COST_LAWS], ids=["bytes", "costs"])
@pytest.mark.parametrize("implementation", list_variants())
def test_figures_grow_as_declared(implementation, laws):
    if implementation not in OWN:
        pytest.skip(f"{implementation} comes from another package, and no law is declared for it")
    measured = partial(figures_of, implementation)
    fail_if_any(deviations(implementation, laws[implementation], measured))
