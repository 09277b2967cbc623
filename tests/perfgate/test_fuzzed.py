"""Whatever a file holds, a loader takes it or raises what it documents, and a command ends with the
status that the table of statuses has for it."""

import argparse
import hashlib
import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import strategies as st

from kan_impls.fused import cubin_cache, decisions
from perfgate import compare, options
from perfgate.cli import main
from perfgate.judge.limits import LimitsError, read_rules
from perfgate.judge.parse import parse_run
from perfgate.report.document import ReportError, to_json
from perfgate.report.outcome import read_whole, ruling
from perfgate.store import baseline, device_free_baseline, instructions_baseline, last_run
from perfgate.store.baseline import BaselineError
from tests.perfgate.fuzzing import contents, fuzz, outcome
from tests.perfgate.runs import judged_document, judged_runs

# In `make test`, and in `make check`, where all of this file takes about five minutes.
EXAMPLES = [20, pytest.param(2500, marks=pytest.mark.fuzz)]
EXAMPLES_OF_A_COMMAND = [10, pytest.param(400, marks=pytest.mark.fuzz)]

BEFORE, NOW = judged_runs()
KEY = parse_run(NOW).device_key
BASELINE = json.dumps(BEFORE).encode()

LIMITS = b"""[tool.perfgate]
[[tool.perfgate.limits]]
implementation = "fourier_kan"
visible = 0.2
memory_bytes = 10
reason = "why"
expires = 2999-06-30
"""

ENVIRONMENT = {"gpu": "x", "driver": "1"}


def stored_figures(file):
    """A stored file; of many cases and implementations one and two are enough to damage."""
    root = Path(__file__).resolve().parents[2]
    data = json.loads((root / "benchmarks" / "baselines" / file).read_text())
    if "cases" in data:
        name, implementations = next(iter(data["cases"].items()))
        data["cases"] = {name: dict(list(implementations.items())[:2])}
    return data


@pytest.fixture
def path(tmp_path):
    return tmp_path / "0001_x.json"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_baseline(path, examples):
    pyproject, now = path.parent / "none.toml", parse_run(NOW)

    def run(content):
        path.write_bytes(content)
        stored, error = outcome(
            lambda: compare.load(path.parent, KEY, str(path), pyproject), BaselineError
        )
        if error is None:
            assert {v.name for v in stored.judge(now, {}, [])} >= now.measurements.keys()
        else:
            assert "\n" not in error

    fuzz(contents(BASELINE), examples, run)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_folder_of_baselines(tmp_path, examples):
    folder = tmp_path / KEY
    folder.mkdir()
    (folder / "0001_x.json").write_bytes(BASELINE)

    def run(content):
        (folder / "0002_x.json").write_bytes(content)
        _, error = outcome(
            lambda: compare.load(tmp_path, KEY, None, tmp_path / "none.toml"), BaselineError
        )
        assert error is None or "0002_x.json" in error
        assert baseline.history(tmp_path, KEY)

    fuzz(contents(BASELINE), examples, run)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(
    ("store", "file"),
    [
        (device_free_baseline, "device_free.json"),
        (instructions_baseline, "instructions.json"),
    ],
    ids=["device_free", "instructions"],
)
def test_exact_figures(path, store, file, examples):
    """What is read is compared with what was stored, in sentences."""
    text = json.dumps(stored_figures(file)).encode()
    path.write_bytes(text)
    good = store.STORE.read(path)

    def run(content):
        path.write_bytes(content)
        found, _ = outcome(lambda: store.STORE.read(path), BaselineError)
        for stored in found or ():
            for key, now in good[0].entries.items():
                store.STORE.differences(stored, key, now, str(key), lambda *of: [])
            store.unknown(stored, list(good[0].entries))

    fuzz(contents(text), examples, run)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_limits(tmp_path, examples):
    path = tmp_path / "pyproject.toml"

    def run(content):
        path.write_bytes(content)
        _, error = outcome(lambda: read_rules(path), LimitsError)
        assert error is None or str(path) in error

    odd = st.sampled_from([b"1", b"[]", b"[1]", b"{}", b'"x"', b"nan", b"-inf", b"2027-01-01"])
    keys = st.sampled_from([b"tool", b"tool.perfgate", b"tool.kan_impls", b"tool.perfgate.limits"])
    values = [b'"fourier_kan"', b"0.2", b"10", b'"why"', b"2999-06-30"]
    replaced = st.tuples(st.sampled_from(values), odd).map(lambda pair: LIMITS.replace(*pair))
    lines = st.tuples(keys, odd).map(b" = ".join)
    fuzz(contents(LIMITS, is_json=False) | lines | replaced, examples, run)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_report_and_its_status(tmp_path, examples):
    path, valid = tmp_path / "report.json", to_json(judged_document()).encode()

    def run(found):
        content, code = found
        path.write_bytes(content)
        (tmp_path / "exit_code").write_bytes(code)
        _, error = outcome(lambda: ruling(read_whole(tmp_path)), ReportError)
        assert error is None or str(tmp_path) in error

    codes = st.sampled_from([b"10", b"0", b"10\n"]) | st.binary(max_size=6)
    fuzz(st.tuples(contents(valid), codes), examples, run)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_decisions_and_compiled_kernels_of_a_cache(tmp_path, monkeypatch, examples):
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path))
    decisions.write("proofs", ENVIRONMENT, "subject", {"passed": True})
    decided = decisions.path_of("proofs", ENVIRONMENT, "subject")
    entry = cubin_cache.key(of="a kernel")
    cubin_cache.write(entry, {"registers": 1}, b"image")
    (kernel,) = tmp_path.glob("*.kernel")
    whole = kernel.read_bytes()
    start = whole.index(b"\n") + 1 + hashlib.sha256().digest_size

    def run(found):
        content, body = found
        decided.write_bytes(content)
        assert isinstance(decisions.read("proofs", ENVIRONMENT, "subject"), (dict, type(None)))
        assert len(list(decisions.stored("proofs", ENVIRONMENT))) <= 1
        # Of whoever can compute a digest.
        head = whole[: whole.index(b"\n") + 1]
        kernel.write_bytes(head + hashlib.sha256(body).digest() + body)
        assert isinstance(cubin_cache.read(entry), (tuple, type(None)))

    kernels = contents(whole[start:], is_json=False)
    fuzz(st.tuples(contents(decided.read_bytes()), kernels), examples, run)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_values_of_options(tmp_path, monkeypatch, examples):
    """As a shell, a workflow's inputs or `addopts` may hand them over."""
    monkeypatch.chdir(tmp_path)
    takers = (
        *(options.path, options.folder, options.words, options.at_least(1), options.seconds),
        options.wanted_baseline,
    )

    def run(text):
        for take in takers:
            _, error = outcome(partial(take, text), argparse.ArgumentTypeError, ValueError)
            assert error != ""

    odd = ["", " ", "\0", "a" * 5000, "nan", "inf", "-1", "1e999", "٣", "1_0", "\udcff", "x.py"]
    fuzz(st.sampled_from(odd) | st.text(max_size=20), examples, run)


def status_of(*arguments):
    """The exit status of `kan-bench`, whether argparse or the command says it."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("examples", EXAMPLES_OF_A_COMMAND)
def test_accept_ends_with_0_or_1_and_stores_what_can_be_read(tmp_path, capsys, examples):
    run_file, stored = tmp_path / "run.json", tmp_path / "baselines"

    def run(content):
        run_file.write_bytes(content)
        code = status_of("accept", "--run", run_file, "--baselines", stored, "--replace")
        said = capsys.readouterr()
        assert code in (0, 1)
        assert said.err.count("\n") == code, said.err
        for file in stored.rglob("*.json"):
            baseline.read_run(file)
            file.unlink()

    fuzz(contents(json.dumps(NOW).encode()), examples, run)


@pytest.mark.parametrize("examples", EXAMPLES_OF_A_COMMAND)
def test_report_ends_with_0_or_1(tmp_path, capsys, examples):
    document, valid = tmp_path / "x.json", to_json(judged_document()).encode()

    def run(content):
        document.write_bytes(content)
        code = status_of(
            "report", document, "--out", tmp_path / "out", "--baselines", tmp_path / "none"
        )
        said = capsys.readouterr()
        assert code in (0, 1)
        if code:
            assert said.err.count("\n") == 1, said.err

    fuzz(contents(valid), examples, run)


@pytest.mark.parametrize("examples", EXAMPLES_OF_A_COMMAND)
def test_the_last_run_that_was_not_kept(tmp_path, monkeypatch, examples):
    """The word of a run that began, whatever is in it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = tmp_path / "last_run.json"
    kept.write_text(json.dumps(NOW))
    last_run.begin(kept)
    (word,) = tmp_path.glob("*.unkept")

    def run(content):
        word.write_bytes(content)
        with pytest.raises(BaselineError, match="was not kept"):
            last_run.read(kept)

    fuzz(st.binary(max_size=60), examples, run)
