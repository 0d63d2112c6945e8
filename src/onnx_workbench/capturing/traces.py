"""Stack traces of FX nodes that lead into the user's helper functions.

torch.export keeps only the frames of functions that are called ``forward`` (torch 2.13,
``torch.fx.proxy.TracerBase._filter_traceback_frames``), so that all of ``def attend(self, x)``
stands on the one line of ``forward`` that calls it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile
from typing import Any

from torch.fx.proxy import TracerBase

from ..source import is_users

_METHOD = "_filter_traceback_frames"


@contextmanager
def through_helpers() -> Iterator[None]:
    """While this lasts, nodes that torch.export makes keep the frames of the user's functions too.

    A torch that filters in another way is left as it is.
    """
    theirs = getattr(TracerBase, _METHOD, None)
    if theirs is None:
        yield
        return

    def ours(tracer: Any, frames: traceback.StackSummary) -> traceback.StackSummary:
        kept = {id(frame) for frame in theirs(tracer, frames)}
        inside = dropwhile(lambda frame: frame.name != "forward", frames)
        wanted = [frame for frame in inside if id(frame) in kept or is_users(frame.filename)]
        return traceback.StackSummary.from_list(wanted)

    setattr(TracerBase, _METHOD, ours)
    try:
        yield
    finally:
        setattr(TracerBase, _METHOD, theirs)
