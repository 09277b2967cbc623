"""The plot of time against memory, and which implementations no other one beats."""

import pytest

from perfgate.judge.parse import parse_run
from perfgate.report.measured import measurement_entry
from perfgate.report.pareto import frontier, time_against_memory
from perfgate.report.plot import looks
from tests.perfgate.runs import KANS, steps_data


def entries_of(*choices):
    return [measurement_entry(m) for m in parse_run(steps_data(*choices)).measurements.values()]


@pytest.mark.parametrize(
    ("costs", "best"),
    [
        ({"quick": (1, 9), "small": (3, 2), "beaten": (4, 3)}, ["quick", "small"]),
        ({"best": (1, 1), "slow": (2, 1), "large": (1, 2)}, ["best"]),
        ({"one": (1, 1), "same": (1, 1)}, ["one"]),
    ],
)
def test_the_frontier_is_what_none_beats(costs, best):
    assert [name for name, _ in frontier(list(costs.items()))] == best


def test_the_plot_has_a_point_for_each_and_a_line_through_the_best():
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'kan-impls[report]'")
    entries = entries_of(*KANS)
    (plot,) = time_against_memory(entries, looks([name for name, *_ in KANS]))
    line, *points = plot.json["data"]
    found = {point["name"]: (*point["x"], *point["y"]) for point in points}
    assert found == {
        "quick": pytest.approx((2.0, 10.0)),
        "small": pytest.approx((3.0, 2.0)),
        "neither": pytest.approx((4.0, 6.0)),
    }
    assert list(line["x"]) == pytest.approx([2.0, 3.0])
    assert list(line["y"]) == pytest.approx([10.0, 2.0])
    assert "quick 2 ms, 10 MB; small 3 ms, 2 MB." in plot.alt
    assert "neither" not in plot.alt


def test_one_implementation_is_compared_with_none():
    assert list(time_against_memory(entries_of(KANS[0]), looks(["quick"]))) == []
