"""What a bug report needs, in a folder or a .zip: it runs by itself, and holds no weights."""

from __future__ import annotations

import ast
import json
import linecache
import pickle
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import nn

from ..capturing.signature import bind
from ..errors import InputError
from ..source import is_cell, is_users

if TYPE_CHECKING:
    from . import Audit

_REPRO = Path(__file__).with_name("repro.py")
_VERSIONS = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
_INDICES = (torch.int32, torch.int64)


def write(audit: Audit, target: Path) -> Path:
    """The bundle at ``target``: made beside it first, so that nothing half-written is left."""
    if target.exists():
        raise InputError(f"{target.name!r} exists. Pass the name of a new folder or .zip file.")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-") as draft:
        folder = Path(draft) / target.stem
        folder.mkdir()
        _fill(folder, audit)
        made = folder
        if target.suffix == ".zip":
            made = Path(shutil.make_archive(str(folder), "zip", draft, folder.name))
        made.replace(target)
    return target


def page(title: str, body: str) -> str:
    """One HTML document, without a script and without anything from elsewhere."""
    style = "body{font:15px system-ui;margin:2em}td,th{padding:.2em .8em;vertical-align:top}"
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{style}</style>"
    return f"<!doctype html>{head}{body}"


def _fill(folder: Path, audit: Audit) -> None:
    case = audit.case
    if case.model is None:
        raise InputError(
            f"This is the audit of a file, and the file is its own repro: attach {case.name}."
        )
    dynamic = case.dynamic or {}
    shapes = {
        name: dynamic.get(name) for name in bind(case.model, case.args, case.kwargs).arguments
    }
    call = {
        "args": case.args,
        "kwargs": case.kwargs,
        "dynamic": shapes if dynamic else None,
        "opset": case.opset,
    }
    try:
        for name, value in (("model", case.model), ("call", call)):
            with (folder / f"{name}.pkl").open("wb") as stream:
                _Weightless(stream, keep=name == "model").dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"{case.name} cannot be taken apart: {error}\nDefine its classes and functions at the "
            "top of a module or a cell, not inside a function, and use no lambda."
        ) from error
    (folder / "versions.json").write_text(json.dumps(_versions(), indent=1), "utf-8")
    (folder / "report.txt").write_text(f"{audit!r}\n", "utf-8")
    audit.save(folder / "report.html")
    shutil.copy(_REPRO, folder)
    for name, text in _sources(case.model):
        file = folder / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


class _Weightless(pickle.Pickler):
    """Pickles a structure with, in place of each tensor, what it takes to make another one.

    ``keep`` keeps the values of indices, which a model cannot do without; of a call's, their range
    alone. Booleans and single whole numbers are kept; everything else is drawn anew.
    """

    def __init__(self, stream: BinaryIO, keep: bool) -> None:
        super().__init__(stream)
        self._keep = keep
        self._known: dict[int, tuple[int, Any]] = {}  # holds the tensors, so that ids stay theirs

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, torch.Tensor):
            return None
        key, _ = self._known.setdefault(id(obj), (len(self._known), obj))
        dtype = str(obj.dtype).removeprefix("torch.")
        return key, tuple(obj.shape), dtype, isinstance(obj, nn.Parameter), self._values(obj)

    def _values(self, tensor: torch.Tensor) -> list | tuple[int, int] | None:
        if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel():
            return None
        one = tensor.dtype is torch.bool or tensor.numel() == 1
        if one or (self._keep and tensor.dtype in _INDICES):
            return tensor.flatten().tolist()
        return int(tensor.min()), int(tensor.max())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _sources(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The files of the user's modules that the model's classes come from, and of their packages."""
    homes = {type(module).__module__ for module in model.modules()}
    roots = {home.partition(".")[0] for home in homes}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        here = name.partition(".")[0] in roots - {"__main__"}
        if here and file and is_users(file) and Path(file).is_file():
            path = name.replace(".", "/") + ("/__init__" if hasattr(module, "__path__") else "")
            yield f"{path}.py", Path(file).read_text(encoding="utf-8")
    if "__main__" in homes:
        yield "notebook.py", "\n\n".join(_definitions())


def _definitions() -> Iterator[str]:
    """Imports, classes and functions of a notebook's cells, or of the script that runs."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    files = [file for file in linecache.cache if is_cell(file)] or [script or ""]
    for file in files:
        with suppress(SyntaxError):
            for node in ast.parse("".join(linecache.getlines(file))).body:
                if isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)):
                    text = ast.unparse(node)
                    if "onnx_workbench" not in text.splitlines()[0]:
                        yield text
