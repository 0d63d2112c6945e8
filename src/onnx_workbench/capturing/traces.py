"""Stack traces of FX nodes that lead through helper functions and out of generated code.

torch.export keeps only the frames of functions that are called ``forward`` (torch 2.13,
``torch.fx.proxy.TracerBase._filter_traceback_frames``), so that all of ``def attend(self, x)``
stands on the one line of ``forward`` that calls it. And where it runs a graph as code, the frame is
one of generated code (``<eval_with_key>.7``): the body of a ``torch.no_grad`` or ``torch.autocast``
region, a branch of ``torch.cond``, the body of a loop.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile
from types import FrameType
from typing import Any

from torch import fx
from torch.fx.proxy import TracerBase

from ..source import GENERATED, Line, is_layer, is_library, is_users, lines

_HANDED_ON = ("*args, **kwargs", "handle_torch_function(")
_METHOD = "_filter_traceback_frames"


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
