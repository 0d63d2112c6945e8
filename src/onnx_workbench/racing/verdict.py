"""How many times as fast, with an interval that counts processes, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from .lane import Lane

LEVEL = 0.95
STRATA = 5
"""So many are raced before a narrow interval may end a race."""
NOISY = 0.10
"""From this half-width of the interval on, the machine is too noisy for a verdict."""
ALONE = 0.03
"""By how much a ratio is widened where a single process raced: between fresh processes the same
contestant differed by a standard deviation of 0.1 to 2.1 %."""

Verdict = Literal["faster", "slower", "same", "undecided", "noisy", "contended", "untrusted"]


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline, with a 95 % interval.

    Args:
        value, low, high: the ratio of times, baseline over contestant, and its interval.
        matters: the least difference that counts, as a fraction.
        differs: the interval, corrected for the number of contestants, leaves 1 out.
        more: about how many seconds a verdict would still take, or None.
        bar: why there is no verdict whatever the numbers say, or empty.

    >>> Ratio(1.38, 1.31, 1.44).verdict
    'faster'
    >>> Ratio(1.00, 0.99, 1.01, differs=False).phrase
    'no difference that matters (within 3 %)'
    >>> Ratio(1.02, 0.98, 1.06, differs=False, more=20).phrase
    'not enough data: needs about 20 s more'
    """

    value: float
    low: float
    high: float
    matters: float = 0.03
    differs: bool = True
    more: float | None = None
    bar: Literal["", "contended", "untrusted"] = ""

    @property
    def half(self) -> float:
        """Half the width of the interval, as a fraction of the ratio."""
        return (self.high - self.low) / 2 / self.value

    @property
    def verdict(self) -> Verdict:
        """``faster`` or ``slower`` where the interval leaves 1 out and the ratio is further from 1
        than what matters; ``same`` where the whole interval lies within what matters."""
        if self.bar:
            return self.bar
        if self.low >= 1 / (1 + self.matters) and self.high <= 1 + self.matters:
            return "same"
        if self.differs and abs(math.log(self.value)) > math.log1p(self.matters):
            return "faster" if self.value > 1 else "slower"
        return "noisy" if self.half > NOISY else "undecided"

    @property
    def phrase(self) -> str:
        """The verdict in words."""
        more = "" if self.more is None else f": needs about {self.more:.0f} s more"
        return {
            "same": f"no difference that matters (within {100 * self.matters:g} %)",
            "undecided": f"not enough data{more}",
            "noisy": f"no verdict, this machine is too noisy (interval {100 * self.half:.0f} % "
            "to each side)",
            "contended": "no verdict, the cores were contended",
            "untrusted": "no verdict, the race is untrusted: the same contestant differed from "
            "itself",
        }.get(self.verdict) or self._said()

    def _said(self) -> str:
        span = f"95 % interval {times(self.low)[:-1]} to {times(self.high)[:-1]}"
        return f"{times(self.value)} as fast ({span})"


def times(ratio: float) -> str:
    """A ratio in three digits.

    >>> times(1.381), times(12.34), times(123.4)
    ('1.38x', '12.3x', '123x')
    """
    return f"{ratio:.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}x"


def ratios(
    baseline: Lane, lanes: Iterable[Lane], matters: float, seconds: float = 0.0
) -> dict[str, Ratio]:
    """Every challenger against the baseline, the significance corrected by Holm's method.

    Within a stratum both ran in the same rounds, so each stratum gives one paired difference: the
    median over rounds of the log-ratio, free of what a round did to both. The interval is
    Student's over strata, each of which holds fresh processes. A single stratum has the
    distribution-free interval of its median instead, widened by what processes differ by.

    Args:
        seconds: what a stratum took, from which the seconds still needed are estimated.
    """
    found = {lane.name: differences(baseline, lane) for lane in lanes}
    met = {name: _ratio(logs, matters, seconds) for name, logs in found.items() if logs}
    values = {name: p for name, (_, p) in met.items()}
    differing = holm(values)
    return {name: replace(ratio, differs=name in differing) for name, (ratio, _) in met.items()}


def differences(baseline: Lane, lane: Lane) -> list[np.ndarray]:
    """Log-ratios of the rounds in which both ran, one array a stratum."""
    pairs = zip(baseline.runs, lane.runs, strict=False)  # Ctrl-C may leave one without the other
    logs = []
    for one, other in pairs:
        rounds = min(len(one.blocks), len(other.blocks))
        if rounds:
            logs.append(np.log(one.times[:rounds] / other.times[:rounds]))
    return logs


def from_logs(middle: float, low: float, high: float, matters: float, **more: Any) -> Ratio:
    """A Ratio from log-ratios."""
    return Ratio(math.exp(middle), math.exp(low), math.exp(high), matters, **more)


def holm(values: Mapping[str, float], alpha: float = 1 - LEVEL) -> set[str]:
    """Names whose null hypothesis falls (Holm, 1979, Scandinavian Journal of Statistics 6, 65-70).

    >>> sorted(holm({"a": 0.001, "b": 0.04, "c": 0.2}))
    ['a']
    """
    fallen: set[str] = set()
    for rank, name in enumerate(sorted(values, key=lambda name: values[name])):
        if values[name] > alpha / (len(values) - rank):
            break
        fallen.add(name)
    return fallen


def _ratio(logs: Sequence[np.ndarray], matters: float, seconds: float) -> tuple[Ratio, float]:
    if len(logs) == 1:
        return _within(logs[0], matters)
    medians = np.array([np.median(rounds) for rounds in logs])
    middle, low, high, p = _student(medians)
    ratio = from_logs(middle, low, high, matters)
    return replace(ratio, more=_more(medians, matters, seconds)), p


def _student(medians: np.ndarray) -> tuple[float, float, float, float]:
    from scipy import stats

    middle = float(medians.mean())
    if not medians.std():  # a clock that does not vary: nothing to test
        return middle, middle, middle, float(middle == 0)
    error = float(stats.sem(medians))
    student = stats.t(_freedom(len(medians)), middle, error)
    low, high = student.interval(LEVEL)
    return middle, float(low), float(high), float(2 * min(student.cdf(0), student.sf(0)))


def _freedom(strata: int) -> int:
    """Degrees of freedom. From the fifth stratum on a narrow interval ends the race, which favours
    chance narrow ones: one degree is given up for that."""
    return strata - 1 if strata < STRATA else strata - 2


def _within(rounds: np.ndarray, matters: float) -> tuple[Ratio, float]:
    from scipy import stats

    test = stats.quantile_test(rounds, q=0, p=0.5)
    low, high = test.confidence_interval(LEVEL)
    middle = float(np.median(rounds))
    low, high = (
        edge if math.isfinite(edge) else far
        for edge, far in ((float(low), float(rounds.min())), (float(high), float(rounds.max())))
    )
    wide = math.log1p(ALONE)
    low, high = low - wide, high + wide
    ratio = from_logs(middle, low, high, matters)
    return ratio, float(low <= 0 <= high)


def _more(medians: np.ndarray, matters: float, seconds: float) -> float | None:
    """Seconds until the interval would decide, if strata go on to differ as they do."""
    from scipy import stats

    spread, middle = float(medians.std(ddof=1)), abs(float(medians.mean()))
    goal = max(middle, math.log1p(matters) - middle)
    for count in range(len(medians) + 1, 101):
        if stats.t.ppf((1 + LEVEL) / 2, _freedom(count)) * spread / math.sqrt(count) < goal:
            return max(1.0, (count - len(medians)) * seconds)
    return None
