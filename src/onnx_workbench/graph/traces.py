"""Three habits of torch.export that are changed while it captures.

Stack traces lead through helper functions: torch.export keeps only the frames of functions that are
called ``forward`` (torch 2.13, ``torch.fx.proxy.TracerBase._filter_traceback_frames``), so that all
of ``def attend(self, x)`` stands on the one line of ``forward`` that calls it. Where it runs a
graph as code, the frame is one of generated code (``<eval_with_key>.7``): the body of a
``torch.no_grad`` or ``torch.autocast`` region, a branch of ``torch.cond``, the body of a loop. And
a recurrent layer of dynamic length is unrolled.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import dropwhile
from types import CodeType, FrameType
from typing import Any

import torch
from torch import fx
from torch.fx.proxy import TracerBase

from ..source import GENERATED, Line, is_layer, is_library, is_users, lines

_HANDED_ON = ("*args, **kwargs", "handle_torch_function(")
_METHOD = "_filter_traceback_frames"
_PATCHES = "torch.export._patches"


@contextmanager
def through_helpers() -> Iterator[None]:
    """While this lasts, nodes that torch.export makes keep the frames of all functions of the
    user's and of libraries, and a frame of generated code is replaced by those of its FX node.

    A torch that filters in another way is left as it is.
    """
    theirs = getattr(TracerBase, _METHOD, None)
    if theirs is None:
        yield
        return

    def ours(tracer: Any, frames: traceback.StackSummary) -> traceback.StackSummary:
        kept = {id(frame) for frame in theirs(tracer, frames)}
        running = _running()
        found: list[traceback.FrameSummary] = []
        for frame in dropwhile(lambda frame: frame.name != "forward", frames):
            if frame.filename in running:
                found += _beyond(found, _of_node(running[frame.filename], frame.lineno or 0))
            elif id(frame) in kept or _counts(frame):
                found.append(frame)
        return traceback.StackSummary.from_list(found)

    setattr(TracerBase, _METHOD, ours)
    try:
        yield
    finally:
        setattr(TracerBase, _METHOD, theirs)


def _counts(frame: traceback.FrameSummary) -> bool:
    """Frames of the user's; those of libraries and of torch's layers, but for those that hand on
    whatever they were given: of decorators, and of functions that torch calls a second time."""
    if is_users(frame.filename):
        return True
    hands_on = any(words in (frame.line or "") for words in _HANDED_ON)
    return not hands_on and (is_library(frame.filename) or is_layer(frame.filename))


def _running() -> dict[str, fx.GraphModule]:
    """The name of generated code -> its graph, for all that is being run now."""
    found: dict[str, fx.GraphModule] = {}
    frame: FrameType | None = sys._getframe()
    while frame:
        name = frame.f_code.co_filename
        if name.startswith(GENERATED) and isinstance(
            owner := frame.f_locals.get("self"), fx.GraphModule
        ):
            found.setdefault(name, owner)
        frame = frame.f_back
    return found


def _of_node(module: fx.GraphModule, number: int) -> list[Line]:
    """The stack trace of the FX node that a line of generated code runs."""
    rows = getattr(module, "_lineno_map", None) or {}
    index = rows.get(number - getattr(module, "_prologue_start", 0))
    nodes = list(module.graph.nodes)
    known = index is not None and index < len(nodes)
    return lines(nodes[index].meta.get("stack_trace") or "") if known else []


def _beyond(outer: list[traceback.FrameSummary], inner: list[Line]) -> list[traceback.FrameSummary]:
    """The frames of ``inner`` that do not stand in ``outer`` already."""
    seen = {(frame.filename, frame.lineno) for frame in outer}
    more = (traceback.FrameSummary(*_parts(line), line=line.text) for line in inner)
    return [
        frame for frame in more if _counts(frame) and (frame.filename, frame.lineno) not in seen
    ]


def _parts(line: Line) -> tuple[str, int, str]:
    return line.file, line.number, line.function


@contextmanager
def recurrent_lengths(dynamic_shapes: Any) -> Iterator[None]:
    """While this lasts, torch.export keeps the length of an LSTM or GRU dynamic.

    torch.onnx does the same where any dimension is dynamic.
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
    """What torch chose for it in an earlier capture: an implementation, and a compiled loop whose
    guards would fix the sizes of this capture (torch 2.13)."""
    getattr(getattr(torch.ops.aten, operator).input, "_dispatch_cache", {}).clear()
    from torch._dynamo.eval_frame import remove_from_cache
    from torch._higher_order_ops.while_loop import while_loop

    for code in while_loop.__code__.co_consts:
        if isinstance(code, CodeType):
            remove_from_cache(code)
