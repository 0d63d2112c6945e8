"""What a contestant hands to a race when it knows better than ``fn(*args)`` how to be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Panel = Literal["", "API", "compute"]


def _nothing() -> None:
    """There is nothing to give back."""


@dataclass(frozen=True)
class Prepared:
    """One contestant at the start line: its inputs are where they are needed, its threads are set.

    A contestant that has a method ``entry(args, kwargs, threads=1)`` is raced through it: it
    returns a callable without arguments that makes a Prepared, and that can be pickled, so that it
    is called in a process of its own. Every other callable is timed as ``fn(*args)``.

    Args:
        run: takes no argument and does the work of one call; only this is timed.
        timed: what such a call covers and what it leaves out.
        first: the first call, where it does more than ``run``; timed apart, as every first call.
        threads: intra-op threads as the runtime reads them back.
        panel: ``API`` where a call takes and gives what a user holds, ``compute`` where the buffers
            lie ready and are used again; empty where both are the same, as for a PyTorch model.
        close: gives back what was prepared.

    >>> ready = Prepared(run=lambda: sum(range(10)), timed="call: nothing in, an int out")
    >>> ready.run()
    45
    >>> ready.close()
    """

    run: Callable[[], object]
    timed: str
    threads: int | None = None
    panel: Panel = ""
    close: Callable[[], None] = _nothing
    first: Callable[[], object] | None = None
