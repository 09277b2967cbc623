"""Counting: what processes under callgrind leave is read, or an error says why not."""

import json
import os

import pytest

from perfgate.measure import instructions
from perfgate.measure.callgrind import CALLS, REPEATS, CollectionError

HERE = {"torch": "2.13.0+cpu", "python": "3.11.7 (main)", "capability": "AVX2"}

# The head of a dump that valgrind 3.19 wrote of an affine layer, and its end.
DUMP = """# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 21387
cmd:  /usr/bin/python3 ../t.py on
part: {part}


desc: I1 cache:
desc: D1 cache:
desc: LL cache:

desc: Timerange: Basic block 0 - 10223
desc: Trigger: Client Request

positions: line
events: Ir
summary: {total}


ob=(2) ???
fl=(2) ???
fn=(2) 0x0000000000000000
0 {total}

totals: {total}
"""


@pytest.fixture
def process(tmp_path):
    """What a process leaves: a plan, and dumps of two statements in turn, the first discarded."""
    names = ["kan forward", "kan backward"]
    plan = {"names": names, "environment": HERE}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    for part in range(1, (1 + REPEATS) * 2 + 1):
        total = 999_999_999 if part <= 2 else 58_488 * CALLS if part % 2 else 121_000 * CALLS + part
        (tmp_path / f"callgrind.out.{part}").write_text(DUMP.format(part=part, total=total))
    (tmp_path / "callgrind.out").write_text(DUMP.format(part=99, total=0))
    return tmp_path


def test_dumps_are_read_in_turn_and_the_first_repeat_is_discarded(process):
    parts = range(4, (1 + REPEATS) * 2 + 1, 2)
    backward = 121_000 + round(sum(parts) / (REPEATS * CALLS))
    found = instructions.read_process(process)
    assert found == (HERE, {"kan forward": [58_488], "kan backward": [backward]})


@pytest.mark.parametrize("text", [None, "", DUMP.format(part=5, total=0)])
def test_a_dump_that_counted_nothing_is_an_error(process, text):
    dump = process / "callgrind.out.5"
    dump.unlink() if text is None else dump.write_text(text)
    with pytest.raises(CollectionError, match=r"counted nothing of kan forward .callgrind\.out\.5"):
        instructions.read_process(process)


def test_a_process_without_a_plan_is_an_error(process):
    (process / "plan.json").unlink()
    with pytest.raises(CollectionError, match=r"left no plan.json; expected .* call count"):
        instructions.read_process(process)


@pytest.fixture
def valgrind(tmp_path, monkeypatch):
    """A valgrind that leaves what the script of a test says."""

    def install(script):
        program = tmp_path / "valgrind"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="as valgrind, on Linux")


@linux
def test_each_process_has_a_fixed_environment_of_its_own(process, valgrind, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD_NOT", "secret")
    valgrind(
        f'cp {process}/plan.json {process}/callgrind.* .\nenv > "{process}/env$PYTHONHASHSEED"'
    )
    found = instructions.collect(["script.py"], processes=3)
    assert found.calls["kan forward"] == [58_488] * 3
    variables = [(process / f"env{seed}").read_text() for seed in range(3)]
    assert all("GLIBC_TUNABLES=glibc.malloc.arena_max=1" in text for text in variables)
    assert not any("secret" in text for text in variables)


@linux
def test_a_process_that_fails_is_an_error_with_its_last_words(valgrind):
    valgrind("echo no such instruction; exit 3")
    with pytest.raises(
        CollectionError, match=r"ended with status 3; expected 0(.|\n)*no such inst"
    ):
        instructions.collect(["script.py"], processes=1)


def test_where_nothing_can_be_counted_says_why(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert "on Linux only, and this is darwin" in instructions.unavailable()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("torch._C._valgrind_supported_platform", lambda: True)
    monkeypatch.setenv("PATH", "/nowhere")
    assert instructions.unavailable().endswith("apt install valgrind")
    monkeypatch.setattr("torch._C._valgrind_supported_platform", lambda: False)
    assert "built without valgrind's requests" in instructions.unavailable()
