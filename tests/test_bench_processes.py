"""Workers: their orders, their channel, and what becomes of those that fail."""

import json
import os
import sys

import pytest

from kan_impls.bench.measure.rounds import OWN, Round
from kan_impls.bench.processes import Command, WorkerError, measure_in_process
from kan_impls.bench.worker import Channel, ChannelClosedError, NoTurnError, Order, Turns
from tests.bench_runs import run_data


def python(code, tmp_path):
    """A command that runs code in pytest's place; the order is its last argument."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\norder = json.load(open(sys.argv[1].split('=')[1]))\n" + code
    )
    return Command([], tmp_path, (sys.executable, str(script)))


def test_an_order_is_read_as_it_was_written(tmp_path):
    order = Order("out.json", ["a", "b"], only_times=False, processes=3, channel=(5, 6))
    order.write(tmp_path / "order.json")
    assert Order.read(tmp_path / "order.json") == order


def test_a_worker_writes_its_run_and_says_what_it_measures(tmp_path):
    data = json.dumps(run_data("a"))
    code = f"print('[1/1] test_x[a] .')\nopen(order['output'], 'w').write({data!r})"
    heard = []
    measured = measure_in_process(python(code, tmp_path), Order(names=["a"]), heard.append)
    assert measured == run_data("a")
    assert heard == ["[1/1] test_x[a]"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('it broke'); sys.exit(3)", r"ended with status 3; expected 0(.|\n)*it broke"),
        ("print('done')", r"left no run(.|\n)*done"),
        ("open(order['output'], 'w').write('{')", "left no run"),
        ("open(order['output'], 'w').write('{}')", "left no run"),
    ],
)
def test_a_worker_that_failed_is_an_error_with_its_last_words(tmp_path, code, message):
    with pytest.raises(WorkerError, match=message):
        measure_in_process(python(code, tmp_path), Order(), lambda text: None)


def test_a_worker_does_not_inherit_the_state_of_the_test_that_started_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    code = "import os; sys.exit(f\"the rest is {os.environ.get('PYTEST_XDIST_WORKER')}\")"
    command = python(code, tmp_path)
    with pytest.raises(WorkerError, match="the rest is None"):
        measure_in_process(command, Order(), lambda text: None)


@pytest.fixture
def ends():
    """Both ends of a channel."""
    here_reads, there_writes = os.pipe()
    there_reads, here_writes = os.pipe()
    both = Channel(here_reads, here_writes), Channel(there_reads, there_writes)
    yield both
    for end in both:
        end.close()


def test_rounds_are_taken_in_turns(ends):
    coordinator, worker = ends
    for message in ({"go": 1}, {"go": 1}, {"go": 1}, {"go": 1}, {"stop": True}):
        coordinator.send(**message)
    schedule = Turns(worker, "a")
    schedule.start()
    for _ in schedule.turns(0.25, whole=0.5):
        schedule.done(Round({OWN: 1.0}, "busy"))
    assert coordinator.receive() == {"ready": "a"}
    assert coordinator.receive() == {"warm": 0.5}
    expected = {"round": {"seconds": {OWN: 1.0}, "disturbance": "busy"}}
    assert [coordinator.receive() for _ in range(3)] == [expected] * 3


def test_no_turn_at_all_is_told_from_no_more_turns(ends):
    coordinator, worker = ends
    coordinator.send(stop=True)
    with pytest.raises(NoTurnError):
        Turns(worker, "a").start()


def test_an_end_that_is_gone_is_noticed(ends):
    coordinator, worker = ends
    worker.close()
    with pytest.raises(ChannelClosedError):
        coordinator.receive()
    with pytest.raises(ChannelClosedError):
        coordinator.send(go=True)
