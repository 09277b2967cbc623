"""Write what a repository needs, and nothing over what is there."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from perfgate.files import write_atomically
from perfgate.paths import LAST_RUN

PLUGIN = "perfgate.plugin"
EARLIER = "kan_impls.bench.plugin"  # another name of it
NEXT = (
    "next: put your layer into benchmarks/test_speed.py, commit, then: pytest --benchmark-only; "
    "kan-bench accept; and after a change: pytest --benchmark-compare"
)

# Places, and the files of this folder that are written there.
_FILES = {
    "benchmarks/test_speed.py": "benchmark.template",
    ".github/workflows/benchmarks.yml": "workflow.template",
}


def init(root: Path) -> tuple[list[str], bool]:
    """Write the files into `root`.

    Returns:
        What happened to each, and whether nothing is left to do.

    Raises:
        OSError: one cannot be written.
    """
    lines = [*_plugin(root), *_ignored(root), *_others(root)]
    return lines, not any(line.startswith("TO DO") for line in lines)


def names_plugin(conftest: Path) -> bool:
    """Whether that file is there and names the plugin."""
    if not conftest.is_file():
        return False
    text = conftest.read_text(encoding="utf-8", errors="replace")
    return PLUGIN in text or EARLIER in text


def _plugin(root: Path) -> Iterator[str]:
    path = root / "conftest.py"
    if not path.exists():
        write_atomically(path, _template("conftest.template"))
        yield f"wrote {path.name}, which brings the plugin"
    elif names_plugin(path):
        yield f"{path.name} names the plugin already"
    else:
        yield f'TO DO: {path.name} is yours; add "{PLUGIN}" to its list pytest_plugins'


def _ignored(root: Path) -> Iterator[str]:
    """What a run leaves is no part of the code, which it would make differ from its commit."""
    path, wanted = root / ".gitignore", f"{LAST_RUN.parent.name}/"
    present = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = {line.strip().strip("/") for line in present.splitlines()}
    missing = [name for name in (wanted, "__pycache__/") if name.strip("/") not in lines]
    if missing:
        before = present if not present or present.endswith("\n") else f"{present}\n"
        write_atomically(path, before + "".join(f"{name}\n" for name in missing))
        yield f"added {' and '.join(missing)} to {path.name}"


def _others(root: Path) -> Iterator[str]:
    for name, template in _FILES.items():
        path = root / name
        if path.exists():
            yield f"{name} is there already, and stays as it is"
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _template(template))
        yield f"wrote {name}"


def _template(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
