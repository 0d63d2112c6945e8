"""A contestant on the bench: warmed up, then timed block by block. Standard library alone, since
it also runs inside a worker that must not import more than its contestant does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from time import perf_counter_ns, thread_time_ns
from typing import Any

from ..contestant import Panel, Prepared

BLOCK = 4e-3  # seconds; below 3 ms the clock and the caches show, above 37 ms the drift does
WARM_CALLS = 50
WARM_SECONDS = 0.4
LAPS = 1000  # calls timed one by one, for the percentiles
LAP_SECONDS = 0.1
SCHEDULER = "/proc/thread-self/schedstat"
"""Where Linux keeps, as its second number, how long a thread was ready without a core, in ns."""

Entry = Callable[[], Prepared]


@dataclass(frozen=True)
class Ready:
    """What is known of a contestant at one size once it is warm.

    Args:
        load: seconds from the entry to the start line: a session opened, a model compiled.
        first: seconds of the very first call, which no statistic includes.
        warmup: calls before the first round.
        pace: seconds a call, as the warm-up saw it; only the size of a block depends on it.
        peak: the most bytes that the process held until then, None where it cannot be read.
    """

    load: float
    first: float
    warmup: int
    pace: float
    timed: str
    threads: int | None
    panel: Panel
    peak: int | None = None

    @property
    def calls(self) -> int:
        """Calls in a block."""
        return max(1, round(BLOCK / self.pace))


class Bench:
    """One contestant with its entry for each size; a size that fails leaves the others alone."""

    def __init__(self, entries: Sequence[Entry], warm_seconds: float = WARM_SECONDS) -> None:
        self._entries, self._warm_seconds = entries, warm_seconds
        self._prepared: dict[int, Prepared] = {}

    def ready(self) -> list[Ready | Exception]:
        """Every size prepared and warm, or what stopped it."""
        return [self._kept(index, entry) for index, entry in enumerate(self._entries)]

    def block(self, size: int, calls: int) -> tuple[int, int]:
        """Nanoseconds of so many calls, and those of them in which others had the core.

        One call before is discarded: the caches still belong to the one who ran before.
        """
        run = self._prepared[size].run
        run()
        waited, busy = queued(), thread_time_ns()
        took = _timed(run, calls)
        idle = took - (thread_time_ns() - busy)  # it may have waited beside the block as well
        return took, max(0, min(queued() - waited, idle))

    def laps(self, size: int) -> tuple[int, ...]:
        """Nanoseconds of single calls, for percentiles; each holds the clock's own cost too."""
        run, laps, left = self._prepared[size].run, list[int](), int(LAP_SECONDS * 1e9)
        run()
        while len(laps) < LAPS and left > 0:
            laps.append(_timed(run, 1))
            left -= laps[-1]
        return tuple(laps)

    def opened(self) -> float:
        """In this process nothing arrives, and nothing can be stopped."""
        return 0.0

    def freeze(self) -> None: ...
    def thaw(self) -> None: ...

    def close(self) -> None:
        """Give back what was prepared, the last first."""
        while self._prepared:
            self._prepared.popitem()[1].close()

    def _kept(self, index: int, entry: Entry) -> Ready | Exception:
        try:
            return self._warm(index, entry)
        except Exception as error:
            return error

    def _warm(self, index: int, entry: Entry) -> Ready:
        start = perf_counter_ns()
        ready = self._prepared[index] = entry()
        load = perf_counter_ns() - start
        first, laps = _timed(ready.first or ready.run, 1), list[int]()
        limit = self._warm_seconds * 1e9
        while not laps or (len(laps) < WARM_CALLS and sum(laps) < limit):
            laps.append(_timed(ready.run, 1))
        pace = max(median(laps[len(laps) // 2 :]) / 1e9, 1e-8)
        return Ready(
            load / 1e9,
            first / 1e9,
            1 + len(laps),
            pace,
            ready.timed,
            ready.threads,
            ready.panel,
            peak_bytes(),
        )


def _timed(run: Callable[[], Any], calls: int) -> int:
    start = perf_counter_ns()
    for _ in repeat(None, calls):
        run()
    return perf_counter_ns() - start


def queued() -> int:
    """Nanoseconds that this thread was ready to run while others had the core; 0 where the system
    does not tell. Waiting for a lock, a device or another thread is not among them."""
    try:
        with open(SCHEDULER, encoding="ascii") as counts:  # noqa: PTH123
            return int(counts.read().split()[1])
    except (OSError, IndexError):
        return 0


def peak_bytes() -> int | None:
    """The most memory that this process held, in bytes; None where the system does not tell."""
    try:  # getrusage would count what the parent held before this process became another program
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None
