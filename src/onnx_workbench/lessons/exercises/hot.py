"""05c: which line of the encoder takes the longest in ONNX Runtime?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...artifact import export
from ...formatting import kind_of
from ...hotspots import Spot, profile
from ...source import Line
from ..transformer import encoder
from . import Hint, hint, names

ALIKE = 0.02
"""Shares of a run that differ by less are alike, whatever the quartiles say."""


def measured() -> tuple[Spot, ...]:
    """The lines that ONNX Runtime runs, in a profile made for the purpose."""
    small = encoder()
    spots = profile(export(small.model, small.inputs), small.inputs, seconds=1.0).spots
    return tuple(spot for spot in spots if spot.line and spot.runs)


def shares(spots: Sequence[Spot]) -> np.ndarray:
    """The quartiles of each line's share of a run, ``float64[spots, 3]``.

    Shares are taken within each run: what slows down a whole run does not change them.
    """
    runs = np.array([spot.runs for spot in spots])
    return np.quantile(runs / runs.sum(0), (0.25, 0.5, 0.75), axis=1).T


def judge(answer: Any) -> Iterator[Hint]:
    line = getattr(answer, "line", answer)
    if isinstance(line, bool) or not isinstance(line, Line | int | str):
        yield hint("kind", kind=kind_of(answer))
    spots = measured()
    index = next((i for i, spot in enumerate(spots) if spot.line and names(line, spot.line)), None)
    if index is None:
        yield hint("silent", asked=repr(line))
        return
    quartiles = shares(spots)
    _, share, high = quartiles[index]
    first_low, first, _ = quartiles[quartiles[:, 1].argmax()]
    if high >= first_low or first - share < ALIKE:
        return
    text = f"{share:.0%} of the time in kernels, and another line takes more"
    if spots[index].torch == max(spot.torch or 0.0 for spot in spots):
        yield hint("torch", text=text)
    kernels = len(spots[index].kernels)
    if kernels == max(len(spot.kernels) for spot in spots):
        yield hint("kernels", kernels=kernels, text=text)
    yield hint("less", text=text)
