"""Folders in which built wheels are installed, and nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def install(folder: Path, *projects: Path) -> Path:
    """Build the projects, and install their wheels into the folder."""
    wheels = folder.with_name(f"{folder.name}-wheels")
    for project in projects:
        build = [*PIP, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(project)]
        subprocess.run(build, check=True)
    found = map(str, wheels.glob("*.whl"))
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(folder), *found], check=True)
    return folder
