"""A target of a known slowness. Workers import this file: standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from time import thread_time_ns
from typing import Any


@dataclass(frozen=True)
class Handicap:
    """A target that takes ``1 + share`` times as long, whatever else the machine does.

    Args:
        target: what it calls; in a worker, the call that the worker got for it.
        share: the extra work, as a share of the processor time of the target's own work.
        calls: calls of ``target`` in one call; several if it is short beside reading the clock.
    """

    target: Any
    share: float
    calls: int = 1

    def __call__(self, *args: Any) -> object:
        return self.target(*args)

    def timed_call(self, args: tuple, kwargs: dict[str, Any], threads: int = 1) -> Handicap:
        from onnx_workbench.timing.targets import timed_call_of

        return replace(self, target=timed_call_of(self.target, args, kwargs, threads))

    @property
    def modules(self) -> tuple[str, ...]:
        return self.target.modules

    def prepare(self) -> Any:
        ready = self.target.prepare()
        return replace(ready, run=partial(_delayed, ready.run, self.share, self.calls))


def _delayed(run: Callable[[], object], share: float, calls: int) -> None:
    start = thread_time_ns()
    for _ in repeat(None, calls):
        run()
    now = thread_time_ns()
    end = now + share * (now - start)
    while thread_time_ns() < end:
        pass
