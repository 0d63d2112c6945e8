"""The harness of all figures: it times two ways side by side, and watches memory."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

import psutil

from onnx_workbench import formatting

POLL = 0.02
"""Seconds between two looks at the memory of a process."""


@dataclass(frozen=True)
class Pair:
    """What two ways to do the same cost, turn by turn, in seconds or bytes."""

    name: str
    ours: Sequence[float]
    beside: Sequence[float]
    unit: str = "seconds"

    def __str__(self) -> str:
        """The medians, the median ratio, and its quartiles where there are four turns or more."""
        ratios = [one / other for one, other in zip(self.ours, self.beside, strict=True)]
        show = formatting.seconds if self.unit == "seconds" else lambda x: formatting.size(round(x))
        ours, beside = show(median(self.ours)), show(median(self.beside))
        spread = quantiles(ratios, method="inclusive") if len(ratios) > 3 else ()
        quartiles = f"  {spread[0]:.2f}x to {spread[2]:.2f}x" if spread else ""
        row = f"{self.name:60} {ours:>9} {beside:>9} {median(ratios):8.2f}x"
        return f"{row}{quartiles}  ({formatting.plural(len(ratios), 'turn')})"


def take_turns(
    name: str,
    ours: Callable[[], object],
    beside: Callable[[], object],
    turns: int,
    warm: bool = True,
) -> Pair:
    """Run both once to warm up, then ``turns`` times, in random order within a turn."""
    ways, rng = (ours, beside), random.Random(0)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + warm):
        for which in rng.sample((0, 1), 2):
            spent = timed(ways[which])
            if turn >= warm:
                times[which].append(spent)
    return Pair(name, *times)


def timed(way: Callable[[], object]) -> float:
    start = perf_counter()
    way()
    return perf_counter() - start


def run(*command: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, "PIP_NO_CACHE_DIR": "1"})


def peak_of(
    command: Sequence[str], env: Mapping[str, str] | None = None, parent: bool = True
) -> int:
    """The peak of resident bytes of a command and its children, or of the children alone.

    If the command fails, the benchmark ends.
    """
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                family = [watched][:parent] + watched.children(recursive=True)
                peak = max(peak, sum(member.memory_info().rss for member in family))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: what it said stands above.")
    return peak


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings."""
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(action="ignore"),
    ):
        yield
