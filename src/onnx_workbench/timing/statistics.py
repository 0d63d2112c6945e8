"""How many times as fast: a ratio, an interval over processes, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

LEVEL = 0.95
REPLICATES = 5
"""Replicates that run before a narrow interval may end a race."""
NOISY = 0.10
"""The half-width of an interval above which the machine is too noisy for a verdict."""
ONE_PROCESS = 0.03
"""How much an interval is widened if a single process raced: between fresh processes, the same
target differed with a standard deviation of 0.1 to 2.1 %."""

Verdict = Literal["faster", "slower", "same", "undecided", "noisy", "contended", "untrusted"]


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline, with a 95 % interval.

    Args:
        value, low, high: the ratio of times, baseline over target, and its interval.
        matters: the least difference that counts, as a fraction.
        differs: whether the interval, corrected for the number of targets, excludes 1.
        bar: why the numbers allow no verdict, or empty.

    >>> Ratio(1.38, 1.31, 1.44).verdict
    'faster'
    >>> Ratio(1.00, 0.99, 1.01, differs=False).sentence("b", "a")
    'b against a: no difference that matters (within 3 %)'
    """

    value: float
    low: float
    high: float
    matters: float = 0.03
    differs: bool = True
    bar: Literal["", "contended", "untrusted"] = ""

    @property
    def half(self) -> float:
        """Half the width of the interval, as a fraction of the ratio."""
        return (self.high - self.low) / 2 / self.value

    @property
    def verdict(self) -> Verdict:
        """``faster`` or ``slower`` if the interval excludes 1 and the ratio differs from 1 by more
        than ``matters``; ``same`` if the whole interval is within ``matters``."""
        if self.bar:
            return self.bar
        if self.low >= 1 / (1 + self.matters) and self.high <= 1 + self.matters:
            return "same"
        if self.differs and abs(math.log(self.value)) > math.log1p(self.matters):
            return "faster" if self.value > 1 else "slower"
        return "noisy" if self.half > NOISY else "undecided"

    def sentence(self, name: str, rival: str) -> str:
        """The verdict in words."""
        no_verdict = {
            "same": f"no difference that matters (within {100 * self.matters:g} %)",
            "undecided": "not enough data",
            "noisy": f"no verdict, this machine is too noisy (interval {100 * self.half:.0f} % "
            "to each side)",
            "contended": "no verdict, the cores were contended",
            "untrusted": "no verdict, the race is untrusted: the baseline differed from its copy",
        }
        if why := no_verdict.get(self.verdict):
            return f"{name} against {rival}: {why}"
        span = f"95 % interval {times(self.low)[:-1]} to {times(self.high)[:-1]}"
        return f"{name} is {times(self.value)} as fast as {rival} ({span})"


def times(ratio: float) -> str:
    """A ratio in three digits.

    >>> times(1.381), times(12.34), times(123.4)
    ('1.38x', '12.3x', '123x')
    """
    return f"{ratio:.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}x"


def quartiles_of(values: Any) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile.

    >>> quartiles_of([1, 2, 3, 4, 5])
    (2.0, 3.0, 4.0)
    """
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


Times = Sequence[np.ndarray]
"""Seconds per call, one array a replicate, one number a round."""


def ratios(baseline: Times, targets: Mapping[str, Times], matters: float) -> dict[str, Ratio]:
    """Each target against the baseline, with Holm's correction for significance.

    Each replicate gives one paired difference: the median log-ratio over rounds, in which effects
    of a round on both targets cancel. If each array of the baseline has two rows, one of them from
    its copy, it is the mean of two medians, which halves the variance of the baseline. The interval
    is Student's over replicates. A single replicate has the distribution-free interval of its
    median, over rounds with the mean of both rows, widened by the difference between processes.

    >>> slow, fast = [np.full(9, 2e-3)] * 3, [np.full(9, 1e-3)] * 3
    >>> ratios(slow, {"fast": fast}, matters=0.03)["fast"].value
    2.0
    """
    uncorrected: dict[str, Ratio] = {}
    p_values: dict[str, float] = {}
    for name, target in targets.items():
        logs = [np.log(one / other) for one, other in zip(baseline, target, strict=True)]
        interval, p_values[name] = _of_rounds(logs[0]) if len(logs) == 1 else _of_replicates(logs)
        uncorrected[name] = _ratio(interval, matters)
    differing = holm(p_values)
    return {name: replace(ratio, differs=name in differing) for name, ratio in uncorrected.items()}


def welch(then: Times, now: Times, matters: float) -> Ratio:
    """The time of ``then`` over the time of ``now``, for processes of different races.

    If one of the two has a single process, the ratio of medians, widened as for one process.
    """
    from scipy import stats

    one, other = (np.array([np.median(np.log(rounds)) for rounds in each]) for each in (then, now))
    middle = one.mean() - other.mean()
    differs = True
    if min(len(one), len(other)) < 2:
        low, high = middle - math.log1p(ONE_PROCESS), middle + math.log1p(ONE_PROCESS)
    else:
        test = stats.ttest_ind(one, other, equal_var=False)
        differs = bool(test.pvalue < 1 - LEVEL)
        low, high = test.confidence_interval(LEVEL)
    return _ratio((middle, low, high), matters, differs)


def holm(p_values: Mapping[str, float], alpha: float = 1 - LEVEL) -> set[str]:
    """Names whose null hypothesis is rejected (Holm 1979, Scand. J. Statist. 6, 65-70).

    >>> sorted(holm({"a": 0.001, "b": 0.04, "c": 0.2}))
    ['a']
    """
    rejected: set[str] = set()
    for name in sorted(p_values, key=p_values.__getitem__):
        if p_values[name] > alpha / (len(p_values) - len(rejected)):
            break
        rejected.add(name)
    return rejected


Interval = tuple[float, float, float]
"""The logarithms of a ratio, of its lower end and of its upper end."""


def _ratio(interval: Interval, matters: float, differs: bool = True) -> Ratio:
    value, low, high = np.exp(interval).tolist()
    return Ratio(value, low, high, matters, differs)


def _of_replicates(logs: Sequence[np.ndarray]) -> tuple[Interval, float]:
    """Mean, Student's interval and p over the medians of replicates.

    From REPLICATES on, a narrow interval ends the race. That favors intervals that are narrow by
    chance, so one degree of freedom is dropped.
    """
    from scipy import stats

    medians = np.array([np.median(rounds, axis=-1).mean() for rounds in logs])
    middle, count = float(medians.mean()), len(medians)
    if not medians.std():  # all equal: nothing to test
        return (middle, middle, middle), float(middle == 0)
    freedom = count - 1 if count < REPLICATES else count - 2
    student = stats.t(freedom, middle, stats.sem(medians))
    return (middle, *student.interval(LEVEL)), float(2 * min(student.cdf(0), student.sf(0)))


def _of_rounds(rounds: np.ndarray) -> tuple[Interval, float]:
    """Median and interval of one replicate; in place of p, whether the interval contains 0."""
    from scipy import stats

    rounds = np.atleast_2d(rounds).mean(axis=0)
    ends = stats.quantile_test(rounds, q=0, p=0.5).confidence_interval(LEVEL)
    low = float(np.fmax(ends.low, rounds.min())) - math.log1p(ONE_PROCESS)  # NaN for a few rounds
    high = float(np.fmin(ends.high, rounds.max())) + math.log1p(ONE_PROCESS)
    return (float(np.median(rounds)), low, high), float(low <= 0 <= high)
