"""The device key: what two runs must have in common for their times to be compared.

It is computed from the facts that a run recorded, also when a stored run is read: the key that
is written beside the facts, and the name of the folder, are for readers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perfgate.judge.place import ours
from perfgate.measure.processor import x86_microarchitecture

_OF_ALL = ("device_type", "torch", "threads", "matmul_precision")
_OF_CPU = ("microarchitecture", "processor", "cpu_capability", "cores")
_OF_CUDA = ("device_model", "cuda", "driver", "mig", "power_watts")


# The name of a folder, and of nothing above it.
PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]{0,199}", re.ASCII)


def device_key(facts: Mapping[str, Any]) -> str | None:
    """A folder name of the facts of an environment; None if some of them are missing.

    Args:
        facts: as of `measure.environment.describe_environment`.
    """
    on_cuda = facts.get("device_type") == "cuda"
    if any(name not in facts for name in (*_OF_ALL, *(_OF_CUDA if on_cuda else _OF_CPU))):
        return None
    if on_cuda:
        device = [facts["device_model"]]
        build = [
            f"cuda{_major_minor(facts['cuda'])}",
            f"driver{facts['driver']}",
            f"mig-{facts['mig']}",
            f"power{facts['power_watts']}w",
        ]
    else:
        device = [
            f"{facts['microarchitecture']}-{facts['processor']}",
            facts["cpu_capability"],
            f"cores{_number(facts['cores'])}",
        ]
        build = []
    parts = [
        facts["device_type"],
        *device,
        f"torch{_major_minor(facts['torch'])}",
        *build,
        f"threads{facts['threads']}",
        facts["matmul_precision"],
    ]
    return "_".join(re.sub(r"[^a-z0-9.]+", "-", str(part).lower()).strip("-") for part in parts)


def recorded_environment(machine_info: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a stored run, with the key that its facts make.

    Runs from before the key named the microarchitecture have the processor's flags and model from
    py-cpuinfo. A run without facts is of the device that it names; one whose facts contradict the
    name is of no device.

    Args:
        machine_info: as pytest-benchmark stores it, with ours in its place.

    Raises:
        TypeError, AttributeError: it holds something else than mappings and texts.
    """
    environment = {k: v for k, v in ours(machine_info, "machine_info").items() if k != "machine"}
    named = environment.get("device_key")
    if named is not None and not PLAIN.fullmatch(named):
        return environment  # which no folder is for
    key = device_key(environment)
    if key is not None and named not in (None, key):
        key = f"{key}_named-{named}"
    elif environment.get("device_type") == "cpu" and "microarchitecture" not in environment:
        environment |= _facts_of_cpuinfo(machine_info.get("cpu", {}))
        key = device_key(environment)
    if key is None and named is None:  # a file of plain pytest-benchmark, of any device
        return environment
    return {**environment, "device_key": key or named}


def _facts_of_cpuinfo(cpu: Mapping[str, Any]) -> dict[str, Any]:
    """What py-cpuinfo tells of an x86 processor; nothing of others, whose cores it cannot name."""
    model = [cpu.get(name) for name in ("family", "model", "stepping")]
    if cpu.get("arch") != "X86_64" or None in model or "count" not in cpu or "flags" not in cpu:
        return {}
    return {
        "microarchitecture": x86_microarchitecture(str(cpu.get("vendor_id_raw")), cpu["flags"]),
        "processor": ".".join(map(str, model)),
        "cores": cpu["count"],
    }


def _major_minor(version: object) -> str:
    return ".".join(str(version).split(".")[:2])


def _number(value: object) -> str:
    """A number of cores, without the decimals that it does not need."""
    return f"{float(str(value)):g}"
