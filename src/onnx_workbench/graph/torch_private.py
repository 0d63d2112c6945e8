"""The private names of torch that capture and export rely on (torch 2.13), each in one function.

If a name has moved, its function falls back to torch's default behavior, and
``tests/test_torch_private.py`` fails.
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
from types import CodeType
from typing import Any
from unittest.mock import patch

import torch
import torch.fx.experimental._config as fx_config
from sympy import Equality, Integer, Symbol
from torch import fx
from torch._export import utils as export_utils
from torch._logging import _internal, structured
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx.proxy import TracerBase
from torch.library import CustomOpDef

from ..source import GENERATED, is_layer, is_library, is_user_file, lines

_FORWARDS = ("*args, **kwargs", "handle_torch_function(")
_PATCHES = "torch.export._patches"
_FAR = 512
"""How far from the example's size a guard is tried."""


def size_one_stays_dynamic() -> AbstractContextManager[Any]:
    """Keep a dynamic dimension whose size is 1 in the example dynamic, as torch.onnx does
    (``torch/onnx/_internal/exporter/_capture_strategies.py``); torch.export alone freezes it.

    Private: ``torch.fx.experimental._config.backed_size_oblivious``.
    """
    return fx_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


def is_fake(value: object) -> bool:
    """Whether a value is a tensor without numbers, as those of a capture are.

    Private: ``torch._subclasses.fake_tensor.FakeTensor``.
    """
    return isinstance(value, FakeTensor)


# Stack traces


def full_stack_traces() -> AbstractContextManager[Any]:
    """Let FX nodes keep the frames of all functions of the user's and of libraries, for a while.

    torch.export keeps only the frames of functions called ``forward``, so that all of ``def
    attend()`` gets the line of ``forward`` that calls it. A frame of generated code
    (``<eval_with_key>.7``), such as the body of ``torch.cond`` or of a ``torch.no_grad`` region, is
    replaced by the frames of its FX node.

    Private: ``TracerBase._filter_traceback_frames``, ``GraphModule._lineno_map``,
    ``GraphModule._prologue_start``.
    """
    name = "_filter_traceback_frames"
    original = getattr(TracerBase, name, lambda tracer, frames: frames)

    def filtered(tracer: Any, frames: traceback.StackSummary) -> traceback.StackSummary:
        by_default = {id(frame) for frame in original(tracer, frames)}
        running = _running_graphs()
        kept: list[traceback.FrameSummary] = []
        for frame in dropwhile(lambda frame: frame.name != "forward", frames):
            if frame.filename in running:
                seen = {(frame.filename, frame.lineno) for frame in kept}
                inner = _frames_of_node(running[frame.filename], frame.lineno or 0)
                kept += [f for f in inner if _counts(f) and (f.filename, f.lineno) not in seen]
            elif id(frame) in by_default or _counts(frame):
                kept.append(frame)
        return traceback.StackSummary.from_list(kept)

    return patch.object(TracerBase, name, filtered, create=True)


def _counts(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is the user's, a library's or of one of torch's layers, and not a decorator
    or a function that torch calls a second time: these only forward their arguments."""
    if is_user_file(frame.filename):
        return True
    forwards = any(words in (frame.line or "") for words in _FORWARDS)
    return not forwards and (is_library(frame.filename) or is_layer(frame.filename))


def _running_graphs() -> dict[str, fx.GraphModule]:
    """The graphs whose generated code is running, by its file name."""
    graphs: dict[str, fx.GraphModule] = {}
    for frame, _ in traceback.walk_stack(sys._getframe()):
        name = frame.f_code.co_filename
        if name.startswith(GENERATED):  # no other: reading f_locals keeps a frame's tensors alive
            owner = frame.f_locals.get("self")
            if isinstance(owner, fx.GraphModule):
                graphs.setdefault(name, owner)
    return graphs


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
    """Keep the length of an LSTM or GRU dynamic, as torch.onnx does if any dimension is:
    torch.export alone unrolls the layer.

    Clears two caches of earlier captures: the operator's implementation, and a compiled loop whose
    guards would fix the sizes of this capture.

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
    """Undo what a decomposition does to the program's shape environment.

    All decompositions of a program share that environment. The decomposition of an LSTM fixes its
    length there, and data-dependent sizes stay pending, so that the next one would fail.

    torch caches the methods of the environment, even those that fix a size on the way. A cache that
    is not cleared gives the next decomposition the answer without the effect: it would unroll an
    LSTM by the example's 6 steps, and take the length of the result for ``t``.

    Private: the fields of ``ShapeEnv`` and the caches of its methods, such as
    ``_inner_evaluate_expr`` and ``_maybe_guard_rel``; it is found by ``FakeTensor.fake_mode``.
    """
    values = (node.meta.get("val") for node in program.graph.nodes)
    environments = {
        value.fake_mode.shape_env
        for value in values
        if isinstance(value, FakeTensor) and value.fake_mode.shape_env
    }
    for environment in environments:
        environment.pending_fresh_unbacked_symbols.clear()
    saved = [
        (environment, name, copy.copy(value))
        for environment in environments
        for name, value in vars(environment).items()
        if isinstance(value, (dict, list, set, tuple))
    ]
    try:
        yield
    finally:
        for environment, name, value in saved:
            setattr(environment, name, value)
        for environment in environments:
            counter = "_replacements_version_counter"  # of the expressions that SymNodes cache
            setattr(environment, counter, getattr(environment, counter, 0) + 1)
            for method in vars(type(environment)).values():
                getattr(method, "cache_clear", lambda: None)()


def operators_looked_up_once() -> AbstractContextManager[Any]:
    """Look up torch's composite operators now, and not again for a while: a decomposition looks up
    all of them for each namespace of operators, twice, which takes a quarter of a small export.

    Private: ``torch._export.utils._materialize_cpp_cia_ops``.
    """
    name = "_materialize_cpp_cia_ops"
    getattr(export_utils, name, lambda: None)()
    return patch.object(export_utils, name, lambda: None, create=True)


# Translations


@contextmanager
def shared_translations() -> Iterator[None]:
    """Give torch.onnx a copy of one cached translation table, for a while.

    ``torch.onnx.export`` builds the table for every export, which takes most of the time of a small
    export: it parses 500 functions of onnxscript. Custom translations go into the copy.

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
        shared = copy.copy(table)
        shared.functions = {op: list(functions) for op, functions in table.functions.items()}
        return shared

    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(copied)):
        yield


@lru_cache(maxsize=32)
def _built(build: Callable[..., Any], operators: int, *opset: int, **options: int) -> Any:
    return build(*opset, **options)


# Guards


@contextmanager
def guard_events(callback: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Call ``callback`` with each guard that torch's shape environment adds in the block.

    torch writes guards only into its structured trace (``ShapeEnv._log_guard``), where
    ``torch.export.draft_export`` reads them, too. This needs no second capture, no real tensors and
    no file. It replaces the logger, because the user's logging configuration may have disabled it.

    Private: ``torch._logging._internal.trace_log`` and ``GET_DTRACE_STRUCTURED``, the event
    ``guard_added``.
    """
    with (
        patch.object(_internal, "trace_log", _TraceLog(callback, _internal.trace_log)),
        patch.object(_internal, "GET_DTRACE_STRUCTURED", True),
    ):
        yield


class _TraceLog:
    """Replaces the logger of torch's structured trace."""

    def __init__(self, callback: Callable[[Mapping[str, Any]], None], logger: Any) -> None:
        self.handlers, self._callback, self._logger = [callback], callback, logger

    def debug(self, message: str, *, extra: Mapping[str, Any], **options: Any) -> None:
        if event := extra["metadata"].get("guard_added"):
            self._callback(event)
        if self._logger.handlers:
            self._logger.debug(message, extra=extra, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


def symbol_sources(size: Any) -> dict[str, str]:
    """The symbols of a size's shape environment -> the sizes of inputs that they stand for:
    ``{"s27": "L['x'].size()[1]"}``.

    Private: ``ShapeEnv.source_to_var``.
    """
    known = getattr(size.node.shape_env, "source_to_var", {})
    return {str(symbol): source for source, symbol in known.items()}


def only_fit(size: Any) -> str:
    """The guard that leaves a dynamic size ``s`` no value but the example's, as torch writes it;
    empty if another size fits, too, or that is not known.

    A guard such as ``Eq(s77//2, 3)`` fits a neighbor, too, which another guard may exclude.

    Private: ``ShapeEnv.guards`` and ``ShapeEnv.var_to_range``.
    """
    symbol, environment, example = size.node.expr, size.node.shape_env, size.node.hint
    if not isinstance(symbol, Symbol) or not hasattr(environment, "guards") or example < 2:
        return ""  # what torch finds out about a size of 1, it does not demand
    bounds = environment.var_to_range[symbol]
    guards = [guard.expr for guard in environment.guards if guard.expr.free_symbols == {symbol}]

    def fits(guard: Any, n: int) -> bool:
        try:
            return bool(guard.xreplace({symbol: Integer(n)}))
        except ZeroDivisionError:
            return False

    above, below = range(example + 1, example + _FAR), range(example - 1, 1, -1)
    for guard in guards:
        if isinstance(guard, Equality) and guard.rhs.is_number and "Mod(" not in str(guard):
            near = [n for n in (*above, *below) if bounds.lower <= n <= bounds.upper]
            if not any(all(fits(each, n) for each in guards) for n in near):
                return str(guard.xreplace({symbol: Symbol("s")}))
    return ""


def frame_file(number: int) -> str:
    """The file of a frame in an event, which has the number of its interned name.

    Private: ``torch._logging.structured.INTERN_TABLE``.
    """
    names = {number: name for name, number in structured.INTERN_TABLE.items()}
    return names.get(number, "<unknown>")


# Custom operators


def custom_operator(op: CustomOpDef) -> tuple[str, str, tuple[str, ...], Any, Any]:
    """The parts from which a bundle makes a ``torch.library.custom_op`` operator again: its name,
    schema, arguments that it writes into, function and fake function.

    Private: ``CustomOpDef._qualname``, ``_schema``, ``_init_fn``, ``_abstract_fn``,
    ``_opoverload``.
    """
    arguments = op._opoverload._schema.arguments
    mutated = tuple(a.name for a in arguments if a.alias_info and a.alias_info.is_write)
    return op._qualname, op._schema, mutated, op._init_fn, op._abstract_fn
