"""Which machine a run came from."""

import pytest

from perfgate.judge.provenance import Machine, Origin, parse_machine, same_machine
from perfgate.measure.machine import describe_machine

CPUINFO, VENDOR = "proc/cpuinfo", "sys/class/dmi/id/sys_vendor"
FLAGS = {True: "flags : fpu hypervisor\n", False: "flags : fpu\n"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine's files; a function that writes more of them."""
    monkeypatch.setattr("platform.system", lambda: "Linux")

    def write(files=()):
        for name, text in dict(files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    write(
        {
            "etc/machine-id": "0123abcd\n",
            "proc/sys/kernel/random/boot_id": "b00t\n",
            CPUINFO: FLAGS[False],
        }
    )
    return write


def test_ids_are_hashed_and_stay_the_same(root):
    machine = describe_machine(root())
    assert machine == describe_machine(root())
    assert machine.keys() == {"id", "hypervisor", "boot"}
    assert "0123abcd" not in str(machine)
    assert "b00t" not in str(machine)
    other = describe_machine(root({"etc/machine-id": "0123abce\n"}))
    assert other["id"] != machine["id"]
    assert other["boot"] == machine["boot"]


def test_a_container_has_no_id_but_the_boot_of_its_host(root):
    machine = describe_machine(root({".dockerenv": ""}))
    assert machine["id"] is None
    assert machine["boot"]


@pytest.mark.parametrize(
    ("files", "hypervisor"),
    [
        ({}, "none"),
        ({CPUINFO: FLAGS[True]}, "vm"),
        ({CPUINFO: "Features : fp\n"}, None),
        ({CPUINFO: FLAGS[True], VENDOR: "Amazon EC2"}, "amazon"),
        ({CPUINFO: "Features : fp\n", VENDOR: "Amazon EC2"}, "amazon"),
        # A laptop of a maker of hypervisors.
        ({VENDOR: "Microsoft Corporation"}, "none"),
        ({CPUINFO: FLAGS[True], VENDOR: "Microsoft Corporation"}, "microsoft"),
        ({"sys/hypervisor/type": "xen"}, "xen"),
    ],
)
def test_hypervisors(root, files, hypervisor):
    assert describe_machine(root(files))["hypervisor"] == hypervisor


def test_a_machine_that_tells_nothing(tmp_path, monkeypatch):
    for system in ("Linux", "Darwin", "Windows"):
        monkeypatch.setattr("platform.system", lambda system=system: system)
        monkeypatch.setattr("perfgate.measure.machine._output_of", lambda *command: "")
        assert describe_machine(tmp_path) == {"id": None, "hypervisor": None, "boot": None}


def test_which_machines_are_the_same():
    a = Machine("1", "kvm", "x")
    assert same_machine(a, a)
    assert same_machine(a, Machine("1", "kvm", "y"))  # started anew
    assert same_machine(a, Machine(None, None, "x"))  # a container on it
    assert not same_machine(a, Machine("2", "kvm", "y"))
    assert not same_machine(a, Machine("1", "none", "y"))  # an image that runs elsewhere
    # Nothing is known of them.
    assert not same_machine(Machine(None), Machine(None))
    assert not same_machine(a, None)
    assert not same_machine(None, None)


def test_a_stored_run_names_its_machine_or_none():
    machine = {"id": "1", "hypervisor": None, "boot": "x"}
    assert parse_machine({"perfgate": {"machine": machine}}) == Machine("1", None, "x")
    assert parse_machine({"perfgate": {}}) is None
    assert parse_machine({}) is None


def test_runs_of_one_day_and_machine_are_alike():
    morning, evening = Origin("2026-01-02T03:04:05", "m"), Origin("2026-01-02T20:00:00", "m", "b")
    assert morning.cluster == evening.cluster
    assert Origin("2026-01-03T03:04:05", "m").cluster != morning.cluster
    assert Origin("2026-01-02T03:04:05", None, "b").cluster != morning.cluster
