"""check(): a broken package hides no other; each problem comes with the command that fixes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_workbench import stack
from onnx_workbench.stack import Clocks, Package, Reading, Stack, isolated_imports

SOURCE = Path(stack.__file__).parent
TORCH = Package("torch", "2.13.0+cpu", ">=2.9", "import torch")
SCRIPT = Package("onnxscript", "0.7.2", ">=0.5", "from onnxscript import opset18")
NUMPY = Package("numpy", "2.4.6", ">=1.26", "import numpy")
ONNX = Package("onnx", "1.23.2", ">=1.19", "import onnx")
LAB = Package("jupyterlab", "4.6.6", ">=4.2", "import jupyterlab", extra="lab")
CLOCKS = Clocks(Reading(20, 10), Reading(25, 10), Reading(28, 14), Reading(26, 13))
INDEX = "--index-url https://download.pytorch.org/whl/"


def made(*packages: Package, runtimes: tuple[str, ...] = ("onnxruntime",), clocks=CLOCKS) -> Stack:
    return Stack(packages, runtimes, clocks, "Python 3.11.7 on Linux x86_64")


def gone(package: Package) -> Package:
    return replace(package, installed=None)


def install(folder: Path, name: str, version: str, code: str = "") -> None:
    """What pip leaves behind: a module and its metadata."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


IDENTITY = '<ir_version: {}, opset_import: ["": {}]> f (float[1] x) => (float[1] y) {{y = Relu(x)}}'


def test_an_opset_counts_as_written_if_the_file_has_the_opset_that_was_asked_for(monkeypatch):
    """Asked for more than it knows, the exporter falls back to 18 and only logs it."""
    import onnx
    import torch

    def stubborn(program, *, opset_version, **options):
        got = opset_version if opset_version and opset_version <= 21 else 18
        return type(
            "Program", (), {"model_proto": onnx.parser.parse_model(IDENTITY.format(10, got))}
        )

    monkeypatch.setattr(torch.onnx, "export", stubborn)
    found = {}
    stack.read_clocks(found)
    assert (found["default"], found["writes"]) == ((18, 10), (21, 10))


def test_an_import_that_fails_in_any_way_is_an_error_and_the_others_go_on():
    expected = {
        "print('[1, 2]'); import os; os.write(1, b'noi\\xffse'); found = 3": ("", 3),
        "raise ImportError('libfoo.so.1: gone\\nmore')": ("ImportError: libfoo.so.1: gone", None),
        "import sys; sys.exit('no GPU')": ("SystemExit: no GPU", None),
        "found = 4": ("", 4),
        "1 / 0": ("ZeroDivisionError: division by zero", None),
        "import os; os._exit(7)": ("the process ended with exit code 7", None),
        "print('[1]'); import os; os._exit(0)": ("the process ended with exit code 0", None),
        "found = 5": ("", 5),
    }
    if sys.platform != "win32":  # which has no signals
        abort = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        expected[abort] = "the process was killed by SIGSEGV", None
    assert isolated_imports([*expected]) == [*expected.values()]
    late = [("no answer within 1 s", None)]
    assert isolated_imports(["import time; time.sleep(60)"], timeout=1) == late


def test_an_import_that_fails_behind_another_runs_again_alone():
    behind = "import sys; found = 'json.tool' in sys.modules; assert not found"
    assert isolated_imports(["import json.tool", behind]) == [("", None), ("", False)]


def test_a_package_that_crashes_hides_no_other(tmp_path):
    """Broken packages lie in a folder of their own, first on the path, with metadata."""
    room = tmp_path / "src" / "onnx_workbench"
    room.mkdir(parents=True)
    rooms = ("stack", "errors", "brief", "source", "formatting")
    for name in ("__init__.py", "__init__.pyi", *(f"{room}.py" for room in rooms)):
        shutil.copy(SOURCE / name, room)
    required = ["netron>=9.0", "onnx>=1.19", "tqdm>=4"]
    (tmp_path / "pyproject.toml").write_text(
        f"[project]\ndependencies = {required}\noptional-dependencies = {{}}\n"
    )
    install(tmp_path, "netron", "9.9", "import os; os._exit(3)")
    install(tmp_path, "onnx", "1.18", "")
    install(tmp_path, "tqdm", "4.9", "raise ImportError('no bar')")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(room.parent)!r}]\n"
        "from onnx_workbench import check\n"
        "found = check()\n"
        "print([(p.name, p.verdict, p.error) for p in found.packages], found.clocks.error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    died = "the process ended with exit code 3"
    assert done.stdout.startswith(
        f"[('netron', 'broken', '{died}'), ('onnx', 'out of range', ''), "
        "('tqdm', 'broken', 'ImportError: no bar')] AttributeError: "
    )


@pytest.mark.parametrize(
    ("found", "nouns", "command"),
    [
        (
            made(replace(TORCH, installed="2.5.1+cu124"), SCRIPT),
            ["torch 2.5.1", "out of the range >=2.9", "needs a newer one"],
            f'install --upgrade "torch>=2.9" {INDEX}cu124',
        ),
        (made(gone(TORCH)), ["torch is missing"], f'install "torch>=2.9" {INDEX}cpu'),
        (
            made(replace(TORCH, installed="2.13.0", error="RuntimeError: Numpy")),
            ["torch 2.13.0 is broken", "`import torch` gives RuntimeError: Numpy"],
            'install --force-reinstall "torch>=2.9"',
        ),
        (
            made(TORCH, gone(SCRIPT)),
            ["onnxscript is missing", "torch.onnx.export translates"],
            'install "onnxscript>=0.5"',
        ),
        (
            made(gone(NUMPY), gone(ONNX)),
            ["numpy and onnx are missing"],
            'install "numpy>=1.26" "onnx>=1.19"',
        ),
        (
            made(gone(NUMPY), replace(ONNX, error="ImportError: No module named 'numpy'")),
            ["numpy is missing"],
            'install "numpy>=1.26"',
        ),
        (
            made(replace(LAB, error="ImportError: x")),
            ["jupyterlab 4.6.6 is broken"],
            'install --force-reinstall "jupyterlab>=4.2"',
        ),
        (
            made(TORCH, runtimes=("onnxruntime", "onnxruntime-gpu")),
            ["onnxruntime and onnxruntime-gpu", "same folder"],
            "uninstall --yes onnxruntime onnxruntime-gpu && python -m pip install onnxruntime-gpu",
        ),
        (
            made(TORCH, clocks=replace(CLOCKS, loads=Reading(19, 9))),
            ["writes opset 20 and IR version 10", "loads at most 19 and 9"],
            "install --upgrade onnxruntime",
        ),
        (
            made(TORCH, clocks=Clocks(error="AttributeError: no such thing")),
            ["AttributeError: no such thing"],
            "install --upgrade onnx onnxscript onnxruntime",
        ),
    ],
)
def test_a_problem_is_named_with_the_command_that_fixes_it(found, nouns, command):
    assert not found
    (clash,) = found.clashes
    assert [noun for noun in nouns if noun not in clash.what] == []
    assert clash.command == f"python -m pip {command}"
    assert f"This stack has 1 problem: 1. {clash.what}" in " ".join(repr(found).split())
    assert f"\n   {clash.command}\n" in repr(found), "in one line, to be copied"


@pytest.mark.parametrize(
    ("version", "call"),
    [
        ("2.12.1", "torch.onnx.export(model, args, f) works"),
        ("2.8.0", "torch.onnx.export(model, args, f, dynamo=True)"),
        ("2.5.1+cpu", "torch.onnx.export(model, args, f, dynamo=True)"),
        ("2.4.1", "torch.onnx.dynamo_export(model, *args).save(f)"),
        ("2.1.0+cu118", "torch.onnx.dynamo_export(model, *args).save(f)"),
        ("2.0.1", "no exporter there uses Dynamo"),
    ],
)
def test_an_older_torch_is_told_its_own_call_and_what_to_install(version, call):
    (clash,) = made(replace(TORCH, installed=version, required=">=2.13")).clashes
    assert call in clash.what
    assert 'pip install --upgrade "torch>=2.13"' in clash.command


def test_a_release_newer_than_the_tested_one_is_named():
    newer = replace(TORCH, installed="2.15.0+cu132", tested="2.13.0")
    found = made(newer, replace(ONNX, tested="1.23.2"))
    assert found
    assert "Newer than what was tested: torch 2.15.0 (2.13.0)\n" in repr(found)
    assert "Newer" not in repr(made(replace(TORCH, tested="2.13.0")))


LIGHT = """
import gc
import sys
from importlib import metadata

gc.disable()  # as tests/conftest.py does

gone = ("anywidget", "ipywidgets", "traitlets", "netron", "resvg_py", "resvg-py", "matplotlib",
        "PIL", "sklearn", "scikit-learn", "jupyterlab", "ipykernel", "IPython", "pandas")
sys.modules |= dict.fromkeys(gone)
version = metadata.version

def installed(name):
    if name in gone:
        raise metadata.PackageNotFoundError(name)
    return version(name)

metadata.version = installed
import torch
import onnx_workbench as ow

class Half(torch.nn.Module):
    def forward(self, x):
        return x.relu() / 2

model, x, batch = Half().eval(), torch.ones(2, 3), {"x": {0: "batch"}}
onnx = ow.export(model, x, dynamic_shapes=batch)
traced, profiled = ow.trace(onnx, x, seconds=0.1), ow.profile(onnx, x, seconds=0.1)
for result in (ow.watch(model, x), ow.capture(model, x), onnx, traced, profiled,
               ow.verify(model, onnx, x, values=True), ow.probe(onnx)):
    assert repr(result)
traced.save("floors.html")
ow.audit(model, x, skip={"contract", "numbers", "opsets"}).save("audit.html")
for task in (lambda: ow.view(onnx), lambda: traced.floors, ow.lessons.digits, profiled.plot):
    try:
        task()
    except ImportError as error:
        print(error.message.partition(" need")[0], error.hint, sep=": ")
"""


def test_the_light_set_does_all_but_views_plots_and_lessons(tmp_path):
    command = [sys.executable, "-c", LIGHT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    view = '"netron>=9,<10" "anywidget>=0.9.13" "resvg-py>=0.5" "ipywidgets>=8.1"'
    assert done.stdout.replace("python -m pip install ", "").splitlines() == [
        f"view(): {view}",
        f"The widget of trace(): {view}",
        'lessons.digits(): "scikit-learn>=1.4"',
        'A plot: "matplotlib>=3.8"',
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"floors.html", "audit.html"}


def test_a_lab_that_is_absent_is_no_problem():
    absent = made(gone(LAB))
    assert absent
    assert "absent, needed only to open the notebooks" in repr(absent)


@pytest.mark.parametrize(
    ("version", "required", "verdict"),
    [
        ("2.9", ">=2.9", "ok"),
        ("2.9.0+cpu", "==2.9", "ok"),
        ("2.10.0", ">=2.9", "ok"),
        ("2.8.1", ">=2.9", "out of range"),
        ("3.0", ">=2.9,<3", "out of range"),
        ("2.15.0.dev20261101", ">=2.14", "ok"),
        ("unknown", ">=1", "out of range"),
    ],
)
def test_versions_compare_as_numbers(version, required, verdict):
    assert Package("torch", version, required, "import torch").verdict == verdict


def test_the_report_comes_from_a_python_that_has_nothing_installed(tmp_path):
    """Not even lazy_loader; the source is on the path, as workbench.py puts it there."""
    venv.create(tmp_path, with_pip=False)
    python = tmp_path / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    code = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); import onnx_workbench as ow"
    command = [python, "-I", "-c", f"{code}; print(ow.check())"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("This stack has 2 problems:\n1. torch is missing.")
    assert '"packaging>=' in done.stdout
