"""What a contestant did: raw nanoseconds, kept by process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..contestant import Panel


@dataclass(frozen=True)
class Run:
    """One process (or one instance in a shared process) of a contestant at one size.

    Args:
        blocks: nanoseconds of each block; block ``i`` ran in round ``i`` of this stratum.
        queued: those of them in which other processes had the core, where the system tells.
        calls: calls in a block.
        laps: nanoseconds of calls timed one by one, after the rounds.
        first: seconds of the very first call, which no statistic includes.
        load: seconds from the entry to the start line.
        warmup: calls before the first round.
        peak: the most bytes that the process held at the start line, or None.
    """

    blocks: tuple[int, ...]
    queued: tuple[int, ...] = ()
    calls: int = 1
    laps: tuple[int, ...] = ()
    first: float = 0.0
    load: float = 0.0
    warmup: int = 0
    peak: int | None = None

    @cached_property
    def times(self) -> np.ndarray:
        """Seconds per call while it had the core, ``float64[rounds]``."""
        return np.subtract(self.blocks, self.queued or 0) / self.calls / 1e9


@dataclass(frozen=True)
class Lane:
    """One contestant, with a Run for each stratum.

    Args:
        timed: what one call covers.
        threads: intra-op threads as the runtime read them back, None where it has none.
        panel: ``API`` or ``compute``; empty where a call counts for both.
        twin: who makes the same call and pays for its copies, where another in the race does.
        control: True for the second copy of the baseline, which checks the race itself.
        error: what stopped this contestant, or None.

    >>> lane = Lane("eager", (Run((4000, 6000), calls=2), Run((2000,), calls=2)))
    >>> lane.times.tolist(), lane.median
    ([2e-06, 3e-06, 1e-06], 2e-06)
    """

    name: str
    runs: tuple[Run, ...] = ()
    timed: str = ""
    threads: int | None = None
    panel: Panel = ""
    twin: str = ""
    control: bool = False
    error: Exception | None = field(default=None, compare=False)

    @property
    def ran(self) -> bool:
        return bool(self.runs)

    @property
    def times(self) -> np.ndarray:
        """Seconds per call of every block of every process."""
        return _joined(run.times for run in self.runs)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the seconds per call, over blocks."""
        return quartiles_of(self.times)

    @property
    def median(self) -> float:
        return self.quartiles[1]

    @property
    def first(self) -> float:
        """Seconds of the first call: the median over processes."""
        return float(np.median([run.first for run in self.runs]))

    @property
    def load(self) -> float:
        """Seconds to the start line: the median over processes."""
        return float(np.median([run.load for run in self.runs]))

    def percentile(self, percent: float) -> float:
        """Seconds that so many percent of the single calls did not exceed."""
        laps = _joined(np.asarray(run.laps) / 1e9 for run in self.runs)
        return float(np.percentile(laps if laps.size else self.times, percent))


def quartiles_of(values: Any) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile.

    >>> quartiles_of([1, 2, 3, 4, 5])
    (2.0, 3.0, 4.0)
    """
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0), *parts])
