"""Two ways to do one thing, taking turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

from onnx_workbench import formatting


@dataclass(frozen=True)
class Pair:
    """What both ways cost, turn by turn, in seconds or bytes."""

    name: str
    ours: Sequence[float]
    beside: Sequence[float]
    unit: str = "seconds"

    def row(self) -> tuple[str, ...]:
        ratios = [one / other for one, other in zip(self.ours, self.beside, strict=True)]
        spread = quantiles(ratios, method="inclusive") if len(ratios) > 3 else []
        show = (
            formatting.seconds
            if self.unit == "seconds"
            else lambda count: formatting.size(round(count))
        )
        return (
            self.name,
            show(median(self.ours)),
            show(median(self.beside)),
            f"{median(ratios):.2f}x",
            f"{spread[0]:.2f}x to {spread[2]:.2f}x" if spread else "",
            str(len(ratios)),
        )


def take_turns(
    name: str,
    ours: Callable[[], object],
    beside: Callable[[], object],
    turns: int,
    warm: bool = True,
) -> Pair:
    """Both once to warm up, then so many turns, in each of which chance says who goes first."""
    ways, rng = (ours, beside), random.Random(0)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + warm):
        for which in rng.sample((0, 1), 2):
            start = perf_counter()
            ways[which]()
            if turn >= warm:
                times[which].append(perf_counter() - start)
    return Pair(name, *times)
