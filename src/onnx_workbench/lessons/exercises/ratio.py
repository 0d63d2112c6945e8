"""05: how many times as fast is B, from a recording with a drift, outliers and a first call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...formatting import kind_of
from . import Hint, hint

ROUNDS = 16
CLOSE = 4e-3
"""How near an answer must come, as a fraction; the typical answers lie further apart."""


@dataclass(frozen=True, repr=False, eq=False)
class Timings:
    """Seconds a call of A and B, ``float64[rounds]``: round ``i`` ran both, one after the other.

    Round 0 holds the first calls. Half-way the machine slowed down, and now and then something
    else ran on it.
    """

    a: np.ndarray
    b: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Timings: {len(self.a)} rounds of a and b, in seconds; round 0 holds the first calls"
        )


def given() -> Timings:
    """Invented, from a fixed seed: B is about 1.4 times as fast as A in every round.

    >>> given()
    Timings: 16 rounds of a and b, in seconds; round 0 holds the first calls
    """
    random = np.random.default_rng(558)
    drift = np.where(np.arange(ROUNDS) < ROUNDS // 2 + 1, 1.0, 1.7)
    a = 1.4e-3 * drift * random.normal(1, 0.04, ROUNDS)
    b = 1.0e-3 * drift * random.normal(1, 0.04, ROUNDS)
    a[[3, 5, 8]] *= 2.2  # something else ran while A did
    b[12] *= 6
    a[0], b[0] = 4e-3, 90e-3
    return Timings(a, b)


def answers(times: Timings) -> dict[str, float]:
    """The right answer, and those of typical slips by the name of their hint."""
    a, b, later_a, later_b = times.a, times.b, times.a[1:], times.b[1:]
    return {
        "right": np.median(later_a / later_b),
        "upside-down": np.median(later_b / later_a),
        "first": np.median(a / b),
        "mean": np.mean(a) / np.mean(b),
        "later-mean": np.mean(later_a) / np.mean(later_b),
        "mean-ratio": np.mean(later_a / later_b),
        "unpaired": np.median(later_a) / np.median(later_b),
        "medians": np.median(a) / np.median(b),
        "first-calls": a[0] / b[0],
        "first-mean": np.mean(a / b),
        "minima": np.min(later_a) / np.min(later_b),
    }


def judge(answer: Any) -> Iterator[Hint]:
    try:
        number = math.nan if isinstance(answer, str) else float(answer)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        yield hint("kind", kind=str(answer) if isinstance(answer, float) else kind_of(answer))
    values = answers(given())
    for name, value in values.items():
        if abs(number - value) <= CLOSE * value:
            if name != "right":
                yield hint(name)
            return
    if any(abs(number * value - 1) <= CLOSE for value in values.values()):
        yield hint("upside-down")
    yield hint("unusual")
