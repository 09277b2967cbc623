"""The device: its choice, what decides its speed, and the key of its baselines."""

import json
import subprocess
import sys
from types import SimpleNamespace

import archspec.cpu
import pytest
import torch

from perfgate.judge.device_key import device_key, recorded_environment
from perfgate.measure.environment import describe_environment, resolve_device
from perfgate.measure.gpu import describe_gpu
from perfgate.measure.processor import (
    describe_processor,
    usable_cores,
    x86_microarchitecture,
)

CPU = torch.device("cpu")


def test_the_key_holds_what_figures_depend_on(monkeypatch):
    environment = describe_environment(CPU)
    key = environment["device_key"]
    torch_version = ".".join(torch.__version__.split(".")[:2])
    assert key.startswith("cpu_")
    assert f"_torch{torch_version}_threads{torch.get_num_threads()}_highest" in key
    assert f"_{torch.backends.cpu.get_cpu_capability().lower().replace(' ', '-')}_cores" in key
    # An earlier test in this process may have set the newer interface, which cannot be unset.
    matmul = SimpleNamespace(matmul=SimpleNamespace(fp32_precision="none"))
    monkeypatch.setattr(torch.backends, "mkldnn", matmul)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert describe_environment(CPU)["device_key"] == key.replace("highest", "high")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert "threads77" in describe_environment(CPU)["device_key"]


SETTINGS = {
    "pass": "highest",
    "torch.set_float32_matmul_precision('high')": "high",
    "torch.set_float32_matmul_precision('medium')": "medium",
    # After each of the others torch refuses to tell the older interface's value.
    "b.mkldnn.matmul.fp32_precision = 'bf16'": "medium",
    "b.fp32_precision = 'tf32'": "high",
    "b.cuda.matmul.fp32_precision = 'tf32'": "highest",  # which is no business of a CPU
    "b.mkldnn.matmul.fp32_precision = 'bf16'; b.mkldnn.matmul.fp32_precision = 'ieee'": "highest",
}


def test_matmul_precision_by_either_interface():
    # In a process of its own: nothing sets a precision back to where it never was set.
    code = (
        "import json, os, sys, torch\n"
        "from perfgate.measure.environment import describe_settings\n"
        "b = torch.backends\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    if os.fork() == 0:\n"
        "        exec(line)\n"
        "        print(describe_settings(torch.device('cpu'))['matmul_precision'], flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    command = [sys.executable, "-c", code, json.dumps(list(SETTINGS))]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(SETTINGS, found, strict=True)) == SETTINGS


def cpuinfo(tmp_path, name, text):
    folder = tmp_path / name
    folder.mkdir()
    lines = [line.strip() for line in text.strip().splitlines()]
    (folder / "cpuinfo").write_text("\n".join(lines) + "\n\nprocessor : 1\nmodel : 999\n")
    return describe_processor(folder)


def x86(flags, family, model, stepping=1, vendor="AuthenticAMD"):
    return f"""processor : 0
    vendor_id : {vendor}
    cpu family : {family}
    model : {model}
    model name : AMD EPYC Processor
    stepping : {stepping}
    flags : {" ".join(sorted(flags))}"""


def flags_of(name):
    return archspec.cpu.TARGETS[name].features


def test_two_generations_under_one_name_have_different_keys(tmp_path):
    zen3 = cpuinfo(tmp_path, "3", x86(flags_of("zen3"), 25, 1))
    zen4 = cpuinfo(tmp_path, "4", x86(flags_of("zen4"), 25, 17))
    # What a hypervisor that hides the newer instructions shows of it.
    masked = cpuinfo(tmp_path, "masked", x86(flags_of("zen3"), 25, 17))
    assert [p["microarchitecture"] for p in (zen3, zen4, masked)] == ["zen3", "zen4", "zen3"]
    assert len({p["device_model"] for p in (zen3, zen4, masked)}) == 1
    facts = {
        "device_type": "cpu",
        "torch": "2.13.0",
        "threads": 2,
        "matmul_precision": "highest",
        "cpu_capability": "AVX2",
        "cores": 2,
    }
    keys = [device_key(facts | processor) for processor in (zen3, zen4, masked)]
    assert keys[0] == "cpu_zen3-25.1.1_avx2_cores2_torch2.13_threads2_highest"
    assert len(set(keys)) == 3


def test_two_arm_servers_have_different_keys(tmp_path, monkeypatch):
    def server(name, part, bogomips):
        return cpuinfo(
            tmp_path,
            name,
            f"""processor : 0
            BogoMIPS : {bogomips}
            Features : fp asimd
            CPU implementer : 0x41
            CPU variant : 0x3
            CPU part : {part}
            CPU revision : 1""",
        )

    monkeypatch.setattr("archspec.cpu.host", lambda: SimpleNamespace(name="neoverse_n1"))
    graviton2, altra = server("a", "0xd0c", "243.75"), server("b", "0xd0c", "50.00")
    assert graviton2["microarchitecture"] == "neoverse_n1"
    assert graviton2["processor"] == "0x41.0xd0c.0x3.1.243.75" != altra["processor"]
    # A core that archspec does not know is told by its numbers.
    monkeypatch.setattr("archspec.cpu.host", lambda: SimpleNamespace(name="aarch64"))
    assert server("c", "0xd8e", "2000.00") != server("d", "0xd8f", "2000.00")


def test_a_system_without_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("archspec.cpu.brand_string", lambda: "Apple M3 Max")
    monkeypatch.setattr("archspec.cpu.host", lambda: SimpleNamespace(name="m3"))
    assert describe_processor(tmp_path) == {
        "device_model": "Apple M3 Max",
        "microarchitecture": "m3",
        "processor": "Apple M3 Max",
    }


@pytest.mark.parametrize(
    "name",
    [
        "haswell",
        "skylake_avx512",
        "cascadelake",
        "icelake",
        "sapphirerapids",
        "zen2",
        "zen5",
        "x86_64_v3",
    ],
)
def test_microarchitectures_by_vendor_and_flags(name):
    target = archspec.cpu.TARGETS[name]
    assert x86_microarchitecture(target.vendor, target.features) == name
    # Linux has an older name for one of them.
    linux = {*target.features, "pni"} - {"sse3"}
    assert x86_microarchitecture(target.vendor, linux) == name


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"user/cpu.max": "max 100000", "cpu.max": "200000 100000"}, 2),
        ({"user/app/cpu.max": "50000 100000", "cpu.max": "200000 100000"}, 0.5),
        (
            {
                "cpu,cpuacct/user/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/user/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_usable_cores(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    (tmp_path / "self").mkdir()
    lines = "5:memory:/user/app\n4:cpu,cpuacct:/user/app\n0::/user/app\n"
    (tmp_path / "self" / "cgroup").write_text(lines)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_cores(tmp_path, tmp_path / "groups") == cores


def test_the_key_of_a_gpu_holds_its_model_and_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200 / 141GB")
    monkeypatch.setattr(torch.version, "cuda", "13.0.1")
    key = describe_environment(torch.device("cuda"))["device_key"]
    assert key.startswith("cuda_nvidia-h200-141gb_torch")
    assert "_cuda13.0_" in key


class FakeNvml:
    """NVML of one GPU, of which the torch device is the whole or a part."""

    class NVMLError(Exception):
        pass

    def __init__(self, driver="580.65.06", milliwatts=700_000):
        self.driver, self.milliwatts = driver, milliwatts

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return self.driver

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, part):  # noqa: N802
        return part.replace("MIG", "whole GPU of MIG")

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):  # noqa: N802
        if handle not in ("GPU-u", "whole GPU of MIG-u") or self.milliwatts is None:
            raise self.NVMLError
        return self.milliwatts


def gpu_key(monkeypatch, name="NVIDIA H100 80GB HBM3", nvml=None):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    properties = SimpleNamespace(uuid="u")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    gpu = describe_gpu(torch.device("cuda"), nvml or FakeNvml())
    facts = {
        "device_type": "cuda",
        "torch": "2.13.0+cu130",
        "cuda": "13.0",
        "threads": 8,
        "matmul_precision": "highest",
    }
    return device_key(facts | gpu)


def test_driver_partition_and_power_cap_are_in_the_key_of_a_gpu(monkeypatch):
    usual = gpu_key(monkeypatch)
    assert usual == (
        "cuda_nvidia-h100-80gb-hbm3_torch2.13_cuda13.0_driver580_mig-off_power700w_threads8_highest"
    )
    part = gpu_key(monkeypatch, "NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    assert part == usual.replace("mig-off", "mig-1g.10gb")
    assert gpu_key(monkeypatch, nvml=FakeNvml(driver="580.95.05")) == usual
    newer, capped = FakeNvml(driver=b"590.1"), FakeNvml(milliwatts=500_000)
    assert gpu_key(monkeypatch, nvml=newer) == usual.replace("driver580", "driver590")
    assert gpu_key(monkeypatch, nvml=capped) == usual.replace("700w", "500w")
    silent = FakeNvml(milliwatts=None)
    assert gpu_key(monkeypatch, nvml=silent) == usual.replace("700w", "unknownw")


def test_a_stored_run_from_before_is_read_by_its_facts():
    old = {
        "cpu": {
            "arch": "X86_64",
            "vendor_id_raw": "AuthenticAMD",
            "family": 25,
            "model": 1,
            "stepping": 1,
            "count": 2,
            "flags": [*flags_of("zen3"), "pni"],
        },
        "perfgate": {
            "device_type": "cpu",
            "device_model": "AMD EPYC",
            "torch": "2.13.0+cpu",
            "threads": 2,
            "matmul_precision": "highest",
            "cpu_capability": "AVX2",
            "device_key": "cpu_amd-epyc_torch2.13_threads2_highest",
        },
    }
    key = "cpu_zen3-25.1.1_avx2_cores2_torch2.13_threads2_highest"
    assert recorded_environment(old)["device_key"] == key
    # Whatever it calls itself, another instruction set is another device.
    for claimed in ("AVX512", "DEFAULT"):
        edited = {**old, "perfgate": {**old["perfgate"], "cpu_capability": claimed}}
        edited["perfgate"]["device_key"] = key
        assert recorded_environment(edited)["device_key"] != key


def test_a_key_that_its_facts_contradict_is_of_no_device():
    environment = describe_environment(CPU)
    own = environment["device_key"]
    assert recorded_environment({"perfgate": environment})["device_key"] == own
    for changes in ({"cpu_capability": "other"}, {"device_key": "cpu_other"}):
        found = recorded_environment({"perfgate": {**environment, **changes}})["device_key"]
        assert found not in (own, "cpu_other")


def test_the_default_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device(None) == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    # Events and graphs are those of the current device.
    assert current == [resolve_device("cuda:1")]


@pytest.mark.parametrize("name", ["gpu", "mps", "", "cuda:x"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda' or 'cuda:N'"):
        resolve_device(name)


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds 0 CUDA devices here; expected one that exists"):
        resolve_device("cuda")
