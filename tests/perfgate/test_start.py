"""`kan-bench init` and `kan-bench doctor`: a repository's first minutes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from perfgate.cli import main, parser
from perfgate.start.doctor import report
from perfgate.start.init import init
from tests.git import git

ROOT = Path(__file__).resolve().parents[2]


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with what `init` writes, committed."""
    init(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "start")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_what_is_missing_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    written = contents(tmp_path)
    assert written.keys() == {
        "conftest.py",
        ".gitignore",
        "benchmarks/test_speed.py",
        ".github/workflows/benchmarks.yml",
    }
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: put your layer into")
    assert main(["init"]) == 0
    assert contents(tmp_path) == written


def test_init_leaves_what_is_the_users(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["mine"]\n')
    (tmp_path / ".gitignore").write_text("*.so\n__pycache__")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "test_speed.py").write_text("mine")
    assert main(["init"]) == 1  # something is left to the user
    assert 'TO DO: conftest.py is yours; add "perfgate.plugin"' in capsys.readouterr().out
    after = contents(tmp_path)
    assert after["conftest.py"] == b'pytest_plugins = ["mine"]\n'
    assert after[".gitignore"] == b"*.so\n__pycache__\n.benchmarks/\n"
    assert after["benchmarks/test_speed.py"] == b"mine"


def test_what_init_writes_can_be_measured_at_once(pytester):
    init(pytester.path)
    result = pytester.runpytest("--benchmark-only", "--benchmark-max-time=0.05", "--device=cpu")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_layer*training_step*"])


def test_the_workflow_of_init_has_the_actions_of_ours():
    """Our own are kept up to date, and audited by zizmor."""
    text = (ROOT / "src" / "perfgate" / "start" / "workflow.template").read_text()
    assert yaml.safe_load(text)["permissions"] == {}
    ours = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    used = re.findall(r"uses: (\S+@[0-9a-f]{40} # v\S+)", text)
    assert len(used) == text.count("uses:") == 2
    assert all(action in ours for action in used)


def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^plugin +MISSING: .*run kan-bench init$", said, flags=re.MULTILINE)
    assert re.search(r"^git +MISSING: .*run git init, and commit$", said, flags=re.MULTILINE)
    assert "none of this device in benchmarks/baselines: run pytest --benchmark-only" in said


def test_doctor_finds_nothing_missing_after_init(project):
    lines, is_fine = report(project, project / "benchmarks" / "baselines")
    assert is_fine
    assert f"git       at {git(project, 'rev-parse', 'HEAD')[:10]}" in lines
    assert "plugin    named in conftest.py" in lines


def test_doctor_sees_a_shallow_clone(project, tmp_path_factory):
    (project / "more").touch()
    git(project, "add", ".")
    git(project, "commit", "-qm", "more")
    clone = tmp_path_factory.mktemp("clones") / "clone"
    git(project, "clone", "-q", "--depth=1", project.as_uri(), str(clone))
    lines, is_fine = report(clone, clone / "benchmarks" / "baselines")
    assert not is_fine
    assert any("git fetch --unshallow" in line for line in lines)


def test_doctor_reads_the_baseline(project):
    def baseline(commit, dirty=False):
        from perfgate.measure.environment import describe_environment, resolve_device
        from perfgate.store.baseline import folder_of, write_next
        from tests.perfgate.runs import run_data

        environment = describe_environment(resolve_device("cpu"))
        data = run_data()
        data["machine_info"]["perfgate"] = environment
        data["commit_info"] = {"id": commit, "dirty": dirty}
        folder = folder_of(project / "baselines", environment["device_key"])
        folder.mkdir(parents=True, exist_ok=True)
        write_next(folder, data, "run")
        lines, _ = report(project, project / "baselines")
        return [line[10:] for line in lines if line.startswith("baseline")]

    head = git(project, "rev-parse", "HEAD").strip()
    (said,) = baseline(head)
    assert "its noise is not known, so that all times are compared in turns" in said
    assert "the newest of 1" in said
    assert baseline("f" * 40)[1] == f"its commit is not here: run git fetch origin {'f' * 40}"
    assert "was not committed" in baseline(head, dirty=True)[1]


def test_doctor_sees_a_baseline_that_cannot_be_used(project):
    from perfgate.start.doctor import _baseline
    from tests.perfgate.runs import run_data, store

    folder = project / "baselines"
    store(folder, "cpu_test", run_data("a"), "good")
    store(folder, "cpu_test", run_data("a"), "damaged").write_text("{")
    (said,) = _baseline(project, folder, "cpu_test")
    assert said.startswith("MISSING: ")
    assert "0002_damaged.json is not a complete run" in said
    (said,) = _baseline(project, project / "conftest.py", "cpu_test")
    assert said.startswith("MISSING: ")
    assert "cannot be listed" in said


def test_help_does_not_wait_for_torch():
    code = "import sys; from perfgate.cli import parser; parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_subcommand_has_an_example_in_its_help():
    (subparsers,) = parser()._subparsers._group_actions
    for name, command in subparsers.choices.items():
        words = shlex.split(command.epilog.removeprefix("example: "))
        assert words[:2] == ["kan-bench", name]
        parser().parse_args(words[1 : words.index("--")] if "--" in words else words[1:])


def test_a_shell_completes_options(tmp_path):
    pytest.importorskip("argcomplete", reason="argcomplete is not installed: the extra complete")
    answer, line = tmp_path / "answer", "kan-bench gate --rep"
    asked = {
        **{"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)},
        **{"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"},
    }
    code = "from perfgate.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, check=True)
    assert answer.read_text() == "--report"


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"kan-bench \d+\.\d+\.\d+\n", capsys.readouterr().out)
