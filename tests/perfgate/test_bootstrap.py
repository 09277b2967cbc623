"""Each revision's own packages are imported, wherever a project has them and finds them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# As in a worker; then the head's folder comes first, by pytest's settings or an editable install.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from bootstrap import take_packages
_, _, source, harness, own, head, *paths = sys.argv
take_packages(source, harness, own, (head, head))
sys.path[1:1] = paths
import {name}
print({name}.__file__, getattr({name}, "SIDE", None))
"""


def write(top, files):
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)


def imported(tmp_path, side, source, path, name="mine"):
    """What a side's worker imports, where `path` of the head is on Python's path."""
    own, head = tmp_path / side, tmp_path / "head"
    folders = (ROOT / "src" / "perfgate" / "ab", own / source, ROOT / "src", own, head, head / path)
    return subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM.format(name=name), *map(str, folders)],
        capture_output=True,
        text=True,
        cwd=head,
    )


@pytest.fixture
def revisions(tmp_path):
    """Writes a file into both revisions, which says of which it is."""

    def make(*names):
        for side in ("base", "head"):
            write(tmp_path / side, dict.fromkeys(names, f"SIDE = {side!r}\n"))
        return tmp_path

    return make


@pytest.mark.parametrize("side", ["base", "head"])
@pytest.mark.parametrize(
    ("files", "source", "path"),
    [
        (["src/mine/__init__.py"], "src", "src"),
        (["mine.py"], "", ""),
        # Where a `src` holds something else, and where there is no folder of this name.
        (["mine/__init__.py", "src/ext.c"], "src", ""),
        (["python/mine/__init__.py"], "", "python"),
        (["python/mine.py"], "", "python"),
        (["python/mine/part.py"], "", "python"),
    ],
)
def test_a_side_imports_its_own_package(revisions, side, files, source, path):
    folder = revisions(*files)
    name = "mine.part" if files[0].endswith("part.py") else "mine"
    found = imported(folder, side, source, path, name)
    assert found.stdout.split() == [str(folder / side / files[0]), side], found.stderr


def test_a_package_that_a_side_lacks_is_refused_in_a_line(revisions):
    folder = revisions("README.md")
    write(folder / "head", {"python/mine.py": ""})
    found = imported(folder, "base", "", "python")
    assert found.returncode == 1
    assert "ForeignPackageError: mine was found as " in found.stderr.splitlines()[-1]
    assert "expected each revision's own: compare with" in found.stderr.splitlines()[-1]
    assert imported(folder, "head", "", "python").returncode == 0


def test_what_stands_among_tests_is_the_heads(revisions):
    folder = revisions("benchmarks/cases.py", "perf/shapes.py", "perf/test_speed.py")
    assert imported(folder, "base", "", "benchmarks", "cases").stdout.endswith(" head\n")
    assert imported(folder, "base", "", "perf", "shapes").stdout.endswith(" head\n")


def test_a_folder_that_is_called_like_an_installed_package_does_not_hide_it(tmp_path):
    write(tmp_path / "base", {"json2/readme.txt": ""})
    write(tmp_path / "head", {"json2/readme.txt": ""})
    write(tmp_path / "installed", {"json2/__init__.py": "SIDE = 'installed'\n"})
    found = imported(tmp_path, "base", "", tmp_path / "installed", "json2")
    assert found.stdout.endswith(" installed\n"), found.stderr


def test_an_environment_within_the_project_is_installed(tmp_path, monkeypatch):
    from perfgate.ab.bootstrap import Packages

    base, head = tmp_path / "base", tmp_path / "head"
    write(head, {".venv/lib/other.py": ""})
    base.mkdir()
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": str(head / ".venv" / "lib")})
    finder = Packages(str(base), str(base), str(base), (str(head),))
    monkeypatch.syspath_prepend(head / ".venv" / "lib")
    assert finder.find_spec("other").origin == str(head / ".venv" / "lib" / "other.py")
