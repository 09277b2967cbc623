"""Which side comes first: of rounds, of benchmarks and of processes, told by made-up sides."""

import contextlib

import pytest

from perfgate.ab import duel as dueling
from perfgate.ab.duel import Plan, duel
from perfgate.measure.rounds import OWN, Round
from tests.perfgate.measurements import measurement, run_of

PLAN = Plan(min_rounds=4, max_rounds=4)


class MadeUp:
    """A side of a pair of processes, which notes its turns."""

    def __init__(self, label, names, log, failing=(), ending=(), skipping=()):
        self.label, self.collected, self.log = label, set(names), log
        self.failing, self.ending, self.skipped = failing, ending, set(skipping)
        self.now = None

    def select(self, names):
        self.log.append((self.label, "selects", tuple(names)))

    def wait_for(self, name):
        self.now = name
        return name not in self.skipped

    def start_warm_up(self):
        self.log.append((self.label, "warms up", self.now))

    def end_warm_up(self):
        self.log.append((self.label, "is warm", self.now))
        return None if self.now in self.failing else 0.1

    def turn(self):
        self.log.append((self.label, self.now))
        return None if self.now in self.ending else Round({OWN: 1.0})

    def stop(self, name):
        pass

    def run(self):
        return run_of(*(measurement(name=name) for name in self.collected))


@pytest.fixture
def measured(monkeypatch):
    """A pair of made-up processes, and what they did in which order."""

    def measure(names=("a", "b"), base_first=True, asked=True, **sides):
        log = []

        @contextlib.contextmanager
        def side(label, command, folder, told, with_memory):
            log.append((label, "starts", told and tuple(told)))
            yield MadeUp(label, names, log, **sides.get(label, {}))

        monkeypatch.setattr(dueling, "_side", side)
        wanted = list(names) if asked else None
        pair = duel(None, None, wanted, PLAN, False, lambda text: None, base_first)
        return pair, log

    return measure


def turns(log, name):
    return [label for label, what, *_ in log if what == name]


@pytest.mark.parametrize(
    ("base_first", "first", "second"), [(True, "base", "head"), (False, "head", "base")]
)
def test_each_side_comes_first_in_half_of_the_rounds_and_benchmarks(
    measured, base_first, first, second
):
    _, log = measured(base_first=base_first)
    # The first benchmark has the number 1, and begins with the other side than the second one.
    # A block comes before those that are counted.
    assert turns(log, "a") == [second, first, first, second] * 3
    assert turns(log, "b") == [first, second, second, first] * 3


def test_both_sides_warm_up_at_once(measured):
    # In turn, the first would touch its memory first, and keep worse pages.
    _, log = measured(("a",))
    told = [(what, label) for label, what, *_ in log if "warm" in what]
    assert [what for what, _ in told] == ["warms up"] * 2 + ["is warm"] * 2


def test_the_first_block_is_not_counted(measured, monkeypatch):
    seconds = {"base": iter([2.0] * 2 + [1.0] * 4), "head": iter([1.0] * 6)}

    def turn(self):
        return Round({OWN: next(seconds[self.label])})

    monkeypatch.setattr(MadeUp, "turn", turn)
    pair, _ = measured(("a",))
    assert pair.compared["a"].median_ns == 1
    assert pair.compared["a"].rounds == 4


@pytest.mark.parametrize("base_first", [True, False])
def test_the_process_that_starts_first_changes_from_pair_to_pair(measured, base_first):
    pair, log = measured(base_first=base_first)
    starts = [label for label, what, *_ in log if what == "starts"]
    assert starts == (["base", "head"] if base_first else ["head", "base"])
    assert pair.base.measurements.keys() == {"a", "b"}


def test_without_names_the_head_says_which_there_are(measured):
    _, log = measured(asked=False)
    started = [entry for entry in log if entry[1] == "starts"]
    assert started == [("head", "starts", None), ("base", "starts", ("a", "b"))]


def test_what_fails_is_told_by_the_sides_on_which_it_does(measured):
    names = ("both", "fine", "gone", "late", "new", "skipped")
    pair, _ = measured(
        names,
        base={"failing": {"both", "new"}, "ending": {"late"}, "skipping": {"skipped"}},
        head={"failing": {"both", "gone"}, "ending": {"late"}, "skipping": {"skipped"}},
    )
    assert list(pair.compared) == ["fine"]
    assert (pair.gone, pair.new) == (["gone"], ["new"])
    # What both skip is of another machine.
    assert pair.failed == ["both", "late"]


def test_what_was_asked_and_neither_side_collects_failed(measured, monkeypatch):
    pair, _ = measured(("a",))
    assert pair.failed == []
    monkeypatch.setattr(
        MadeUp, "collected", property(lambda self: set(), lambda self, v: None), raising=False
    )
    pair, _ = measured(("a",))
    assert pair.failed == ["a"]
