"""Which implementation to take, by stored figures."""

import json

import pytest

from perfgate.advise import NoAdviceError, advise
from perfgate.cli import main
from perfgate.judge.parse import parse_run
from tests.perfgate.runs import KANS, steps_data


def test_names_the_fastest_and_the_smallest():
    text = advise([parse_run(steps_data(*KANS))], 100, [10, 10, 1])
    assert "fastest:  quick, 2.00 ms, 10.0 MB\n" in text
    assert "smallest: small, 3.00 ms, 2.0 MB\n" in text
    beaten = [line for line in text.splitlines() if line.startswith("| neither")]
    assert beaten[0].split("|")[-2].strip() == "small"
    assert "Measured at batch 100 on Test CPU" in text


def test_memory_leaves_out_what_does_not_fit():
    run = parse_run(steps_data(*KANS))
    assert "fastest:  small" in advise([run], 100, [10, 10, 1], memory_bytes=7e6)
    with pytest.raises(NoAdviceError, match="nothing fits into 1 MB, and the smallest takes 2"):
        advise([run], 100, [10, 10, 1], memory_bytes=1e6)


def test_the_nearest_shape_answers():
    runs = [parse_run(steps_data(("kan", 2.0, 1.0), batch=batch)) for batch in (8, 100, 4096)]
    assert "Measured at batch 100 on" in advise(runs, 64, [10, 10, 1])
    assert "Measured at batch 4,096 on" in advise(runs, 4096, [10, 20, 1])
    assert "asked for batch 1,000, 10 -> 20 -> 1." in advise(runs, 1000, [10, 20, 1])


def test_a_device_is_named_by_a_part_of_its_key():
    runs = [parse_run(steps_data(("kan", 2.0, 1.0), device_key=f"{name}_test")) for name in "ab"]
    assert "fastest" in advise(runs, 100, [10, 1], "b_test")
    with pytest.raises(NoAdviceError, match="nothing is stored of cuda; expected measured figures"):
        advise(runs, 100, [10, 1], "cuda")


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "benchmarks/baselines/cpu_test"
    folder.mkdir(parents=True)
    (folder / "0001_base.json").write_text(json.dumps(steps_data(*KANS)))
    assert main(["advise", "--batch=100", "--widths", "10", "10", "1", "--memory=7"]) == 0
    assert "fastest:  small" in capsys.readouterr().out
    assert main(["advise", "--batch=100", "--widths", "10"]) == 1
    assert "--widths is 10; expected the features" in capsys.readouterr().err
