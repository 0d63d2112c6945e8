"""The arrows between the rooms: imports point down, and what is heavy waits until it is used."""

import ast
import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(
    not (find_spec("importlinter") or "CI" in os.environ), reason="import-linter is not installed"
)
def test_every_arrow_points_down():
    """The contracts are in pyproject.toml. In a process of its own: it disables all loggers."""
    code = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def run(code: str) -> str:
    code = f"import gc; gc.disable(); {code}"  # as tests/conftest.py does
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("used", ["", "ow.check; ow.__all__; dir(ow)"])
def test_importing_the_package_loads_nothing_heavy(used):
    heavy = "torch numpy onnx onnxruntime matplotlib netron ipywidgets anywidget sklearn tqdm"
    loaded = (
        f"import sys, onnx_workbench as ow; {used}\nprint({{*sys.modules}} & {{*{heavy.split()}}})"
    )
    assert run(loaded) == "set()\n"


def test_every_door_opens_whatever_room_was_entered_first_and_what_is_heavy_waits():
    code = (
        "import importlib, pkgutil, sys, onnx_workbench as ow\n"
        "for room in pkgutil.iter_modules(ow.__path__):\n"
        "    importlib.import_module('onnx_workbench.' + room.name)\n"
        "heavy = {'matplotlib', 'onnxruntime', 'netron', 'sklearn', 'pandas'}\n"
        "doors = set(ow.__all__) - {'errors', 'lessons'}\n"
        "print(heavy & set(sys.modules), [d for d in doors if not callable(getattr(ow, d))])"
    )
    assert run(code) == "set() []\n"


def test_each_public_class_has_a_name_of_its_own():
    modules = (ROOT / "src").rglob("*.py")
    bodies = (ast.parse(path.read_text(encoding="utf-8")).body for path in modules)
    names = Counter(node.name for body in bodies for node in body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1 and name[0] != "_"] == []
