"""Decisions on disk: valid ones are read, everything else is absent, and processes need no lock."""

import json
import os
import warnings

import pytest

from kan_impls.fused import cubin_cache, decisions
from tests.forked import forked

KIND, ENVIRONMENT, SUBJECT = "trials", {"gpu": "H100", "driver": "13.0"}, "forward of Fourier"
DECISION = {"error": 1e-7, "fault": ""}
PROCESSES = 24


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(cubin_cache, "_has_warned", False)
    return tmp_path


def write(decision=DECISION):
    decisions.write(KIND, ENVIRONMENT, SUBJECT, decision)
    return decisions.path_of(KIND, ENVIRONMENT, SUBJECT)


def read():
    return decisions.read(KIND, ENVIRONMENT, SUBJECT)


def test_what_was_written_is_read():
    assert read() is None
    path = write()
    assert read() == DECISION
    assert list(decisions.stored(KIND, ENVIRONMENT)) == [(SUBJECT, DECISION)]
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left


def test_a_decision_holds_for_its_subject_environment_and_kind():
    write()
    assert decisions.read(KIND, ENVIRONMENT, "another") is None
    assert decisions.read(KIND, {**ENVIRONMENT, "gpu": "A100"}, SUBJECT) is None
    assert decisions.read("other", ENVIRONMENT, SUBJECT) is None
    assert not list(decisions.stored(KIND, {**ENVIRONMENT, "driver": "13.1"}))


def changed(**fields):
    content = {"environment": ENVIRONMENT, "subject": SUBJECT, "decision": DECISION, **fields}
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"9" * 5001,
        b"null",
        b"[]",
        b"\xff\xfe",
        changed(environment={"gpu": "A100"}),
        changed(environment=None),
        changed(subject="another"),
        changed(subject=5),
        changed(decision=[1]),
        changed()[:-5],
    ],
)
def test_a_file_that_states_something_else_is_absent_and_replaced(content):
    path = write()
    path.write_bytes(content)
    assert read() is None
    assert not list(decisions.stored(KIND, ENVIRONMENT))
    write()
    assert read() == DECISION


def test_a_folder_in_place_of_the_file_is_absent():
    path = write()
    path.unlink()
    path.mkdir()
    assert read() is None


def test_a_cache_that_cannot_be_written_warns_once(folder, monkeypatch):
    (folder / KIND).write_text("a file in place of the folder")
    with pytest.warns(RuntimeWarning, match="set KAN_IMPLS_CACHE"):
        write()
    assert read() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write()


def decide(number):
    """In a process of its own: all write their own figures, and read a whole decision each time."""
    own = {"error": number * 1e-7, "fault": "x" * 5000 * number}
    for _ in range(20):
        write(own)
        found = read()
        if found is None or len(found["fault"]) != 5000 * round(found["error"] * 1e7):
            os._exit(1)


def test_processes_that_decide_at_once_leave_one_valid_decision():
    codes = forked(decide, *[(number,) for number in range(PROCESSES)])
    assert codes == [0] * PROCESSES
    ((subject, _),) = decisions.stored(KIND, ENVIRONMENT)
    assert subject == SUBJECT
    assert len(list(decisions.path_of(KIND, ENVIRONMENT, SUBJECT).parent.iterdir())) == 1
