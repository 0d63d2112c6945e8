"""The arrows between the rooms: imports point down, and what is heavy waits until it is used."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import onnx_workbench

PACKAGE = Path(onnx_workbench.__file__).parent

FLOORS = (
    {"errors", "text", "progress", "tabled", "proto", "wire"},
    {"reader", "files", "source"},
    {"calls", "checks", "runtime", "plots", "stack"},
    {"bytecode", "capturing", "notes", "session", "timing"},
    {"agreement", "exposed", "isolated", "viewer"},
    {"artifact", "causes"},
    {"lines"},
    {"divergence"},
    {"shapes", "ladder"},
    {"inspection"},
    {"lessons", "__main__"},
)
"""From the ground up. A room may import from the floors below its own, never from its own."""

STANDARD_LIBRARY_ALONE = {"errors", "text", "source", "stack", "calls"}
WAITS = {"matplotlib", "onnxruntime", "netron", "ipywidgets", "sklearn"}
"""Imported inside the function that needs them, never when a room is opened."""


def rooms(package: Path) -> dict[str, list[Path]]:
    """Each room with its files: a module, or a folder."""
    found: dict[str, list[Path]] = {}
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, []).append(file)
    return found


def imports(file: Path, package: Path, deep: bool = True) -> set[str]:
    """What a file imports: ``.room`` for a room of this package, else the top-level name.

    ``deep`` is False for what happens when the file is opened, not inside its functions.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    depth = len(file.relative_to(package).parts)
    names: set[str] = set()
    for node in ast.walk(tree) if deep else _opened(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            targets = [node.module] if node.module else [alias.name for alias in node.names]
            names |= {f".{target.split('.')[0]}" for target in targets}
    return names


def _opened(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not checking and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from _opened(node)


def upward(package: Path, floors=FLOORS) -> list[str]:
    """Every arrow that does not point down, as ``room -> room``."""
    floor = {room: number for number, names in enumerate(floors) for room in names}
    return [
        f"{room} -> {target[1:]}"
        for room, files in rooms(package).items()
        for file in files
        for target in sorted(imports(file, package))
        if target.startswith(".") and target[1:] != room and floor[target[1:]] >= floor[room]
    ]


def inner(folder: Path) -> dict[str, set[str]]:
    """Each file of a folder, with the files beside it that it imports when it is opened."""
    arrows: dict[str, set[str]] = {}
    for file in folder.glob("*.py"):
        opened = _opened(ast.parse(file.read_text(encoding="utf-8")))
        beside = [node for node in opened if isinstance(node, ast.ImportFrom) and node.level == 1]
        arrows[file.stem] = {
            target.split(".")[0]
            for node in beside
            for target in ([node.module] if node.module else [alias.name for alias in node.names])
        }
    return arrows


def test_inside_a_folder_no_file_imports_in_a_circle():
    for folder in {file.parent for files in rooms(PACKAGE).values() for file in files} - {PACKAGE}:
        list(TopologicalSorter(inner(folder)).static_order())


def test_a_circle_inside_a_folder_is_found(tmp_path):
    (tmp_path / "sizes.py").write_text("from .calls import Calls\n")
    (tmp_path / "calls.py").write_text("from . import sizes\n")
    with pytest.raises(CycleError):
        list(TopologicalSorter(inner(tmp_path)).static_order())


def test_every_room_stands_on_a_floor():
    assert set(rooms(PACKAGE)) == set().union(*FLOORS)


def test_every_arrow_points_down():
    assert upward(PACKAGE) == []


def test_an_arrow_that_points_up_or_sideways_is_found(tmp_path):
    (tmp_path / "bytecode.py").write_text("from . import notes\n")
    (tmp_path / "notes.py").write_text("def f():\n    from .artifact import export\n")
    (tmp_path / "artifact.py").write_text("from .notes import Noted\n")
    assert upward(tmp_path) == ["bytecode -> notes", "notes -> artifact"]


def test_the_ground_floor_needs_the_standard_library_alone():
    for room, files in rooms(PACKAGE).items():
        if room in STANDARD_LIBRARY_ALONE:
            outside = set().union(*(imports(file, PACKAGE, deep=False) for file in files))
            outside = {name for name in outside if not name.startswith(".")}
            assert outside <= set(sys.stdlib_module_names), room


def test_verify_and_race_never_learn_what_onnx_is():
    for room in ("agreement", "timing"):
        for file in rooms(PACKAGE)[room]:
            assert not imports(file, PACKAGE) & {"onnx", "onnxruntime", ".artifact", ".runtime"}


def test_what_is_heavy_waits_until_it_is_used():
    for files in rooms(PACKAGE).values():
        for file in files:
            assert not imports(file, PACKAGE, deep=False) & WAITS, file


def test_an_import_at_the_top_is_told_from_one_inside_a_function(tmp_path):
    file = tmp_path / "room.py"
    file.write_text("def f():\n    import netron\nclass C:\n    import matplotlib\n")
    assert imports(file, tmp_path, deep=False) == {"matplotlib"}
    assert imports(file, tmp_path) == {"matplotlib", "netron"}


@pytest.mark.parametrize("used", ["", "ow.check; ow.__all__; dir(ow)"])
def test_importing_the_package_loads_nothing_heavy(used):
    heavy = "torch numpy onnx onnxruntime matplotlib netron ipywidgets anywidget sklearn tqdm"
    code = (
        f"import sys, onnx_workbench as ow; {used}\n"
        f"print(sorted(set(sys.modules) & set({heavy!r}.split())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_door_opens_whatever_room_was_entered_first():
    code = (
        "import importlib, pkgutil, onnx_workbench as ow\n"
        "for room in pkgutil.iter_modules(ow.__path__):\n"
        "    importlib.import_module(f'onnx_workbench.{room.name}')\n"
        "doors = set(ow.__all__) - {'errors', 'lessons'}\n"
        "print([name for name in doors if not callable(getattr(ow, name))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
