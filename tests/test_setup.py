"""`workbench.py`: what it runs, in which order, and what it says when that fails.

Each test has its own copy of the script in a folder with a space in its name. Commands are
recorded, not run: the real set-up is what `.ci/run` starts with.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

HERE = Path(__file__).resolve().parent.parent
INDEX = "https://download.pytorch.org/whl"


@pytest.fixture
def workbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    home = tmp_path / "a place"
    home.mkdir()
    for name in ("workbench.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(HERE / name, home)
    spec = importlib.util.spec_from_file_location("workbench", home / "workbench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "workbench", module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["workbench.py", "test"])
    return module


@pytest.fixture
def commands(workbench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every command that the set-up runs; all succeed, and .venv is there after the first."""
    seen: list[list[str]] = []

    def run(command: list[str], settings: dict[str, str], quiet: bool) -> bool:
        workbench.VENV.mkdir(exist_ok=True)
        seen.append(command)
        return True

    monkeypatch.setattr(workbench, "run", run)
    monkeypatch.setattr(workbench, "missing", list)
    return seen


@pytest.fixture
def become(workbench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command that `main` ends in, in place of becoming it."""
    seen: list[list[str]] = []
    monkeypatch.setattr(workbench, "become", lambda command: seen.append(command) or 0)
    return seen


def refuse(workbench: ModuleType, monkeypatch: pytest.MonkeyPatch, bad: Callable) -> list:
    """Let the commands for which `bad` holds fail, and return the list of all that were tried."""
    seen: list[list[str]] = []

    def run(command: list[str], settings: dict[str, str], quiet: bool) -> bool:
        seen.append(command)
        return not bad(command)

    monkeypatch.setattr(workbench, "run", run)
    monkeypatch.setattr(workbench.shutil, "disk_usage", lambda _: SimpleNamespace(free=9e9))
    return seen


def bare_venv(folder: Path) -> Path:
    """The Python of a new environment with nothing in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# -- what is installed, and from where ------------------------------------------------------------


def test_torch_comes_before_the_project_and_alone(workbench, commands):
    workbench.set_up("cpu")
    venv, torch, project = commands
    assert venv[1:] == ["-m", "venv", "--clear", str(workbench.VENV)]
    assert torch[4:] == ["-c", "constraints.txt", "--no-deps", "torch", "--no-index"]
    assert project[4:] == ["-c", "constraints.txt", "-e", ".[lab,test]"]


def test_torch_is_looked_for_on_disk_then_in_its_cpu_index_then_in_the_default_one(
    workbench, monkeypatch
):
    tried = refuse(workbench, monkeypatch, lambda c: "--no-index" in c or "--index-url" in c)
    workbench.install_torch("cpu").take()
    assert [command[8:] for command in tried] == [
        ["--no-index"],
        ["--index-url", f"{INDEX}/cpu", "--retries", "1"],
        [],
    ]


def test_a_second_index_in_the_users_settings_cannot_slip_in_another_build(workbench):
    _, published, _ = workbench.install_torch("cpu").ways
    assert published.settings == {"PIP_EXTRA_INDEX_URL": f"{INDEX}/cpu"}


def test_a_build_with_cuda_comes_from_its_own_index_and_nowhere_else(workbench, monkeypatch):
    tried = refuse(workbench, monkeypatch, lambda c: "torch" in c)
    with pytest.raises(workbench.SetupError):
        workbench.install_torch("cu130").take()
    assert [command[8:10] for command in tried] == [["--index-url", f"{INDEX}/cu130"]]


def test_without_ensurepip_the_pip_beside_python_fills_the_venv(workbench, monkeypatch):
    tried = refuse(
        workbench, monkeypatch, lambda c: c[2:] == ["venv", "--clear", str(workbench.VENV)]
    )
    workbench.make_venv().take()
    _, venv, pip = tried
    assert venv[2:] == ["venv", "--clear", "--without-pip", str(workbench.VENV)]
    assert pip[2:6] == ["pip", "--python", workbench.PYTHON, "install"]


def test_a_venv_is_made_from_the_python_outside_it(workbench, monkeypatch):
    monkeypatch.setattr(sys, "_base_executable", "/usr/bin/python3.11", raising=False)
    monkeypatch.setattr(sys, "executable", workbench.PYTHON)
    assert {way.commands[0][0] for way in workbench.make_venv().ways} == {"/usr/bin/python3.11"}


def test_settings_of_the_user_do_not_reach_into_the_venv(workbench, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("PIP_USER", "1")
    inside = workbench.environment()
    assert "PYTHONPATH" not in inside
    assert inside["PIP_USER"] == "0"
    assert inside["PATH"].split(os.pathsep)[0] == str(workbench.BIN)


def test_a_quiet_way_that_fails_says_nothing(workbench, capfd):
    complain = [sys.executable, "-c", "import sys; print('no'); sys.exit('no')"]
    assert not workbench.run(complain, {}, quiet=True)
    assert capfd.readouterr() == ("", "")
    assert not workbench.run(complain, {}, quiet=False)
    assert capfd.readouterr().err == "no\n"


def test_a_program_that_is_not_there_fails_its_way_and_says_why(workbench, capsys):
    assert not workbench.run(["no-such-program"], {}, quiet=False)
    assert "no-such-program" in capsys.readouterr().err


def test_jupyterlab_does_not_ask_about_news(workbench, commands):
    workbench.set_up("cpu")
    assert workbench.DEFAULTS.is_relative_to(workbench.VENV)
    notification = json.loads(workbench.DEFAULTS.read_text())
    assert notification == {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}


# -- when .venv is made again ---------------------------------------------------------------------


def test_a_second_start_runs_no_step(workbench, commands):
    workbench.set_up("cpu")
    del commands[:]
    workbench.set_up("cpu")
    assert commands == []


def test_an_interrupted_setup_is_noticed(workbench, commands, monkeypatch):
    def interrupt(command: list[str], settings: dict[str, str], quiet: bool) -> bool:
        raise KeyboardInterrupt

    workbench.set_up("cpu")
    (workbench.ROOT / "constraints.txt").write_text("torch==2.13.0\n")
    monkeypatch.setattr(workbench, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        workbench.set_up("cpu")
    assert workbench.unready("cpu") == "its set-up was not finished"


def test_a_python_that_is_gone_is_noticed(workbench, commands, monkeypatch):
    workbench.set_up("cpu")
    monkeypatch.undo()  # the real probe
    assert workbench.unready("cpu") == "its Python does not run"


def test_a_python_that_no_longer_starts_is_noticed(workbench, commands, monkeypatch):
    workbench.set_up("cpu")
    monkeypatch.undo()
    monkeypatch.setattr(workbench, "PYTHON", sys.executable)
    monkeypatch.setattr(workbench, "PROBE", "raise SystemExit(1)")
    assert workbench.unready("cpu") == "its Python does not run"


def test_a_package_that_is_gone_is_noticed(workbench, commands, monkeypatch):
    workbench.set_up("cpu")
    monkeypatch.undo()
    monkeypatch.setattr(workbench, "MODULES", ("json", "no_such_module"))
    bare_venv(workbench.VENV)
    assert workbench.unready("cpu") == "it lacks no_such_module"


@pytest.mark.parametrize("file", ["constraints.txt", "pyproject.toml"])
def test_a_changed_pin_or_requirement_makes_it_again(workbench, commands, file):
    workbench.set_up("cpu")
    path = workbench.ROOT / file
    path.write_text(path.read_text(encoding="utf-8").replace("anywidget", "anothergadget"))
    assert workbench.unready("cpu") == "Python, the pins or the place of the project changed"


def test_a_changed_setting_of_a_tool_does_not(workbench, commands):
    workbench.set_up("cpu")
    path = workbench.ROOT / "pyproject.toml"
    path.write_text(path.read_text(encoding="utf-8") + '\n[tool.mine]\nkey = "value"\n')
    assert workbench.unready("cpu") is None


def test_a_stamp_that_is_not_json_counts_as_none(workbench, commands):
    workbench.set_up("cpu")
    workbench.STAMP.write_text("{")
    assert workbench.unready("cpu") == "its set-up was not finished"


# -- what it says when a step fails ---------------------------------------------------------------


def test_a_failed_step_names_itself_the_likely_cause_and_the_next_command(workbench, monkeypatch):
    refuse(workbench, monkeypatch, lambda c: "-e" in c)
    monkeypatch.setattr(workbench.shutil, "which", lambda name: "/usr/bin/other")
    with pytest.raises(workbench.SetupError) as caught:
        workbench.install_project().take()
    assert str(caught.value) == (
        "\nSet-up stopped at the step: "
        "install the workbench, ONNX, ONNX Runtime and JupyterLab (about 200 MB)"
        "\n  Likely cause: the package index did not answer, "
        "or has no build of a pinned package for this Python"
        "\n  Next: read pip's last lines above; behind a proxy set HTTPS_PROXY"
        f"\n  Then: {sys.executable} workbench.py test"
    )


def test_a_python_with_neither_ensurepip_nor_pip_gets_debians_command(workbench, monkeypatch):
    refuse(workbench, monkeypatch, lambda c: True)
    with pytest.raises(workbench.SetupError, match="sudo apt install python3-venv"):
        workbench.make_venv().take()


def test_a_full_disk_is_the_cause_that_is_named(workbench, monkeypatch):
    refuse(workbench, monkeypatch, lambda c: True)
    monkeypatch.setattr(workbench.shutil, "disk_usage", lambda _: SimpleNamespace(free=3e8))
    with pytest.raises(workbench.SetupError) as caught:
        workbench.install_project().take()
    cause = f"Likely cause: {workbench.ROOT} has 0.3 GB free, and set-up needs 2.5 GB"
    assert cause in str(caught.value)


def test_a_failed_setup_leaves_no_stamp(workbench, monkeypatch):
    refuse(workbench, monkeypatch, lambda c: "-e" in c)
    with pytest.raises(workbench.SetupError):
        workbench.set_up("cpu")
    assert not workbench.STAMP.exists()


def test_another_python_gets_one_clear_sentence(workbench, monkeypatch):
    monkeypatch.setattr(workbench, "PYTHONS", ((3, 99),))
    monkeypatch.setattr(workbench.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        workbench.main(["test"])
    assert str(caught.value) == (
        f"The workbench needs Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}"
        f" ({sys.executable}).\n"
        "Install one, say from python.org; then: python3.99 workbench.py test"
    )


def test_an_old_python_gets_as_far_as_that_sentence():
    source = (HERE / "workbench.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    assert "import tomllib" not in source.split("def fingerprint")[0]


# -- verbs and what follows them ------------------------------------------------------------------


def test_what_follows_test_goes_to_pytest_in_its_order(workbench, commands, become):
    workbench.main(["test", "-k", "race", "tests/test_text.py", "-n", "0"])
    two = ["--numprocesses=2", "--dist=loadfile"]
    assert become == [
        [workbench.PYTHON, "-m", "pytest", *two, "-k", "race", "tests/test_text.py", "-n", "0"]
    ]


def test_lab_opens_the_first_notebook_and_passes_on_what_follows(workbench, commands, become):
    workbench.main(["lab", "--no-browser", "--port", "9999"])
    (command,) = become
    assert command[1:3] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={workbench.ROOT}" in command
    assert "--LabApp.default_url=/lab/tree/notebooks/00-start-here.ipynb" in command
    assert command[-3:] == ["--no-browser", "--port", "9999"]


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_jupyter_is_told_when_it_runs_as_root(workbench, monkeypatch, user, allowed):
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    assert ("--allow-root" in workbench.lab([])) is allowed


def test_the_build_of_torch_is_not_passed_on_and_is_remembered(workbench, commands, become):
    workbench.main(["test", "--torch", "cu130", "-k", "race"])
    assert become == [[*workbench.test([]), "-k", "race"]]
    assert json.loads(workbench.STAMP.read_text())["torch"] == "cu130"
    del commands[:]
    workbench.main(["test"])
    assert commands == []
    workbench.main(["test", "--torch", "cpu"])
    assert len(commands) == 3


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["tset"], 2), (["--help"], 0)])
def test_no_verb_shows_how_to_use_it_and_sets_nothing_up(workbench, capsys, arguments, code):
    assert workbench.main(arguments) == code
    assert "python3 workbench.py lab " in capsys.readouterr().out
    assert not workbench.VENV.exists()


# -- the report -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "code"), [("True", 0), ("False", 1)])
def test_check_reports_before_anything_is_installed(workbench, verdict, code):
    package = workbench.ROOT / "src" / "onnx_workbench"
    package.mkdir(parents=True)
    shutil.copy(HERE / "src" / "onnx_workbench" / "__init__.py", package)
    (package / "stack.py").write_text(
        "from .text import report\n"
        f"class Stack:\n    __repr__ = report\n    __bool__ = lambda self: {verdict}\n"
        "check = Stack\n"
    )
    (package / "text.py").write_text("def report(self): return 'the stack'")
    done = subprocess.run(
        [bare_venv(workbench.ROOT / "bare"), workbench.ROOT / "workbench.py", "check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == (
        "Not set up: there is no .venv yet. To set up: python3 workbench.py lab\n\nthe stack\n"
    )


def test_check_uses_a_venv_that_runs_even_where_it_is_not_finished(workbench):
    assert workbench.check([])[0] == sys.executable
    bare_venv(workbench.VENV)
    assert workbench.check([])[0] == workbench.PYTHON
