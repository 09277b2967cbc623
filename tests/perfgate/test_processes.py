"""Workers: their orders, their channel, and what becomes of those that fail."""

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace

import psutil
import pytest

from perfgate.files import remove_folders
from perfgate.measure.rounds import OWN, Round
from perfgate.run import lifeline
from perfgate.run.processes import Command, WorkerError, WorkerStoppedError, measure_in_process
from perfgate.run.worker import Channel, ChannelClosedError, NoTurnError, Order, Turns
from tests.forked import CONTEXT, forked
from tests.perfgate.runs import run_data


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
    code = f"print('[1/1, 30 s left] test_x[a] .')\nopen(order['output'], 'w').write({data!r})"
    heard = []
    measured = measure_in_process(python(code, tmp_path), Order(names=["a"]), heard.append)
    assert measured == run_data("a")
    assert heard == ["[1/1, 30 s left] test_x[a]"]


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


# A process that hangs, is killed, or whose starter is


def test_a_worker_that_hangs_is_ended_and_the_benchmark_named(tmp_path):
    code = "import time\nprint('[2/3] test_x[a] ', end='', flush=True)\ntime.sleep(60)"
    command = replace(python(code, tmp_path), timeout=1.0)
    heard = []
    with pytest.raises(
        WorkerStoppedError, match=r"no progress for 1 seconds in \[2/3\] test_x\[a\]; expected"
    ):
        measure_in_process(command, Order(), heard.append)
    assert heard == ["[2/3] test_x[a]"]


def test_progress_is_what_a_worker_says_and_not_how_long_it_takes(tmp_path):
    data = json.dumps(run_data("a"))
    code = (
        "import time\nfor n in range(8): print(n, flush=True); time.sleep(0.25)\n"
        f"open(order['output'], 'w').write({data!r})"
    )
    command = replace(python(code, tmp_path), timeout=1.5)
    assert measure_in_process(command, Order(), lambda text: None) == run_data("a")


def test_a_worker_that_is_killed_is_told_from_one_that_failed(tmp_path):
    code = "import os\nprint('[1/1] test_x ', flush=True)\nos.kill(os.getpid(), 9)"
    with pytest.raises(WorkerStoppedError, match=r"signal 9 \(SIGKILL\) ended it(.|\n)*test_x"):
        measure_in_process(python(code, tmp_path), Order(), lambda text: None)


@pytest.mark.parametrize("where", ["python", "folder"])
def test_a_worker_that_cannot_be_started_is_one_line(tmp_path, where):
    gone = tmp_path / "gone"
    command = Command([], tmp_path, (str(gone),)) if where == "python" else Command([], gone)
    with pytest.raises(WorkerError, match=r"cannot be started .*gone") as caught:
        measure_in_process(command, Order(), lambda text: None)
    assert "\n" not in str(caught.value)


def start_worker(folder, said):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a process that nobody has prepared
    command = Command([], folder, (sys.executable, str(folder / "worker.py")))
    measure_in_process(command, Order(), said.send)


WORKER = """
import os, time
from perfgate.run import lifeline
lifeline.hold()
print(f"[1/1] {os.getpid()} ", flush=True)
while True:  # busy, as measuring is
    sum(range(1000))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ends_with_who_started_it(tmp_path, monkeypatch, number):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    heard, said = CONTEXT.Pipe(duplex=False)
    starter = CONTEXT.Process(target=start_worker, args=(tmp_path, said))
    starter.start()
    assert heard.poll(timeout=60)
    worker = psutil.Process(int(heard.recv().split()[1]))
    os.kill(starter.pid, number)
    starter.join(timeout=10)  # a cancelled one has time to clear up
    assert starter.exitcode == (143 if number == signal.SIGTERM else -9)
    worker.wait(timeout=10)
    left = [path.name for path in tmp_path.glob("kan-bench-*")]
    assert len(left) == (number == signal.SIGKILL)
    remove_folders()
    assert not list(tmp_path.glob("kan-bench-*"))


def take_for_ever(said):
    with lifeline.limit(0.2, "test_x", 18, said.write_text):
        time.sleep(60)


def test_a_benchmark_that_takes_for_ever_ends_its_process(tmp_path):
    said = tmp_path / "said"
    assert forked(take_for_ever, (said,)) == [18]
    assert "test_x made no progress for 0.2 seconds" in said.read_text()
