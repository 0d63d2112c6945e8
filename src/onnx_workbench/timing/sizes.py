"""A race at each of several sizes, or numbers of threads: what a single ratio hides."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import calls, formatting, plots
from ..errors import InputError
from ..formatting import ToFrame
from . import archive, statistics
from .report import Race
from .results import Result
from .rounds import race
from .statistics import Ratio, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THREADS = "threads"
_SURE = ("faster", "slower")
_HEADER = ("p50", "p99", "a second", "gain", "ratio", "interval", "verdict")


@dataclass(frozen=True, repr=False)
class Sweep(ToFrame):
    """A race for each size; the repr is the report.

    Args:
        over: what the sizes are: a name of the caller's, or ``threads``.
        races: size -> the race, in ascending order.

    >>> from onnx_workbench.timing.results import Replicate
    >>> def at(*blocks):
    ...     names = zip(("eager", "fast"), blocks, strict=True)
    ...     return Race(tuple(Result(name, (Replicate((b,) * 9),) * 3) for name, b in names))
    >>> sweep = Sweep("batch", {1: at(2000, 1000), 16: at(8000, 16000)})
    >>> print(sweep.finding)
    fast against eager: 2.00x at batch 1, 0.50x at batch 16; they change places at about batch 4
    >>> sweep.throughput("eager", 16)
    2000000.0
    """

    over: str
    races: Mapping[int, Race]
    interrupted: bool = False

    def __post_init__(self) -> None:
        if not self.races or min(self.races) < 1:
            raise ValueError(f"the sizes of a sweep are {list(self.races)!r:.80}")

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody who raced, the baseline first."""
        every = (one for race in self.races.values() for one in race.results if not one.control)
        return tuple(dict.fromkeys(one.name for one in every))

    def throughput(self, name: str, size: int) -> float | None:
        """Size times calls a second, for threads calls a second, at the median block; None where
        it did not run."""
        one = self._results(name).get(size)
        return self._per_call(size) / one.median if one else None

    def gain(self, name: str, size: int) -> Ratio | None:
        """The throughput over that at the first size: for threads, how they scale.

        The two were measured in different races, so the interval is Welch's over processes. None at
        the first size, and where it did not run.
        """
        found, at = self._results(name), self.races[size].conditions
        least = min(found, default=size)
        if size not in found or size == least:
            return None
        ratio = statistics.welch(found[least].rounds, found[size].rounds, at.matters)
        more = self._per_call(size) / self._per_call(least)
        grown = {end: more * getattr(ratio, end) for end in ("value", "low", "high")}
        return replace(ratio, bar="contended" if at.contended else "", **grown)

    @cached_property
    def crossovers(self) -> dict[str, float]:
        """Where a target and the baseline change places, by name.

        A change counts between two sizes with a verdict, one faster and the other slower; between
        them the logarithm of the ratio is interpolated. Of several changes, the first.
        """
        found: dict[str, float] = {}
        for name in self.names[1:]:
            sure = [(size, r) for size, r in self._ratios(name) if r.verdict in _SURE]
            for (low, before), (high, after) in pairwise(sure):
                if before.verdict != after.verdict:
                    one, other = math.log(before.value), math.log(after.value)
                    found.setdefault(name, low * (high / low) ** (one / (one - other)))
        return found

    @property
    def finding(self) -> str:
        """One sentence a target: how it scales with threads, or against the baseline."""
        said = map(self._scaled if self.over == THREADS else self._compared, self.names)
        return "\n".join(filter(None, said)) or f"{self.names[0]} over {self.over}"

    def records(self) -> list[dict[str, Any]]:
        """Those of each race, with its size, the throughput and the gain."""
        return [
            {self.over: size, **record, **self._more(record["target"], size)}
            for size, race in self.races.items()
            for record in race.records()
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Throughput over size, with the crossovers, and for threads with the ideal."""
        threads, note = self.over == THREADS, self.races[max(self.races)].note()
        curves = {name: self._results(name) for name in self.names}
        return plots.sweep(
            {
                name: {at: (self._per_call(at) / one.times).tolist() for at, one in curve.items()}
                for name, curve in curves.items()
                if curve
            },
            {} if threads else self.crossovers,
            hollow=[size for size, race in self.races.items() if race.conditions.contended],
            ideal=threads,
            over=self.over,
            per=self._unit(),
            title=self.finding,
            note=note.partition(", ")[2] if threads else note,  # their number is on the axis
            ax=ax,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write every race as JSON, with its blocks and its environment, and return the path."""
        return archive.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sweep:
        """A sweep that :meth:`save` wrote.

        Raises:
            LoadError: the file is no sweep.
        """
        return archive.load(cls, path)

    def __repr__(self) -> str:
        header = ("target", self.over, *_HEADER)
        rows = [self._row(name, size) for name in self.names for size in self.races]
        table = formatting.table(rows, header, right=range(1, len(header) - 1))
        state = ", interrupted: what was measured until then" * self.interrupted
        head = f"Sweep over {self.over} against {self.names[0]}{state}"
        return f"{head}\n{table}\n\n{formatting.table(self._facts())}"

    def _results(self, name: str) -> dict[int, Result]:
        """What this target ran, by size."""
        every = ((size, one) for size, race in self.races.items() for one in race.results)
        return {size: one for size, one in every if one.name == name and one.ran}

    def _ratios(self, name: str) -> list[tuple[int, Ratio]]:
        found = ((size, self.races[size].ratio(name)) for size in self._results(name))
        return [(size, ratio) for size, ratio in found if ratio]

    def _per_call(self, size: int) -> int:
        return 1 if self.over == THREADS else size

    def _unit(self) -> str:
        return "calls a second" if self.over == THREADS else f"{self.over} x calls a second"

    def _compared(self, name: str) -> str:
        met = [f"{_short(ratio)} at {self.over} {size}" for size, ratio in self._ratios(name)]
        place = self.crossovers.get(name)
        change = (
            f"; they change places at about {self.over} {formatting.about(place)}" if place else ""
        )
        ends = ", ".join(met[:1] + met[1:][-1:])
        return f"{name} against {self.names[0]}: {ends}{change}" if met else ""

    def _scaled(self, name: str) -> str:
        sizes = self._results(name) or [1]
        if not (ratio := self.gain(name, max(sizes))):
            return ""
        span = f"({times(ratio.low)} to {times(ratio.high)}{', contended' * bool(ratio.bar)})"
        grown = f"{times(ratio.value)} as fast with {max(sizes)} threads as with {min(sizes)}"
        return f"{name} is {grown} {span}"

    def _row(self, name: str, size: int) -> tuple[str, ...]:
        one, race = self._results(name).get(size), self.races[size]
        where = f"{'contended ' * race.conditions.contended}{size}"
        if one is None:
            return name, where, *"------", "did not run"
        gain = self.gain(name, size)
        rate = f"{self._per_call(size) / one.median:,.0f}"
        _, p50, _, p99, *_, ratio, span, verdict = race.row(one)
        grown = f"{times(gain.value):>5}" if gain else ""
        return name, where, p50, p99, rate, grown, ratio, span, verdict

    def _facts(self) -> Iterator[tuple[str, str]]:
        first, most = min(self.races), max(self.races)
        yield "a second", self._unit()
        yield "gain", f"a second / that at {self.over} {first}, from one race to another"
        if self.over != THREADS:
            places = [
                f"{name} at about {formatting.about(at)}" for name, at in self.crossovers.items()
            ]
            yield "places", ", ".join(places) or f"none surely changed from {first} to {most}"
        apart = ", ".join(str(size) for size, race in self.races.items() if not race.trusted)
        yield "control", f"UNTRUSTED at {apart}" if apart else "agrees at every size, as it must"
        yield "races", f"sweep.races[size]; what follows is that of {most}"
        yield from (fact for fact in self.races[most].facts() if fact[0] != "control")

    def _more(self, name: str, size: int) -> dict[str, Any]:
        gain = self.gain(name, size)
        ends = {"gain": "value", "gain_low": "low", "gain_high": "high"}
        return {
            "throughput": self.throughput(name, size),
            **{key: gain and getattr(gain, end) for key, end in ends.items()},
            "contended": self.races[size].conditions.contended,
        }


def _short(ratio: Ratio) -> str:
    if ratio.verdict == "same":
        return "the same"
    return times(ratio.value) if ratio.verdict in _SURE else f"no verdict ({ratio.verdict})"


def sweep(
    targets: Mapping[str, Callable[..., object]],
    inputs: Any,
    *,
    threads: int | Iterable[int] = 1,
    seconds: float | None = None,
    quick: bool = False,
    matters: float = 0.03,
    seed: int = 0,
    **sizes: Iterable[int],
) -> Sweep:
    """Race at several sizes of an input, or with several numbers of threads.

    Args:
        targets: name -> callable, as :func:`~onnx_workbench.race` takes them.
        inputs: of one call: a tensor, a tuple of arguments, or a dict of keywords. For sizes, a
            function that makes them from the size, so that any dimension of any input can change.
        threads: intra-op threads of every target, or several numbers to sweep over.
        seconds: the budget of each size, as race() has it.
        quick: race in this process.
        matters: the least difference that counts, as a fraction.
        seed: of every random order.
        sizes: one name with its sizes, such as ``batch=(1, 4, 16)``.

    Ctrl-C keeps the races that were finished, and says so.

    Raises:
        InputError: not one thing to sweep over, a size that is no whole number, or no target that
            runs.

    >>> sums = {"sum": sum, "max": max}
    >>> found = sweep(sums, lambda length: list(range(length)), length=(1, 9), quick=True,
    ...               seconds=0.02)
    >>> found.over, list(found.races), found.names
    ('length', [1, 9], ('sum', 'max'))
    """
    over, points = _axis(inputs, threads, sizes)
    common: dict[str, Any] = {"seconds": seconds, "quick": quick, "matters": matters, "seed": seed}
    races: dict[int, Race] = {}
    interrupted = False
    for size in points:
        try:
            args, kwargs = _call(inputs if over == THREADS else inputs(size))
            count: Any = size if over == THREADS else threads
            races[size] = race(targets, args, kwargs, threads=count, **common)
            interrupted = races[size].conditions.interrupted
        except KeyboardInterrupt:
            if not races:
                raise
            interrupted = True
        if interrupted:
            break
    return Sweep(over, races, interrupted)


def _axis(inputs: Any, threads: Any, sizes: Mapping[str, Any]) -> tuple[str, list[int]]:
    """What is swept, and its sizes in ascending order."""
    axes = {**sizes, **({} if isinstance(threads, int) else {THREADS: threads})}
    if len(axes) != 1 or callable(inputs) != bool(sizes):
        given = ", ".join(f"{name}={axis!r}" for name, axis in axes.items()) or "nothing"
        raise InputError(
            f"sweep() takes one thing to sweep over, and was given {given} and inputs of type "
            f"{type(inputs).__name__}.",
            "write sweep(targets, lambda batch: x[:batch], batch=(1, 4, 16)) or "
            "sweep(targets, x, threads=(1, 2)).",
        )
    ((over, axis),) = axes.items()
    points = list(axis) if isinstance(axis, Iterable) and not isinstance(axis, str) else [axis]
    if not points:
        raise InputError(f"{over} has no sizes; it takes whole numbers, such as (1, 4, 16).")
    checked = calls.threads if over == THREADS else partial(calls.whole, over)
    return over, sorted(set(map(checked, points)))


def _call(inputs: Any) -> tuple[tuple, dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
