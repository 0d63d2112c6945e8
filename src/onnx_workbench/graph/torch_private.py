"""The private names of torch that capture and export rely on (torch 2.13), each in one function.

Each function says what it is for and falls back to torch's own way where the name has moved;
``tests/test_torch_private.py`` fails then.
"""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import dropwhile
from types import CodeType, FrameType
from typing import Any
from unittest.mock import patch

import torch
import torch.fx.experimental._config as fx_config
from torch import fx
from torch._logging import _internal, structured
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx.proxy import TracerBase
from torch.library import CustomOpDef

from ..source import GENERATED, is_layer, is_library, is_users, lines

_HANDED_ON = ("*args, **kwargs", "handle_torch_function(")
_PATCHES = "torch.export._patches"


def size_one_stays_dynamic() -> AbstractContextManager[Any]:
    """Keep a dynamic dimension whose size is 1 in the example dynamic, as torch.onnx does
    (``torch/onnx/_internal/exporter/_capture_strategies.py``); torch.export alone freezes it.

    Private: ``torch.fx.experimental._config.backed_size_oblivious``.
    """
    return fx_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


# Stack traces


@contextmanager
def full_stack_traces() -> Iterator[None]:
    """While this lasts, FX nodes keep the frames of all functions of the user's and of libraries.

    torch.export keeps those of functions called ``forward`` alone, so that all of ``def attend()``
    stands on the line of ``forward`` that calls it. A frame of generated code
    (``<eval_with_key>.7``), such as the body of ``torch.cond`` or of a ``torch.no_grad`` region, is
    replaced by the frames of its FX node.

    Private: ``TracerBase._filter_traceback_frames``, ``GraphModule._lineno_map``,
    ``GraphModule._prologue_start``.
    """
    theirs = getattr(TracerBase, "_filter_traceback_frames", None)
    if theirs is None:
        yield
        return

    def ours(tracer: Any, frames: traceback.StackSummary) -> traceback.StackSummary:
        kept = {id(frame) for frame in theirs(tracer, frames)}
        running = _running()
        found: list[traceback.FrameSummary] = []
        for frame in dropwhile(lambda frame: frame.name != "forward", frames):
            if frame.filename in running:
                seen = {(frame.filename, frame.lineno) for frame in found}
                inner = _frames_of_node(running[frame.filename], frame.lineno or 0)
                found += [f for f in inner if _counts(f) and (f.filename, f.lineno) not in seen]
            elif id(frame) in kept or _counts(frame):
                found.append(frame)
        return traceback.StackSummary.from_list(found)

    with patch.object(TracerBase, "_filter_traceback_frames", ours):
        yield


def _counts(frame: traceback.FrameSummary) -> bool:
    """Frames of the user's, of libraries and of torch's layers, except decorators and functions
    that torch calls a second time: these hand on whatever they are given."""
    if is_users(frame.filename):
        return True
    hands_on = any(words in (frame.line or "") for words in _HANDED_ON)
    return not hands_on and (is_library(frame.filename) or is_layer(frame.filename))


def _running() -> dict[str, fx.GraphModule]:
    """The name of generated code -> its graph, for all that runs now."""
    found: dict[str, fx.GraphModule] = {}
    frame: FrameType | None = sys._getframe()
    while frame:
        name = frame.f_code.co_filename
        if name.startswith(GENERATED):  # reading f_locals keeps every tensor of a frame alive
            owner = frame.f_locals.get("self")
            if isinstance(owner, fx.GraphModule):
                found.setdefault(name, owner)
        frame = frame.f_back
    return found


def _frames_of_node(module: fx.GraphModule, number: int) -> list[traceback.FrameSummary]:
    """The stack trace of the FX node that a line of generated code runs."""
    rows = getattr(module, "_lineno_map", None) or {}
    index = rows.get(number - getattr(module, "_prologue_start", 0))
    nodes = list(module.graph.nodes)
    if index is None or index >= len(nodes):
        return []
    return [
        traceback.FrameSummary(line.file, line.number, line.function, line=line.text)
        for line in lines(nodes[index].meta.get("stack_trace") or "")
    ]


# Sizes


@contextmanager
def dynamic_recurrence(dynamic_shapes: Any) -> Iterator[None]:
    """Keep the length of an LSTM or GRU dynamic, as torch.onnx does where any dimension is:
    torch.export alone unrolls the layer.

    What torch chose for the operator in an earlier capture is forgotten: an implementation, and a
    compiled loop whose guards would fix the sizes of this capture.

    Private: ``torch.export._patches``, ``OpOverload._dispatch_cache``, the code of
    ``torch._higher_order_ops.while_loop``, ``torch._dynamo.eval_frame.remove_from_cache``.
    """
    with ExitStack() as stack:
        if dynamic_shapes and find_spec(_PATCHES):
            patches = import_module(_PATCHES)
            for name in ("lstm", "gru"):
                stack.callback(_forget, name)
                register = getattr(patches, f"register_{name}_while_loop_decomposition", None)
                if register:
                    stack.enter_context(register())
                _forget(name)
        yield


def _forget(operator: str) -> None:
    from torch._dynamo.eval_frame import remove_from_cache
    from torch._higher_order_ops.while_loop import while_loop

    getattr(getattr(torch.ops.aten, operator).input, "_dispatch_cache", {}).clear()
    for code in while_loop.__code__.co_consts:
        if isinstance(code, CodeType):
            remove_from_cache(code)


@contextmanager
def sizes_unchanged(program: ExportedProgram) -> Iterator[None]:
    """Discard what a decomposition finds out about sizes when it ends.

    All decompositions of a program share its shape environment. That of an LSTM fixes its length
    there, and sizes that depend on data stay pending: the next one would refuse them.

    Private: the fields of ``ShapeEnv``; it is found by ``FakeTensor.fake_mode``.
    """
    values = (node.meta.get("val") for node in program.graph.nodes)
    environments = {
        value.fake_mode.shape_env
        for value in values
        if isinstance(value, FakeTensor) and value.fake_mode.shape_env
    }
    for environment in environments:
        environment.pending_fresh_unbacked_symbols.clear()
    kept = [
        (environment, name, copy.copy(held))
        for environment in environments
        for name, held in vars(environment).items()
        if isinstance(held, (dict, list, set))
    ]
    try:
        yield
    finally:
        for environment, name, held in kept:
            setattr(environment, name, held)
        for environment in environments:
            for counter in ("_version_counter", "_replacements_version_counter"):  # of its caches
                setattr(environment, counter, getattr(environment, counter, 0) + 1)


# Translations


@contextmanager
def shared_translations() -> Iterator[None]:
    """While this lasts, torch.onnx gets a copy of one table; custom translations enter the copy.

    ``torch.onnx.export`` builds the table for every export, which takes most of a small one: it
    parses 500 functions of onnxscript.

    Private: ``ONNXRegistry.from_torchlib`` and its ``functions``.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        build = ONNXRegistry.from_torchlib
        _ = ONNXRegistry().functions
    except (ImportError, AttributeError, TypeError):
        yield
        return

    def copied(*opset: int, **options: int) -> Any:
        operators = len(torch._C._dispatch_get_all_op_names())  # torchvision registers its own
        table = _built(build, operators, *opset, **options)
        own = copy.copy(table)
        own.functions = {operator: list(found) for operator, found in table.functions.items()}
        return own

    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(copied)):
        yield


@lru_cache(maxsize=32)
def _built(build: Callable[..., Any], operators: int, *opset: int, **options: int) -> Any:
    return build(*opset, **options)


# Guards


@contextmanager
def guard_events(heard: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Call ``heard`` with each guard that torch's shape environment adds while this lasts.

    The guards are written into torch's structured trace alone (``ShapeEnv._log_guard``), which is
    where ``torch.export.draft_export`` reads them too. That costs no second capture, runs no real
    tensors and writes no file. The logger itself is replaced: the user's logging configuration may
    have disabled it.

    Private: ``torch._logging._internal.trace_log`` and ``GET_DTRACE_STRUCTURED``, the event
    ``guard_added``.
    """
    with (
        patch.object(_internal, "trace_log", _TraceLog(heard, _internal.trace_log)),
        patch.object(_internal, "GET_DTRACE_STRUCTURED", True),
    ):
        yield


class _TraceLog:
    """Stands in for the logger of torch's structured trace."""

    def __init__(self, heard: Callable[[Mapping[str, Any]], None], theirs: Any) -> None:
        self.handlers, self._heard, self._theirs = [heard], heard, theirs

    def debug(self, message: str, *, extra: Mapping[str, Any], **options: Any) -> None:
        if event := extra["metadata"].get("guard_added"):
            self._heard(event)
        if self._theirs.handlers:
            self._theirs.debug(message, extra=extra, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)


def frame_file(number: int) -> str:
    """The file of a frame in an event: torch writes its name once, and from then on a number.

    Private: ``torch._logging.structured.INTERN_TABLE``.
    """
    names = {number: name for name, number in structured.INTERN_TABLE.items()}
    return names.get(number, "<unknown>")


# Custom operators


def custom_operator(op: CustomOpDef) -> tuple[str, str, tuple[str, ...], Any, Any]:
    """Of an operator that ``torch.library.custom_op`` made: its name, schema, the arguments that it
    writes into, its function and its fake function, from which a bundle makes it again.

    Private: ``CustomOpDef._qualname``, ``_schema``, ``_init_fn``, ``_abstract_fn``,
    ``_opoverload``.
    """
    arguments = op._opoverload._schema.arguments
    mutated = tuple(a.name for a in arguments if a.alias_info and a.alias_info.is_write)
    return op._qualname, op._schema, mutated, op._init_fn, op._abstract_fn
