"""05: how many times as fast is B, from a recording with a drift, outliers and a first call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...formatting import kind_of

ROUNDS = 16
CLOSE = 4e-3
"""How near an answer must come, as a fraction; the typical answers lie further apart."""


@dataclass(frozen=True, repr=False, eq=False)
class Recording:
    """Seconds a call of A and B, ``float64[rounds]``: round ``i`` ran both, one after the other.

    Round 0 holds the first calls. Half-way the machine slowed down, and now and then something
    else ran on it.
    """

    a: np.ndarray
    b: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Recording: {len(self.a)} rounds of a and b, in seconds; round 0 holds the first calls"
        )


def given() -> Recording:
    """Invented, from a fixed seed: B is about 1.4 times as fast as A in every round.

    >>> given()
    Recording: 16 rounds of a and b, in seconds; round 0 holds the first calls
    """
    random = np.random.default_rng(32)
    drift = np.where(np.arange(ROUNDS) < ROUNDS // 2 + 1, 1.0, 1.7)
    a = 1.4e-3 * drift * random.normal(1, 0.04, ROUNDS)
    b = 1.0e-3 * drift * random.normal(1, 0.04, ROUNDS)
    a[[3, 5, 8]] *= 2.2  # something else ran while A did
    b[12] *= 6
    a[0], b[0] = 4e-3, 90e-3
    return Recording(a, b)


def answers(times: Recording) -> dict[str, float]:
    """The answer that typical slips give, by the hint for each; the right one's hint is empty."""
    a, b, later_a, later_b = times.a, times.b, times.a[1:], times.b[1:]
    return {
        "": np.median(later_a / later_b),
        "That is upside down: it says how many times as fast A is. A smaller time is better, so "
        "the time of A goes on top.": np.median(later_b / later_a),
        "Close, and the first call is still in it. Round 0 paid for allocation and caches: leave "
        "it out with [1:].": np.median(a / b),
        "A mean of all rounds: the first call of B alone decides it. Leave round 0 out, and take "
        "a median, which one outlier cannot move.": np.mean(a) / np.mean(b),
        "The first call is out, good. A mean still follows every outlier: take a median.": (
            np.mean(later_a) / np.mean(later_b)
        ),
        "Paired and without the first call, good. The mean of the ratios follows the rounds in "
        "which something else ran: take their median.": np.mean(later_a / later_b),
        "A median of A over a median of B takes them from different rounds, one before the machine "
        "slowed down and one after. Divide within each round first, then take the median.": (
            np.median(later_a) / np.median(later_b)
        ),
        "Medians of each side, with the first call in: leave round 0 out, divide within each "
        "round, then take the median.": np.median(a) / np.median(b),
        "That is the ratio of the first calls. Use the rounds after them.": a[0] / b[0],
    }


def judge(answer: Any) -> Iterator[str]:
    try:
        number = float(answer)
    except (TypeError, ValueError):
        yield f"Answer with one number; this is {kind_of(answer)}."
    for hint, value in answers(given()).items():
        if abs(number - value) <= CLOSE * value:
            if hint:
                yield hint
            return
    yield (
        "This is none of the usual slips. Divide a by b within each round, leave round 0 out, and "
        "take the median of the rest."
    )
