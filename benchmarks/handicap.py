"""Contestants by construction: of a known slowness, and of a known loop.

A worker imports this file to take such a contestant in, so it imports what a worker has anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, repeat
from time import thread_time_ns
from typing import Any

from onnx_workbench.contestant import Prepared

Entry = Callable[[], Prepared]


def entry_of(fn: Any, *args: Any) -> Entry:
    """What ``race`` sends for a contestant at one thread."""
    if hasattr(fn, "entry"):
        return fn.entry(args, {})
    from onnx_workbench.racing.call import Call

    return Call(fn, args)


@dataclass(frozen=True)
class Handicap:
    """A contestant that needs ``1 + share`` times as long, whatever the machine does meanwhile.

    Args:
        fn: the contestant.
        share: after its work, the core is kept busy for this share of what the work took of it.
        calls: calls of ``fn`` in one; several where reading the clock would show.
    """

    fn: Any
    share: float
    calls: int = 1

    def __call__(self, *args: Any) -> object:
        return self.fn(*args)

    def entry(self, args: tuple, kwargs: dict[str, Any], threads: int = 1) -> Entry:
        assert (threads, kwargs) == (1, {})
        return Handicapped(entry_of(self.fn, *args), self.share, self.calls)


@dataclass(frozen=True)
class Handicapped:
    """Called in its process, it makes the contestant of a :class:`Handicap`."""

    entry: Entry
    share: float
    calls: int

    def __call__(self) -> Prepared:
        ready = self.entry()
        return replace(ready, run=partial(delayed, ready.run, self.share, self.calls))


def delayed(run: Callable[[], object], share: float, calls: int = 1) -> None:
    """So many calls, and then the core kept busy for a share of what they took of it."""
    end = share * own_time(run, calls) + thread_time_ns()
    while thread_time_ns() < end:
        pass


def own_time(run: Callable[[], object], calls: int = 1) -> int:
    """Nanoseconds in which this thread had the core; a race takes off those of others too."""
    start = thread_time_ns()
    for _ in repeat(None, calls):
        run()
    return thread_time_ns() - start


@dataclass
class Shared:
    """An entry whose one instance two contestants of a process use."""

    entry: Entry
    ready: Prepared | None = field(default=None, init=False)

    def __call__(self) -> Prepared:
        if self.ready is None:
            self.ready = self.entry()
        return self.ready


@dataclass(frozen=True)
class Loop:
    """A contestant whose calls are by turns a single call and a bare loop of so many.

    So the call that a block discards is a single one, as it is for the instance it shares.
    """

    shared: Shared
    calls: int

    def __call__(self) -> Prepared:
        run: Any = self.shared().run
        turns = cycle((1, self.calls))
        return Prepared(partial(_loop, run.func, run.args, turns), "a bare loop")


def _loop(fn: Callable[..., object], args: tuple, turns: Iterator[int]) -> None:
    for _ in repeat(None, next(turns)):
        fn(*args)
