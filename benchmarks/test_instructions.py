"""Instructions of every implementation and pass, counted by callgrind: `pytest -m instructions`.

A collection takes two to four minutes, however busy the machine is. It is judged by what is stored
of this environment, or, where nothing is, by the code of `--instructions-base`, counted here and
now. After a change that is meant, `pytest -m instructions --accept-instructions` stores the counts.
"""

from pathlib import Path

import pytest
from instruction_cases import CASES, entries

import perfgate
from perfgate.ab.trees import RevisionError, tree_of
from perfgate.judge import instructions_verdict as verdict
from perfgate.measure import instructions
from perfgate.measure.callgrind import CollectionError
from perfgate.store import instructions_baseline as baseline
from perfgate.store.baseline import BaselineError
from perfgate.store.exact import Stored

pytestmark = pytest.mark.instructions

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("count_instructions.py")
HARNESS = Path(perfgate.__file__).parents[1]


def collect(source, *plant):
    counted = instructions.collect([str(SCRIPT), str(source), str(HARNESS), *plant])
    return Stored(counted.environment, entries(counted.calls))


@pytest.fixture(scope="module")
def base(pytestconfig):
    return pytestconfig.getoption("--instructions-base")


@pytest.fixture(scope="module")
def now(base):
    """What is counted of the files as they are."""
    if reason := instructions.unavailable():
        leave(reason, base)
    try:
        return collect(HARNESS.parents[1])
    except CollectionError as error:
        pytest.fail(str(error), pytrace=False)


def leave(reason, base):
    """Whoever names a base wants a judgement: none is a failure then, and not a skip."""
    if base:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def path(pytestconfig):
    folder = pytestconfig.getoption("baselines") or Path(__file__).parent / "baselines"
    return folder / "instructions.json"


@pytest.fixture(scope="module")
def accepting(pytestconfig):
    return pytestconfig.getoption("--accept-instructions")


@pytest.fixture(scope="module")
def stored(path, accepting, now):
    """What is stored of this environment; None where nothing is, or while accepting."""
    try:
        return None if accepting else baseline.of_environment(path, now.environment)
    except BaselineError as error:
        pytest.fail(str(error), pytrace=False)
    except LookupError:
        return None


@pytest.fixture(scope="module")
def before(path, accepting, now, stored, base):
    """What is judged by; None while accepting."""
    if accepting or stored:
        return stored
    try:
        if not base:
            baseline.of_environment(path, now.environment)
        with tree_of(ROOT, base) as tree:
            return collect(tree.source)
    except LookupError as error:
        pytest.skip(str(error))
    except (CollectionError, RevisionError) as error:
        pytest.fail(str(error), pytrace=False)


def fail_if_any(sentences):
    if sentences:
        pytest.fail("\n".join(sentences), pytrace=False)


@pytest.mark.parametrize("implementation", CASES)
def test_instructions_are_those_of_before(implementation, path, accepting, stored, before, now):
    entry = now.entries[implementation]
    if accepting:
        baseline.accept(path, now.environment, {implementation: entry}, CASES)
    elif stored is None and implementation not in before.entries:
        pytest.skip(f"{implementation} is not in the base: what it executes is new")
    else:
        fail_if_any(verdict.differences(before, implementation, entry))


def test_nothing_is_stored_of_what_does_not_exist(stored):
    if stored is not None:
        fail_if_any(baseline.unknown(stored, CASES))


def test_an_extra_python_level_pass_over_a_small_tensor_is_red(accepting, now):
    if accepting:
        pytest.skip("stores what is counted, and judges nothing")
    planted = collect(HARNESS.parents[1], "pass")
    for implementation in ("fused_fourier_kan", "fused_efficient_kan"):
        sentences = verdict.differences(now, implementation, planted.entries[implementation])
        assert any(", forward: " in s and "expected no more" in s for s in sentences)
