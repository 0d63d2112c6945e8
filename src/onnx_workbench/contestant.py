"""What a contestant hands to a race when it knows better than ``fn(*args)`` how to be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nothing() -> None:
    """There is nothing to give back."""


@dataclass(frozen=True)
class Prepared:
    """One contestant at the start line: its inputs are where they are needed, its threads are set.

    A contestant that has a method ``prepare(*args, threads=1, **kwargs) -> Prepared`` is raced
    through it; every other callable is timed as ``fn(*args)``.

    ``run`` takes no argument and does the work of one call; only this is timed. ``timed`` says
    what such a call covers and what it leaves out. ``close`` gives back what was prepared.

    >>> ready = Prepared(run=lambda: sum(range(10)), timed="call: nothing in, an int out")
    >>> ready.run()
    45
    >>> ready.close()
    """

    run: Callable[[], object]
    timed: str
    close: Callable[[], None] = _nothing
