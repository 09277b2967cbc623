"""The comparison of how well networks learn: sizes, points of time, and what the table says."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import quality
from quality import Point, Result, Task, task_called, train, widths_of

FORMULA = "x y + z w"


@pytest.mark.parametrize("name", ["mlp", "fused_fourier_kan", "fused_wav_kan"])
def test_a_network_is_as_wide_as_its_parameters_allow(name):
    task = task_called(FORMULA)
    widths = widths_of(name, task)

    def count(hidden):
        model = quality.model_of(name, [widths[0], hidden, widths[2]])
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    assert count(widths[1]) <= quality.PARAMETERS < count(widths[1] + 1)


def test_formulas_are_scaled_and_partly_unseen():
    task = task_called(FORMULA)
    assert (len(task.x), len(task.unseen_x), task.outputs) == (1000, 1000, 1)
    assert (task.x.amin(), task.x.amax()) == (-1, 1)
    assert task.y.std() == pytest.approx(1, abs=1e-6)
    own = task.without_held_back()
    assert (len(own.x), len(own.unseen_x)) == (800, 200)


def test_a_task_that_does_not_exist_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit):
        quality.main(["--out", str(tmp_path / "quality"), "--tasks", "irises"])
    assert "invalid choice: 'irises' (choose from" in capsys.readouterr().err
    assert not (tmp_path / "quality").exists()


def test_data_sets_have_classes_or_numbers():
    pytest.importorskip("sklearn", reason="pip install 'kan-impls[quality]'")
    tasks = map(task_called, quality.DATA_SETS)
    shapes = {task.name: (task.x.shape, task.outputs) for task in tasks}
    assert shapes == {
        "digits": ((1347, 64), 10),
        "wine": ((133, 13), 3),
        "diabetes": ((331, 10), 1),
    }


def test_errors_are_parts_of_what_could_be_wrong():
    x = torch.eye(4)
    classes = Task("classes", x, torch.tensor([0, 1, 2, 3]), x, torch.tensor([0, 1, 2, 0]))
    assert classes.error(torch.nn.Identity(), classes.unseen_x, classes.unseen_y) == 0.25
    y = torch.tensor([[1.0], [-1.0]])
    numbers = Task("numbers", y, y, y, y)
    assert numbers.error(torch.nn.Identity(), y, y) == 0
    half = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(half.weight, 0.5)
    assert numbers.error(half, y, y) == pytest.approx(0.5 / 2**0.5)


def test_training_learns_the_same_from_the_same_seed():
    task = task_called(FORMULA)
    first, again, other = (
        train("fused_fourier_kan", [4, 6, 1], task, 0.01, seed, steps=60) for seed in (0, 0, 1)
    )
    assert [p.error for p in first] == [p.error for p in again]
    assert first[-1].error != other[-1].error
    assert first[-1].step == 60
    assert first[-1].error < 0.9 * first[0].error
    assert all(a.seconds < b.seconds for a, b in itertools.pairwise(first))


def test_equal_time_is_that_of_the_mlp():
    def result(name, *points):
        return Result(name, [4, 2, 1], 0.01, [[Point(*point) for point in points]])

    results = [
        result("mlp", (1, 0.5, 0.4), (2, 1.0, 0.3)),
        result("slow_kan", (1, 0.9, 0.2), (2, 1.8, 0.1)),
        result("slower_kan", (1, 3.0, 0.5), (2, 6.0, 0.05)),
    ]
    lines = quality.table(task_called(FORMULA), results).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "kan" in line]
    assert [row[0] for row in rows] == ["slower_kan", "slow_kan"]
    assert [row[3].split()[0] for row in rows] == ["5.0", "10.0"]
    # Of the slower one no point is in time: the first one tells.
    assert [row[4].split()[0] for row in rows] == ["50.0", "20.0"]


def test_the_command_writes_what_it_found(tmp_path, capsys):
    names = ["mlp", "fused_rational_kan"]
    quality.main(
        [
            "--out",
            str(tmp_path),
            "--tasks",
            FORMULA,
            "--implementations",
            *names,
            "--steps",
            "4",
            "--seeds",
            "2",
        ]
    )
    found = json.loads((tmp_path / "quality.json").read_text())
    assert [result["implementation"] for result in found[FORMULA]] == names
    assert all(len(result["trainings"]) == 2 for result in found[FORMULA])
    said = capsys.readouterr()
    assert "| fused_rational_kan" in (tmp_path / "quality.md").read_text()
    assert f"### {FORMULA}" in said.out
    assert f"{FORMULA}: seed 2 of 2" in said.err


def test_one_form_of_each_implementation_is_compared():
    names = quality.default_implementations()
    assert {"mlp", "fused_efficient_kan", "fused_rational_kan"} <= set(names)
    assert "efficient_kan" not in names
