"""Which machine a run came from, without its name: hashes, and what hosts it."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from pathlib import Path

# Makes the hash useless for finding the machine by its id elsewhere, as machine-id(5) asks.
SALT = "kan-impls machine"

# How sys_vendor and product_name in /sys/class/dmi/id begin on virtual machines, after
# systemd-detect-virt's list.
VENDORS = {
    "QEMU": "qemu",
    "KVM": "kvm",
    "OpenStack": "kvm",
    "Amazon EC2": "amazon",
    "Google": "google",
    "VMware": "vmware",
    "innotek": "oracle",
    "Oracle": "oracle",
    "Xen": "xen",
    "Microsoft": "microsoft",
    "Parallels": "parallels",
    "Apple Virtualization": "apple",
    "DigitalOcean": "kvm",
    "Hetzner": "kvm",
    "Alibaba": "kvm",
}


def describe_machine(root: Path = Path("/")) -> dict[str, str | None]:
    """`id`, `hypervisor` and `boot` of this machine; None for what it does not tell.

    The ids are hashed. The machine's name is not among them: baselines are published.

    Args:
        root: where the system's files lie.
    """
    return {
        "id": _hashed(_machine_id(root)),
        "hypervisor": _hypervisor(root),
        "boot": _hashed(_boot_id(root)),
    }


def _hashed(text: str | None) -> str | None:
    return hashlib.sha256(f"{SALT} {text}".encode()).hexdigest()[:16] if text else None


def _machine_id(root: Path) -> str | None:
    system = platform.system()
    if system == "Darwin":
        output = _output_of("ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
        found = re.search(r'"IOPlatformUUID" = "([^"]+)"', output)
        return found.group(1) if found else None
    if system == "Windows":
        output = _output_of(
            "reg", "query", r"HKLM\SOFTWARE\Microsoft\Cryptography", "/v", "MachineGuid"
        )
        found = re.search(r"REG_SZ\s+(\S+)", output)
        return found.group(1) if found else None
    # A container's id is that of its image, wherever that runs.
    if (root / ".dockerenv").exists() or (root / "run" / ".containerenv").exists():
        return None
    names = ("etc/machine-id", "var/lib/dbus/machine-id")
    return next((text for name in names if (text := _read(root / name))), None)


def _boot_id(root: Path) -> str | None:
    """What changes with every start of the system, and is its own."""
    if platform.system() == "Darwin":
        return _output_of("sysctl", "-n", "kern.bootsessionuuid").strip() or None
    return _read(root / "proc" / "sys" / "kernel" / "random" / "boot_id")


def _hypervisor(root: Path) -> str | None:
    """Its name, `vm` for one without a name, `none` on bare metal; None if nothing tells."""
    for name in ("sys_vendor", "product_name", "board_vendor", "bios_vendor"):
        text = _read(root / "sys" / "class" / "dmi" / "id" / name) or ""
        for beginning, vendor in VENDORS.items():
            # Microsoft and Google make machines, too.
            if text.startswith(beginning) and _is_virtual(root) is not False:
                return vendor
    if _read(root / "sys" / "hypervisor" / "type") == "xen":
        return "xen"
    virtual = _is_virtual(root)
    return None if virtual is None else "vm" if virtual else "none"


def _is_virtual(root: Path) -> bool | None:
    """Whether an x86 processor says that it is a virtual one; None on others."""
    flags = re.search(r"^flags\s*:(.*)$", _read(root / "proc" / "cpuinfo") or "", re.MULTILINE)
    return None if flags is None else "hypervisor" in flags.group(1).split()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
