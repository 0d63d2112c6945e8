"""05: how many times as fast is B, from a recording with a drift, outliers and a first call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..task import Exercise

SEED = 32
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


def recording() -> Recording:
    """Made up, from a fixed seed: B is about 1.4 times as fast as A in every round.

    >>> recording()
    Recording: 16 rounds of a and b, in seconds; round 0 holds the first calls
    """
    random = np.random.default_rng(SEED)
    drift = np.where(np.arange(ROUNDS) < ROUNDS // 2 + 1, 1.0, 1.7)
    a = 1.4e-3 * drift * random.normal(1, 0.04, ROUNDS)
    b = 1.0e-3 * drift * random.normal(1, 0.04, ROUNDS)
    a[[3, 5, 8]] *= 2.2  # another process woke up, and it met A
    b[12] *= 6
    a[0], b[0] = 4e-3, 90e-3
    return Recording(a, b)


def honest(times: Recording) -> float:
    """The median of the ratios within a round, the first calls apart."""
    return float(np.median(times.a[1:] / times.b[1:]))


MISTAKES: tuple[tuple[Callable[[Recording], Any], str], ...] = (
    (
        lambda t: np.median(t.b[1:] / t.a[1:]),
        "That is upside down: it says how many times as fast A is. A time is better when it is "
        "smaller, so the time of A goes on top.",
    ),
    (
        lambda t: np.median(t.a / t.b),
        "Close, and the first call is still in it. Round 0 paid for allocation and caches; keep "
        "it apart: [1:].",
    ),
    (
        lambda t: np.mean(t.a) / np.mean(t.b),
        "A mean of all rounds: the first call of B alone decides it. Keep round 0 apart, and take "
        "a median, which one outlier cannot move.",
    ),
    (
        lambda t: np.mean(t.a[1:]) / np.mean(t.b[1:]),
        "The first call is out, good. A mean still follows every outlier: take a median.",
    ),
    (
        lambda t: np.mean(t.a[1:] / t.b[1:]),
        "Paired and without the first call, good. But it is the mean of the ratios, and the rounds "
        "in which something else ran pull it: take their median.",
    ),
    (
        lambda t: np.median(t.a[1:]) / np.median(t.b[1:]),
        "A median of A over a median of B takes them from different rounds, one before the machine "
        "slowed down and one after. Divide within each round first, then take the median.",
    ),
    (
        lambda t: np.median(t.a) / np.median(t.b),
        "Medians of each side, with the first call in: keep round 0 apart, divide within each "
        "round, then take the median.",
    ),
    (
        lambda t: t.a[0] / t.b[0],
        "That is the ratio of the first calls: how long each takes to get going, a fact of its "
        "own. Use the rounds after it.",
    ),
)


def judge(answer: Any) -> str | None:
    try:
        number = float(answer)
    except (TypeError, ValueError):
        return f"One number is asked for, and this is a {type(answer).__name__}."
    times = recording()
    if _near(number, honest(times)):
        return None
    for mistake, hint in MISTAKES:
        if _near(number, float(mistake(times))):
            return hint
    return (
        "This is none of the usual slips. Divide a by b within each round, leave round 0 out, and "
        "take the median of what is left."
    )


def _near(number: float, other: float) -> bool:
    return abs(number - other) <= CLOSE * abs(other)


EXERCISE = Exercise(
    number="05",
    title="An honest ratio",
    text=(
        "`times = exercise.given` is a recorded race: `times.a` and `times.b` are seconds a call, "
        "round by round. Half-way the machine slowed down, now and then something else ran, and "
        "round 0 holds the first calls.\n\n"
        "**How many times as fast is B?** Answer with one number."
    ),
    start="Begin with `times = exercise.given`, and look at `times.a / times.b`.",
    judge=judge,
    material=recording,
    source="""
        import numpy as np
        from onnx_workbench import lessons

        times = lessons.exercise("05").given
        answer = np.median(times.a[1:] / times.b[1:])
        """,
)
