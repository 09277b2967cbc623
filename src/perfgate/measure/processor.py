"""The processor: its microarchitecture, its exact model, and how many cores a process may use."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

# What tells one processor from another, as /proc/cpuinfo calls it. The clock of ARM's timer
# (BogoMIPS is twice that) differs between servers that have the same core.
X86_MODEL = ("cpu family", "model", "stepping")
ARM_MODEL = ("CPU implementer", "CPU part", "CPU variant", "CPU revision", "BogoMIPS")


def describe_processor(proc: Path = Path("/proc")) -> dict[str, str]:
    """The processor's name, its microarchitecture and its exact model.

    The exact model stands beside the microarchitecture because a hypervisor may hide the very
    flags by which one generation is told from the next, and because some are unknown to archspec.
    """
    first = _first_processor(proc / "cpuinfo")
    name = first.get("model name", "")
    for keys in (X86_MODEL, ARM_MODEL):
        if keys[0] in first:
            model = ".".join(first.get(key, "") for key in keys)
            break
    else:
        from archspec.cpu import brand_string

        # Apple's brand says Pro or Max; on Windows the processor is family, model and stepping.
        brand = brand_string() if platform.system() == "Darwin" else None
        name = model = brand or platform.processor() or platform.machine()
    if "flags" in first:
        architecture = x86_microarchitecture(first["vendor_id"], first["flags"].split())
    else:
        from archspec.cpu import host

        architecture = host().name
    return {
        "device_model": name or f"{platform.machine()} {architecture}",
        "microarchitecture": architecture,
        "processor": model,
    }


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    """Key to value of the first entry; empty on systems without the file."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    entry = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    return {
        key.strip(): value.strip()
        for key, separator, value in (line.partition(":") for line in entry.splitlines())
        if separator
    }


def x86_microarchitecture(vendor: str, flags: Collection[str]) -> str:
    """archspec's name of the newest x86 microarchitecture that the flags allow.

    archspec itself asks about the machine that it runs on only; stored runs are of others, too.
    """
    from archspec.cpu import TARGETS

    # Linux calls SSE3 by its older name.
    have = {*flags, *(["sse3"] if "pni" in flags else [])}
    family = TARGETS["x86_64"]
    fitting = [
        target
        for target in TARGETS.values()
        if (target == family or family in target.ancestors)
        and target.vendor in (vendor, "generic")
        and target.features <= have
    ]

    def rank(target: Any) -> tuple[int, int]:
        return len(target.ancestors), len(target.features)

    # A vendor's name says more than a level such as x86_64_v3, but not one from before that level.
    generic = max((target for target in fitting if target.vendor == "generic"), key=rank)
    named = [target for target in fitting if target > generic]
    return str(max(named or [generic], key=rank).name)


def usable_cores(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that this process may use: those it is bound to, or a control group's share of time."""
    if hasattr(os, "sched_getaffinity"):
        bound = len(os.sched_getaffinity(0))
    else:
        bound = os.cpu_count() or 1
    return min([float(bound), *_quotas(proc / "self" / "cgroup", groups)])


def _quotas(membership: Path, groups: Path) -> Iterator[float]:
    """The limits of the control groups that a process is in, and of those above them, in cores."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree, version 1 one for each set of controllers.
        root = groups / controllers
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            yield from _quota_of(place)
            if place == root:
                break


def _quota_of(group: Path) -> Iterator[float]:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return
