"""One call, warmed up and then timed block by block.

Standard library only: this also runs in a worker, which must import no more than its target.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from time import perf_counter_ns, thread_time_ns
from typing import Any

from ..calls import Mode, PreparedCall

BLOCK = 4e-3
"""Seconds. Blocks below 3 ms show the clock and the caches, blocks above 37 ms the machine's drift.
"""
WARM_CALLS = 50
WARM_SECONDS = 0.2
LAPS = 1000
LAP_SECONDS = 0.1
SCHEDULER = "/proc/thread-self/schedstat"
"""Linux: the second number is how long the thread waited for a core, in nanoseconds."""


@dataclass(frozen=True)
class Started:
    """What a target reports once it is warm.

    Args:
        timed: what the time of one call covers.
        threads: intra-op threads as the runtime reports them, None if it has none.
        mode: ``API`` or ``compute``; empty if a call counts for both.
        calls: calls in a block.
        pace: seconds of a warm call, to estimate the length of the rounds.
        imported: seconds to import torch or onnxruntime.
        load: seconds to prepare the call: receive data, open the session, compile the model.
        first: seconds of the very first call, which no statistic includes.
        peak: peak memory of the process until then in bytes, None if the system does not report it.
    """

    timed: str = ""
    threads: int | None = None
    mode: Mode = ""
    calls: int = 1
    pace: float = 0.0
    imported: float = 0.0
    load: float = 0.0
    first: float = 0.0
    peak: int | None = None


@dataclass
class Bench:
    """Times one call in this process.

    Args:
        imported, received: seconds that a worker took for imports and to receive the call.
        core: the only core on which the call may run, or None.
    """

    call: Any
    warm_seconds: float = WARM_SECONDS
    lap_seconds: float = LAP_SECONDS
    imported: float = 0.0
    received: float = 0.0
    core: int | None = None
    _prepared: PreparedCall | None = None

    def opened(self) -> None:
        """Return at once; a RemoteBench waits here."""

    def start(self) -> Started:
        """Prepare the call, and repeat it until it is warm."""
        if self.core is not None:
            os.sched_setaffinity(0, {self.core})
        begin = perf_counter_ns()
        self._prepared = ready = self.call.prepare()
        load = perf_counter_ns() - begin
        self._run = ready.run
        first, laps = _timed(ready.first or ready.run, 1), list[int]()
        while not laps or (len(laps) < WARM_CALLS and sum(laps) < self.warm_seconds * 1e9):
            laps.append(_timed(ready.run, 1))
        pace = max(median(laps[len(laps) // 2 :]) / 1e9, 1e-8)
        return Started(
            *(ready.timed, ready.threads, ready.mode),
            calls=max(1, round(BLOCK / pace)),
            pace=pace,
            imported=self.imported,
            load=self.received + load / 1e9,
            first=first / 1e9,
            peak=peak_bytes(),
        )

    def block(self, calls: int) -> tuple[int, int]:
        """Nanoseconds of this many calls, and of the part in which other processes had the core.

        A first call is discarded, since the caches hold the data of the previous target.
        """
        self._run()
        waited, busy = queued(), thread_time_ns()
        took = _timed(self._run, calls)
        idle = took - (thread_time_ns() - busy)  # the thread may have waited outside the block, too
        return took, max(0, min(queued() - waited, idle))

    def laps(self) -> tuple[int, ...]:
        """Nanoseconds of single calls, for percentiles; each includes the cost of the clock."""
        laps, left = list[int](), int(self.lap_seconds * 1e9)
        self._run()
        while len(laps) < LAPS and left > 0:
            laps.append(_timed(self._run, 1))
            left -= laps[-1]
        return tuple(laps)

    def close(self) -> None:
        if self._prepared:
            self._prepared.close()


def _timed(run: Callable[[], object], calls: int) -> int:
    start = perf_counter_ns()
    for _ in repeat(None, calls):
        run()
    return perf_counter_ns() - start


def queued() -> int:
    """Nanoseconds that this thread waited for a core since it began; 0 if the system does not say.

    Waiting for a lock, a device or another thread is not counted.
    """
    try:
        with open(SCHEDULER, encoding="ascii") as counts:  # noqa: PTH123
            return int(counts.read().split()[1])
    except (OSError, IndexError):
        return 0


def peak_bytes() -> int | None:
    """Peak memory of this process in bytes; None if the system does not report it."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None
