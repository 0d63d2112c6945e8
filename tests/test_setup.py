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
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).resolve().parent.parent
INDEX = "https://download.pytorch.org/whl"
VENV = "-m venv --clear .venv"
PIP = "-m pip install -c constraints.txt"
TORCH, LAB, TEST = f"{PIP} --no-deps torch", f"{PIP} -e .[lab]", f"{PIP} -e .[lab,test]"


@pytest.fixture
def workbench(tmp_path, monkeypatch):
    home = tmp_path / "a place"
    home.mkdir()
    for name in ("workbench.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(HERE / name, home)
    spec = importlib.util.spec_from_file_location("workbench", home / "workbench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=9e9))
    return module


@pytest.fixture
def commands(workbench, monkeypatch):
    """Every command that runs, without its Python; those that hold a text of ``failing`` fail."""
    seen = SimpleNamespace(ran=[], failing=(), became=[], lacking={})

    def run(command, title, size):
        workbench.VENV.mkdir(exist_ok=True)
        seen.ran.append(" ".join(command[1:]).replace(str(workbench.VENV), ".venv"))
        return not any(text in f"{seen.ran[-1]}\n" for text in seen.failing)

    monkeypatch.setattr(workbench, "run", run)
    monkeypatch.setattr(workbench, "lacks", lambda verb: seen.lacking.get(verb, ""))
    monkeypatch.setattr(workbench, "course", lambda fresh: workbench.ROOT / f"course{fresh:d}")
    monkeypatch.setattr(workbench, "become", lambda command: seen.became.append(command) or 0)
    return seen


def bare_venv(folder: Path) -> Path:
    """The Python of a new environment with nothing in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# -- what is installed, and from where ------------------------------------------------------------

OWN = f"{TORCH} --retries 1 --index-url {INDEX}/cpu"
SEED = "-m pip --python {} install --quiet pip"


@pytest.mark.parametrize(
    ("failing", "ran"),
    [
        ((), [VENV, f"{TORCH} --no-index", LAB]),
        (("--no-index", "--index-url"), [VENV, f"{TORCH} --no-index", OWN, TORCH, LAB]),
        ((f"{VENV}\n",), [VENV, f"{VENV} --without-pip", SEED]),
    ],
    ids=["torch first and alone", "disk, own index, default index", "no ensurepip"],
)
def test_each_way_of_the_set_up_is_tried_in_its_order(workbench, commands, failing, ran):
    commands.failing = failing
    workbench.set_up("cpu", "lab")
    python = workbench.PYTHON.replace(str(workbench.VENV), ".venv")
    assert commands.ran[: len(ran)] == [each.format(python) for each in ran]


def test_a_build_with_cuda_comes_from_its_own_index_and_nowhere_else(workbench, commands):
    commands.failing = ("torch",)
    with pytest.raises(SystemExit, match="no build `cu130`"):
        workbench.set_up("cu130", "lab")
    assert [command.split()[-1] for command in commands.ran[1:]] == [f"{INDEX}/cu130"]


def test_a_venv_is_made_from_the_python_outside_it(workbench, monkeypatch):
    monkeypatch.setattr(sys, "_base_executable", "/usr/bin/python3.11", raising=False)
    monkeypatch.setattr(sys, "executable", workbench.PYTHON)
    assert {way[0][0] for way in workbench.steps("cpu", "lab")[0].ways} == {"/usr/bin/python3.11"}


def test_settings_of_the_user_do_not_reach_into_the_venv(workbench, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://other.example")
    inside = workbench.environment()
    assert "PYTHONPATH" not in inside
    assert inside["PIP_USER"] == "0"
    assert inside["PATH"].split(os.pathsep)[0] == str(workbench.BIN)
    tell = [sys.executable, "-c", "import os; print('pip', os.environ['PIP_EXTRA_INDEX_URL'])"]
    assert workbench.run(tell, "")
    assert workbench.run([*tell, "--index-url", f"{INDEX}/cpu"], "")
    told = [line for line in workbench.LOG.read_text().splitlines() if line.startswith("pip")]
    assert told == ["pip https://other.example", f"pip {INDEX}/cpu"]
    assert capfd.readouterr().out == ""


def test_output_goes_to_the_log_and_progress_to_the_terminal(workbench, monkeypatch, capfd):
    code = (
        "import os, time\nopen(os.environ['TMPDIR'] + '/a.whl', 'wb').write(bytes(10**6))\n"
        "while not os.path.exists('seen'): time.sleep(0.1)\nprint('chatter')\n1 / 0"
    )
    fetches, bar = [sys.executable, "-c", code], workbench.bar

    def seen(*about):
        if line := bar(*about):
            (workbench.ROOT / "seen").touch()  # it ends after its progress was shown
        return line

    monkeypatch.setattr(workbench, "bar", seen)
    workbench.VENV.mkdir()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert not workbench.run(fetches, "[1/3] fetch", 2)
    shown = capfd.readouterr()
    assert "[########........] 1 MB" in shown.out
    assert "\n" not in shown.out
    assert shown.err == ""
    log = workbench.LOG.read_text()
    assert "chatter" in log
    assert "ZeroDivisionError" in log
    assert not workbench.run(["no-such-program"], "")
    assert "no-such-program" in workbench.LOG.read_text()
    assert list(workbench.VENV.iterdir()) == []


def test_jupyterlab_does_not_ask_about_news(workbench, commands):
    workbench.set_up("cpu", "lab")
    settings = workbench.VENV / "share/jupyter/lab/settings/overrides.json"
    notification = json.loads(settings.read_text())
    assert notification == {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}


# -- when .venv is made again ---------------------------------------------------------------------


def replace(workbench, old, new):
    path = workbench.ROOT / "pyproject.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda w: None, ""),
        (lambda w: (w.ROOT / "constraints.txt").write_text("torch==2.13.0\n"), "pins"),
        (lambda w: replace(w, "anywidget", "anothergadget"), "pins"),
        (lambda w: replace(w, "\n[tool.ruff]", "\n[tool.mine]"), ""),
        (lambda w: w.STAMP.write_text("{"), "not finished"),
        (lambda w: w.STAMP.unlink(), "not finished"),
        (lambda w: shutil.rmtree(w.VENV), "no .venv"),
    ],
)
def test_venv_is_made_again_when_what_it_depends_on_changed(workbench, commands, change, why):
    workbench.set_up("cpu", "lab")
    change(workbench)
    assert why in workbench.unready("cpu", "lab")
    assert bool(workbench.unready("cpu", "lab")) is bool(why)
    del commands.ran[:]
    workbench.set_up("cpu", "lab")
    assert bool(commands.ran) is bool(why)


def test_what_tests_need_is_added_to_what_lab_needs(workbench, commands, capsys):
    workbench.main(["lab"])
    assert commands.ran[-1] == LAB
    assert len(capsys.readouterr().out.splitlines()) == 5
    commands.ran.clear()
    commands.lacking = {"test": "pytest"}
    workbench.main(["lab"])
    assert commands.ran == []
    workbench.main(["test"])
    assert commands.ran == [TEST]
    assert "it lacks pytest" in capsys.readouterr().out


def test_a_python_or_a_package_that_is_gone_is_noticed_and_check_uses_what_runs(
    workbench, monkeypatch
):
    modules = {"lab": ("json", "no_such_module"), "test": ("no_such_test",)}
    monkeypatch.setattr(workbench, "MODULES", modules)
    assert workbench.lacks("lab") == "a Python that runs"
    assert workbench.command("check")[0] == sys.executable
    bare_venv(workbench.VENV)
    assert workbench.lacks("lab") == "no_such_module"
    assert workbench.lacks("test") == "no_such_module no_such_test"
    assert workbench.command("check")[0] == workbench.PYTHON
    monkeypatch.setattr(workbench, "PROBE", "raise SystemExit(1)")
    assert workbench.lacks("lab") == "a Python that runs"


# -- what it says when a step fails ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("failing", "free", "nouns"),
    [
        ("--clear", 9e9, ["make .venv", "sudo apt install python3-venv"]),
        ("torch", 9e9, ["install PyTorch", "HTTPS_PROXY", "PIP_FIND_LINKS"]),
        (LAB, 9e9, ["install the workbench", "has no build of a pinned package", ".venv.log"]),
        (LAB, 3e8, ["has 0.3 GB free, and set-up needs 2.5 GB"]),
    ],
)
def test_a_failed_step_names_itself_the_likely_cause_and_the_next_command(
    workbench, commands, monkeypatch, failing, free, nouns
):
    workbench.set_up("cpu", "lab")
    replace(workbench, "anywidget", "anothergadget")
    monkeypatch.setattr(workbench.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    commands.failing = (failing,)
    with pytest.raises(SystemExit) as caught:
        workbench.set_up("cpu", "lab")
    assert [noun for noun in nouns if noun not in str(caught.value)] == []
    assert not workbench.STAMP.exists()


def test_a_checkout_that_cannot_be_written_to_is_an_error_that_says_so(workbench, commands):
    workbench.LOG.mkdir()
    with pytest.raises(SystemExit, match=r"Set-up writes to .*refuses.*\nCopy the project"):
        workbench.main(["lab"])
    assert commands.ran == []


def test_an_old_python_is_refused_with_the_one_to_use(workbench, commands, monkeypatch):
    monkeypatch.setattr(workbench, "OLDEST", (3, 99))
    monkeypatch.setattr(workbench, "NEWEST", (3, 99))
    monkeypatch.setattr(workbench.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(SystemExit, match=r"needs Python 3.99 to 3.99; this is .*\nUse python3.99"):
        workbench.main(["test"])
    # and an older one gets as far as that sentence
    ast.parse((HERE / "workbench.py").read_text(encoding="utf-8"), feature_version=(3, 7))


def test_a_newer_python_is_warned_and_set_up(workbench, commands, monkeypatch, capsys):
    monkeypatch.setattr(workbench, "NEWEST", (3, 11))
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    assert workbench.main(["test"]) == 0
    assert "tested on Python 3.11 to 3.11" in capsys.readouterr().err
    assert len(commands.ran) == 3


# -- verbs and what follows them ------------------------------------------------------------------


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_lab_opens_the_first_notebook(workbench, commands, monkeypatch, user, allowed):
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    workbench.main(["lab", "--no-browser", "--port", "9999"])
    (command,) = commands.became
    assert command[1:3] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={workbench.ROOT}" in command
    assert "--LabApp.default_url=/lab/tree/course0/00-start-here.ipynb" in command
    assert command[-3:] == ["--no-browser", "--port", "9999"]
    assert ("--allow-root" in command) is allowed
    workbench.main(["lab", "--fresh"])
    assert "--LabApp.default_url=/lab/tree/course1/00-start-here.ipynb" in commands.became[-1]


def test_what_follows_test_goes_to_pytest_and_the_build_of_torch_is_remembered(workbench, commands):
    workbench.main(["test", "--torch", "cu130", "-k", "race", "tests/test_plots.py", "-n", "0"])
    (command,) = commands.became
    assert command[1:4] == ["-m", "pytest", "--numprocesses=2"]
    assert command[-5:] == ["-k", "race", "tests/test_plots.py", "-n", "0"]
    assert json.loads(workbench.STAMP.read_text())["torch"] == "cu130"
    del commands.ran[:]
    workbench.main(["test"])
    assert commands.ran == []
    workbench.main(["test", "--torch", "cpu"])
    assert len(commands.ran) == 3


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["tset"], 2), (["--help"], 0)])
def test_no_verb_shows_how_to_use_it_and_sets_nothing_up(workbench, capsys, arguments, code):
    assert workbench.main(arguments) == code
    assert "python3 workbench.py lab " in capsys.readouterr().out
    assert not workbench.VENV.exists()


def test_check_reports_before_anything_is_installed(workbench):
    package = workbench.ROOT / "src" / "onnx_workbench"
    package.mkdir(parents=True)
    shutil.copy(HERE / "src" / "onnx_workbench" / "__init__.py", package)
    command = [bare_venv(workbench.ROOT / "bare"), workbench.ROOT / "workbench.py", "check"]
    for verdict, code in ((True, 0), (False, 1)):
        (package / "stack.py").write_text(
            "class check:\n"
            f"    __repr__ = lambda self: 'the stack'\n    __bool__ = lambda self: {verdict}\n"
        )
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, "")
        assert done.stdout == (
            "Not set up: there is no .venv yet. To set up: python3 workbench.py lab\n\nthe stack\n"
        )
