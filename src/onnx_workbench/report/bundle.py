"""A bug report as a folder or a .zip file: it runs by itself and holds no weights."""

from __future__ import annotations

import ast
import copyreg
import json
import linecache
import os
import shutil
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from operator import attrgetter
from os import PathLike, fspath
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import cloudpickle
import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.library import CustomOpDef
from torch.nn.utils import parametrize

from .. import files
from ..comparison import Grains, answer, tolerance_of
from ..errors import InputError
from ..graph.signature import bind
from ..graph.torch_private import custom_operator
from ..source import is_user_file
from ..torch_state import evaluating
from . import repro

if TYPE_CHECKING:
    from . import Audit
    from .stages import Case

_INDICES = (torch.bool, torch.int32, torch.int64)
_KEPT = 4096
"""Bytes of the largest input that goes into the bundle unchanged."""


def writable(path: str | PathLike[str]) -> Path:
    """Check the path of a bundle, before any work is done for it."""
    if isinstance(path, (str, bytes, os.PathLike)) and os.path.lexists(path):
        raise InputError(f"{fspath(path)!r} exists.", "Pass the name of a new folder or .zip file.")
    return files.writable(path)


def write(audit: Audit, path: str | PathLike[str]) -> Path:
    """Write the bundle at ``path``, whole or not at all."""
    goal = writable(path)
    with tempfile.TemporaryDirectory() as work, files.replacing(goal) as draft:
        zipped = goal.suffix == ".zip"
        folder = Path(work) / goal.stem if zipped else draft / goal.name
        folder.mkdir()
        _fill(folder, audit)
        if zipped:
            shutil.make_archive(str(draft / goal.stem), "zip", work, goal.stem)
    return goal


def _fill(folder: Path, audit: Audit) -> None:
    case = audit.case
    if case.model is None:
        raise InputError("A file needs no bundle: it is its own repro.", f"Attach {case.name}.")
    call = _call(case)
    try:
        with (folder / "call.pkl").open("wb") as stream:
            pickler = _Weightless(stream, case.model)
            pickler.dump(call)
    except Exception as error:  # an object in the model may raise anything when it is pickled
        raise InputError(
            f"{case.name} cannot be pickled: {type(error).__name__}: {error}",
            "Remove what cannot be pickled from the model, or from its globals.",
        ) from error
    (folder / "versions.json").write_text(json.dumps(audit.versions, indent=1), "utf-8")
    (folder / "report.txt").write_text(f"{audit!r}\n", "utf-8")
    audit.save(folder / "report.html")
    shutil.copy(repro.__file__, folder)
    sources = dict(_sources(pickler.modules))
    if statements := list(_statements(pickler.codes)):
        sources["notebook.py"] = "\n\n".join(statements)
    for name, text in sources.items():
        file = folder / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


def _call(case: Case) -> dict[str, Any]:
    """The dict that repro.py loads. The operators come first, since the model refers to them."""
    main, dynamic = sys.modules["__main__"], case.dynamic_shapes or None
    if isinstance(dynamic, Mapping):
        names = bind(case.model, *case.call).arguments
        dynamic = {name: dynamic.get(name) for name in names}
    return {
        "operators": [x for x in vars(main).values() if isinstance(x, CustomOpDef)],
        "model": case.model,
        "args": case.args,
        "kwargs": case.kwargs,
        "dynamic_shapes": dynamic,
        "opset": case.opset_version,
        "translations": [(function, op) for op, function in (case.translations or {}).items()],
        "failing_calls": case.failing_calls,
        "fixed": _fixed(case),
        "tolerances": list(_tolerances(case)),
    }


def _fixed(case: Case) -> list[int]:
    """The leaves of the result that capture fixed: a number of this call, a string, None."""
    return [*case.graph.signature.baked_outputs] if case.graph else []


def _tolerances(case: Case) -> Iterator[tuple[float, float]]:
    """One for each output of the file; none if the model itself fails."""
    fixed = _fixed(case)
    with suppress(Exception), evaluating(case.model, warn=False):
        result = answer(case.model, *case.call)
        grains = Grains.of_call(case.model, *case.call)
        for i, (leaf, grain) in enumerate(zip_longest(pytree.tree_leaves(result), grains)):
            if leaf is not None and i not in fixed:
                yield tolerance_of(torch.as_tensor(leaf).dtype, case.tolerance, grain)


class _Weightless(cloudpickle.Pickler):
    """Pickles a model without its weights: only the shape, dtype and seed of each.

    Classes and functions of a notebook, or of the running script, are pickled by value: ``codes``
    has their code. Those of imported modules are pickled by name: ``modules`` has these modules.
    """

    def __init__(self, stream: BinaryIO, model: nn.Module) -> None:
        super().__init__(stream)
        self._seeds = {id(t): n for n, t in enumerate(model.state_dict(keep_vars=True).values())}
        self._alive: list[Any] = []  # pickle identifies objects by id, so keep the new ones alive
        self.modules: set[str] = set()
        self.codes: set[CodeType] = set()

    def persistent_id(self, obj: Any) -> Any:
        seed = self._seeds.get(id(obj))
        if seed is not None and (obj.is_floating_point() or obj.is_complex()):
            return "weight", seed, tuple(obj.shape), obj.dtype, isinstance(obj, nn.Parameter)
        if isinstance(obj, CustomOpDef):
            return "operator", *custom_operator(obj)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)):
            self._note(obj)
        if isinstance(obj, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
            return attrgetter(f"ops.{obj}"), (torch,)
        if isinstance(obj, ModuleType) and obj.__name__.startswith("torch.ops"):
            return attrgetter(obj.__name__.removeprefix("torch.")), (torch,)
        if isinstance(obj, torch.Tensor):
            kept = _kept(obj.detach(), is_weight=id(obj) in self._seeds)
            kept = nn.Parameter(kept, False) if isinstance(obj, nn.Parameter) else kept
            self._alive.append(kept)
            return kept.__reduce_ex__(2)
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            # torch refuses to pickle these; their hook for old checkpoints is a local function
            state = vars(obj) | {"_load_state_dict_pre_hooks": OrderedDict()}
            return copyreg.__newobj__, (type(obj),), state  # type: ignore[attr-defined]
        return super().reducer_override(obj)

    def _note(self, obj: Any) -> None:
        self.modules.add(obj.__module__ or "")
        if obj.__module__ == "__main__":
            parts = vars(obj).values() if isinstance(obj, type) else [obj]
            self.codes |= {part.__code__ for part in parts if isinstance(part, FunctionType)}


def _kept(tensor: torch.Tensor, is_weight: bool) -> torch.Tensor:
    """A copy of the tensor, or a random one with similar numbers.

    Copied are weights of int32, int64, bool or a single number, which the model needs, and inputs
    of bool or of up to 4 KB.
    """
    small = tensor.numel() == 1 if is_weight else tensor.nbytes <= _KEPT
    indices = tensor.dtype in _INDICES if is_weight else tensor.dtype is torch.bool
    if small or indices or not tensor.numel():
        return tensor.contiguous().clone()
    if tensor.is_complex():
        return torch.view_as_complex(_kept(torch.view_as_real(tensor), is_weight))
    seed = torch.Generator().manual_seed(0)
    flat = tensor.flatten().double()
    usual = flat.isfinite() & (flat != 0)
    numbers = flat[usual]
    if len(numbers) > 1:
        low, high = numbers.aminmax()
        drawn = numbers.mean() + numbers.std() * torch.randn(len(numbers), generator=seed)
        flat[usual] = torch.cat([low[None], high[None], drawn[2:].clamp(low, high)])
    mixed = flat[torch.randperm(len(flat), generator=seed)]
    return mixed.reshape(tensor.shape).to(tensor.dtype)


def _sources(used: set[str]) -> Iterator[tuple[str, str]]:
    """The user's files that define these modules: their whole packages, and what these import."""
    paths = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    users = {name for name, path in paths.items() if is_user_file(path) and Path(path).is_file()}
    users = {name for name in users if paths[name].endswith(".py")} - {"__main__"}
    needed: set[str] = set()
    while new := {name for name in users - needed if _root(name) in map(_root, used)}:
        needed |= new
        used = {_home(value) for name in new for value in [*vars(sys.modules[name]).values()]}
    for name in needed:
        package = "/__init__" if hasattr(sys.modules[name], "__path__") else ""
        yield f"{name.replace('.', '/')}{package}.py", Path(paths[name]).read_text("utf-8")


def _root(name: str) -> str:
    return name.partition(".")[0]


def _home(value: Any) -> str:
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
    return name if isinstance(name, str) else ""


def _statements(codes: set[CodeType]) -> Iterator[str]:
    """The statements of the notebook or script that define these functions, for a reader."""
    for file in sorted({code.co_filename for code in codes}):
        firsts = {code.co_firstlineno for code in codes if code.co_filename == file}
        lines = linecache.getlines(file)
        with suppress(SyntaxError):
            for node in ast.parse("".join(lines)).body:
                first = min(part.lineno for part in (node, *getattr(node, "decorator_list", ())))
                if firsts & set(range(first, node.end_lineno + 1)):  # type: ignore[operator]
                    yield "".join(lines[first - 1 : node.end_lineno])
