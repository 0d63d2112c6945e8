"""What a bug report needs, in a folder or a .zip: it runs by itself, and holds no weights."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import reduce
from html import escape
from importlib import metadata
from os import PathLike, fspath
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import nn
from torch.nn.utils import parametrize

from .. import files
from ..comparison import TOLERANCES, Grains
from ..errors import InputError
from ..graph.signature import bind
from ..source import is_users
from . import cells, repro

if TYPE_CHECKING:
    from . import Audit
    from .stages import Case

_VERSIONS = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
_INDICES = (torch.int32, torch.int64)
_KEPT = 4096
"""Bytes up to which an input goes into the bundle as it was."""


def target(path: str | PathLike[str]) -> Path:
    """The path of a bundle to be written, checked before any work is done for it."""
    if os.path.lexists(path):
        raise InputError(f"{fspath(path)!r} exists. Pass the name of a new folder or .zip file.")
    return files.target(path)


def write(audit: Audit, path: str | PathLike[str]) -> Path:
    """The bundle at ``path``, whole or not at all."""
    goal = target(path)
    with tempfile.TemporaryDirectory() as work, files.replacing(goal) as draft:
        zipped = goal.suffix == ".zip"
        folder = Path(work) / goal.stem if zipped else draft / goal.name
        folder.mkdir()
        _fill(folder, audit)
        if zipped:
            shutil.make_archive(str(draft / goal.stem), "zip", work, goal.stem)
    return goal


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
        "others": case.others,
        "tolerances": {dtype: case.tolerance or pair for dtype, pair in TOLERANCES.items()},
        "grains": Grains.of_call(case.model, case.args, case.kwargs),
    }
    weights = case.model.state_dict(keep_vars=True).values()
    try:
        paths = {_path(op): _path(f) for op, f in (case.translations or {}).items()}
        call["translations"] = paths
        roots = {path.partition(":")[2] for path in paths.values() if path.startswith("__main__:")}
        for name, value in (("model", case.model), ("call", call)):
            with (folder / f"{name}.pkl").open("wb") as stream:
                pickler = _Weightless(stream, weights)
                pickler.dump(value)
                roots |= pickler.own
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"{case.name} cannot be taken apart: {error}\nDefine its classes and functions at the "
            "top of a module or a cell, not inside a function, and use no lambda."
        ) from error
    (folder / "versions.json").write_text(json.dumps(_versions(), indent=1), "utf-8")
    (folder / "report.txt").write_text(f"{audit!r}\n", "utf-8")
    audit.save(folder / "report.html")
    shutil.copy(repro.__file__, folder)
    for name, text in _sources(case, {root.partition(".")[0] for root in roots}):
        file = folder / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


class _Weightless(pickle.Pickler):
    """Pickles a structure with, in place of each tensor, what it takes to make another one.

    Of ``weights``, which are what a state dict holds, no number is kept but booleans and indices,
    which a model cannot do without. All else is kept where it is small, and counted where not.
    ``own`` are the classes and functions of the cells, or of the script that runs, that it names.
    """

    def __init__(self, stream: BinaryIO, weights: Iterable[torch.Tensor]) -> None:
        super().__init__(stream)
        self._weights = {id(weight) for weight in weights}
        self.own: set[str] = set()
        self._known: dict[int, tuple[int, Any]] = {}  # holds the tensors, so that ids stay theirs

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)) and obj.__module__ == "__main__":
            self.own.add(obj.__qualname__)
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            # torch makes its class at run time and refuses to pickle it; a hook that reads old
            # checkpoints is a local function, and a repro reads none.
            made = parametrize.type_before_parametrizations(obj), [*obj.parametrizations]  # type: ignore
            state = vars(obj) | {"_load_state_dict_pre_hooks": OrderedDict()}
            return repro.parametrized, made, state
        return NotImplemented

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, torch.Tensor):
            return None
        key, _ = self._known.setdefault(id(obj), (len(self._known), obj))
        dtype = str(obj.dtype).removeprefix("torch.")
        known = (_of_weight if id(obj) in self._weights else _of_input)(obj.detach())
        return key, tuple(obj.shape), dtype, isinstance(obj, nn.Parameter), known


def _of_weight(tensor: torch.Tensor) -> list | dict[str, Any] | None:
    if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel():
        return None
    kept = tensor.dtype in (torch.bool, *_INDICES) or tensor.numel() == 1
    return tensor.flatten().tolist() if kept else _ends(tensor)


def _of_input(tensor: torch.Tensor) -> list | dict[str, Any] | None:
    """The values themselves, or what numbers there are: a fault may need an infinity or a zero."""
    if tensor.nbytes <= _KEPT or tensor.dtype is torch.bool:
        return tensor.flatten().tolist()
    if tensor.is_complex():
        return None
    if not tensor.is_floating_point():
        return _ends(tensor)
    flat = tensor.flatten().double()
    finite = flat[flat.isfinite()]
    finite = finite if finite.numel() else flat.new_zeros(1)
    odd = {word: int((flat == float(word)).sum()) for word in ("inf", "-inf", "0")}
    odd["nan"] = int(flat.isnan().sum())
    moments = {"mean": float(finite.mean()), "std": float(finite.std(correction=0))}
    return {**moments, **_ends(finite), "odd": {word: n for word, n in odd.items() if n}}


def _ends(tensor: torch.Tensor) -> dict[str, Any]:
    return {"low": tensor.min().item(), "high": tensor.max().item()}


def _path(thing: Any) -> str:
    """``module:name`` of an operator of torch, or of a function that can be imported by it."""
    if isinstance(thing, torch._ops.OpOverload):
        return f"torch:ops.{thing}"
    module, name = thing.__module__, getattr(thing, "__qualname__", thing.__name__)
    try:
        found = reduce(getattr, name.split("."), sys.modules[module])
    except (AttributeError, KeyError):
        found = None
    if found is not thing:
        raise AttributeError(f"{module}.{name} is not to be found by that name")
    return f"{module}:{name}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _sources(case: Case, own: set[str]) -> Iterator[tuple[str, str]]:
    """The user's files that the model and the translations come from, whole packages, and those
    that these import; and a script of what cells bind."""
    translators = (case.translations or {}).values()
    classes = {kind for module in case.model.modules() for kind in type(module).__mro__}
    waiting = {kind.__module__ for kind in classes}
    waiting |= {function.__module__ for function in translators}
    if own:
        script = cells.needed(own)
        main = vars(sys.modules["__main__"])
        waiting |= set(_homes(main[name] for name in script.names if name in main))
        yield "notebook.py", script.text
    roots: set[str] = {"__main__"}
    while waiting:
        root = waiting.pop().partition(".")[0]
        if root in roots:
            continue
        roots.add(root)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if name.partition(".")[0] != root or not is_users(file) or not Path(file).is_file():
                continue
            waiting |= set(_homes(vars(module).values()))
            path = name.replace(".", "/") + ("/__init__" if hasattr(module, "__path__") else "")
            yield f"{path}.py", Path(file).read_text(encoding="utf-8")


def _homes(values: Iterable[Any]) -> Iterator[str]:
    """The modules among these, and those that the others come from."""
    for value in list(values):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if isinstance(name, str):
            yield name
