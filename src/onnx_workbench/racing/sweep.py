"""A race at each of several sizes, or numbers of threads: what a single ratio hides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .. import checks, plots, text
from ..errors import InputError
from ..tabled import Tabled
from . import archive, verdict
from .lane import Lane
from .race import races
from .report import Race
from .verdict import Ratio, times

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

THREADS = "threads"


@dataclass(frozen=True, repr=False)
class Sweep(Tabled):
    """A race for each size; the repr is the report.

    Args:
        over: what the sizes are: a name of the caller's, or ``threads``.
        races: size -> the race, in ascending order.

    >>> from onnx_workbench.racing.lane import Run
    >>> def at(*blocks):
    ...     names = zip(("eager", "fast"), blocks, strict=True)
    ...     return Race(tuple(Lane(name, (Run((block,) * 9),) * 3) for name, block in names))
    >>> sweep = Sweep("batch", {1: at(2000, 1000), 16: at(8000, 16000)})
    >>> print(sweep.finding)
    fast against eager: 2.00x at batch 1, 0.50x at batch 16; they change places at about batch 4
    >>> sweep.throughput("eager", 16)
    2000000.0
    """

    over: str
    races: Mapping[int, Race]
    interrupted: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody who raced, the baseline first."""
        lanes = (lane for race in self.races.values() for lane in race.lanes if not lane.control)
        return tuple(dict.fromkeys(lane.name for lane in lanes))

    def throughput(self, name: str, size: int) -> float | None:
        """Size times calls a second, for threads calls a second, at the median block; None where
        it did not run."""
        lane = self._lanes(name).get(size)
        return self._per_call(size) / lane.median if lane else None

    def gain(self, name: str, size: int) -> Ratio | None:
        """The throughput over that at the first size: for threads, how they scale.

        The two were measured in races of their own, so the interval is Welch's over processes.
        None at the first size, and where it did not run.
        """
        lanes, least = self._lanes(name), min(self._lanes(name), default=size)
        if size not in lanes or size == least:
            return None
        one, other, at = lanes[least], lanes[size], self.races[size].conditions
        if min(len(one.runs), len(other.runs)) > 1:
            found = archive.welch(one, other, at.matters)
        else:
            middle, wide = math.log(one.median / other.median), math.log1p(verdict.ALONE)
            found = verdict.from_logs(middle, middle - wide, middle + wide, at.matters)
        more = self._per_call(size) / self._per_call(least)
        grown = {end: more * getattr(found, end) for end in ("value", "low", "high")}
        return replace(found, bar="contended" if at.contended else "", **grown)

    @cached_property
    def crossovers(self) -> dict[str, float]:
        """Where a contestant and the baseline change places, each by its name.

        A change counts between two sizes with a verdict, the one faster and the other slower; in
        between, the logarithm of the ratio is taken to run straight. Of several the first.
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
        """One sentence a contestant: how it scales with threads, or against the baseline."""
        said = map(self._scaled if self.over == THREADS else self._compared, self.names)
        return "\n".join(filter(None, said)) or f"{self.names[0]} over {self.over}"

    def records(self) -> list[dict[str, Any]]:
        """Those of each race, with its size, the throughput and the gain."""
        return [
            {self.over: size, **record, **self._more(record["contestant"], size)}
            for size, race in self.races.items()
            for record in race.records()
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Throughput over size, with the crossovers, and for threads with what would be ideal."""
        threads, note = self.over == THREADS, self.races[max(self.races)].note()
        lanes = {name: self._lanes(name) for name in self.names}
        return plots.sweep(
            {
                name: {at: (self._per_call(at) / one.times).tolist() for at, one in curve.items()}
                for name, curve in lanes.items()
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Every race as JSON, with its blocks and its environment."""
        raced = [[size, archive.plain(race)] for size, race in self.races.items()]
        content = {"over": self.over, "races": raced, "interrupted": self.interrupted}
        archive.save("sweep", content, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sweep:
        """A sweep that :meth:`save` wrote.

        Raises:
            LoadError: the file is no sweep.
        """
        return archive.load("sweep", cls._made, path)

    @classmethod
    def _made(cls, content: dict[str, Any]) -> Sweep:
        met = {size: archive.raced(race) for size, race in content["races"]}
        over, stopped = content["over"], content["interrupted"]
        if not (met and all(type(size) is int and size > 0 for size in met)):
            raise ValueError(f"its sizes are {list(met)!r:.80}")
        if not (isinstance(over, str) and isinstance(stopped, bool)):
            raise ValueError("what it sweeps over, or whether it was interrupted, is missing")
        return cls(over, met, stopped)

    def __repr__(self) -> str:
        state = ", interrupted: what was measured until then" * self.interrupted
        header = ("contestant", self.over, *_HEADER)
        rows = [self._row(name, size) for name in self.names for size in self.races]
        table = text.table(rows, header, right=range(1, len(header) - 1))
        head = f"Sweep over {self.over} against {self.names[0]}{state}"
        return f"{head}\n{table}\n\n{text.table(self._facts())}"

    def _lanes(self, name: str) -> dict[int, Lane]:
        """What this contestant ran, by size."""
        lanes = ((size, lane) for size, race in self.races.items() for lane in race.lanes)
        return {size: lane for size, lane in lanes if lane.name == name and lane.ran}

    def _ratios(self, name: str) -> list[tuple[int, Ratio]]:
        found = ((size, self.races[size].ratio(name)) for size in self._lanes(name))
        return [(size, ratio) for size, ratio in found if ratio]

    def _per_call(self, size: int) -> int:
        return 1 if self.over == THREADS else size

    def _unit(self) -> str:
        return "calls a second" if self.over == THREADS else f"{self.over} x calls a second"

    def _compared(self, name: str) -> str:
        met = [f"{_short(ratio)} at {self.over} {size}" for size, ratio in self._ratios(name)]
        place = self.crossovers.get(name)
        change = f"; they change places at about {self.over} {text.about(place)}" if place else ""
        if not met:
            return ""
        return f"{name} against {self.names[0]}: {', '.join(met[:1] + met[1:][-1:])}{change}"

    def _scaled(self, name: str) -> str:
        sizes = self._lanes(name) or [1]
        if not (ratio := self.gain(name, max(sizes))):
            return ""
        span = f"({times(ratio.low)} to {times(ratio.high)}{', contended' * bool(ratio.bar)})"
        grown = f"{times(ratio.value)} as fast with {max(sizes)} threads as with {min(sizes)}"
        return f"{name} is {grown} {span}"

    def _row(self, name: str, size: int) -> tuple[str, ...]:
        lane, race = self._lanes(name).get(size), self.races[size]
        where = f"{'contended ' * race.conditions.contended}{size}"
        if lane is None:
            return name, where, *"------", "did not run"
        gain = self.gain(name, size)
        rate, grown = (
            f"{self.throughput(name, size):,.0f}",
            f"{times(gain.value):>5}" if gain else "",
        )
        _, p50, _, p99, _, *ratio = race.row(lane)
        return name, where, p50, p99, rate, grown, *ratio

    def _facts(self) -> Iterator[tuple[str, str]]:
        first, most = min(self.races), max(self.races)
        yield "a second", self._unit()
        yield "gain", f"a second / that at {self.over} {first}, from one race to another"
        if self.over != THREADS:
            places = [
                f"{name} at about {text.about(size)}" for name, size in self.crossovers.items()
            ]
            yield "places", ", ".join(places) or f"none surely changed from {first} to {most}"
        apart = ", ".join(str(size) for size, race in self.races.items() if not race.trusted)
        yield "control", f"UNTRUSTED at {apart}" if apart else "agrees at every size, as it must"
        yield "races", f"sweep.races[size]; what follows is that of {most}"
        yield from (fact for fact in self.races[most].facts() if fact[0] != "control")

    def _more(self, name: str, size: int) -> dict[str, Any]:
        gain = self.gain(name, size)
        ends = {f"gain{end}": gain and getattr(gain, end[1:] or "value") for end in _ENDS}
        contended = self.races[size].conditions.contended
        return {"throughput": self.throughput(name, size), **ends, "contended": contended}


_HEADER = ("p50", "p99", "a second", "gain", "ratio", "interval", "verdict")
_ENDS = ("", "_low", "_high")
_SURE = ("faster", "slower")


def _short(ratio: Ratio) -> str:
    if ratio.verdict in (*_SURE, "same"):
        return times(ratio.value) if ratio.verdict in _SURE else "the same"
    return f"no verdict ({ratio.verdict})"


def sweep(
    contestants: Mapping[str, Callable[..., object]],
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
        contestants: name -> callable, as :func:`~onnx_workbench.race` takes them.
        inputs: of one call: a tensor, a tuple of arguments, or a dict of keywords. For sizes, a
            function that makes them from the size, so that any dimension of any input can change.
        threads: intra-op threads of every contestant, or several numbers to sweep over.
        seconds: the budget of each size, as race() has it.
        quick: race in this process.
        matters: the least difference that counts, as a fraction.
        seed: of every random order.
        sizes: one name with its sizes, such as ``batch=(1, 4, 16)``. All of them run in the same
            processes; numbers of threads run one after the other, in processes of their own.

    Raises:
        InputError: not one thing to sweep over, a size that is no whole number, or no contestant
            that runs.

    >>> sums = {"sum": sum, "max": max}
    >>> found = sweep(sums, lambda length: list(range(length)), length=(1, 9), quick=True,
    ...               seconds=0.02)
    >>> found.over, list(found.races), found.names
    ('length', [1, 9], ('sum', 'max'))
    """
    over, points = _axis(inputs, threads, sizes)
    common = (seconds, quick, matters, seed)
    if isinstance(threads, int):
        met = races(contestants, [_call(inputs(size)) for size in points], threads, *common)
    else:
        raced = (races(contestants, [_call(inputs)], count, *common) for count in points)
        met = list(_until_interrupted(raced))
    stopped = len(met) < len(points) or met[-1].conditions.interrupted
    return Sweep(over, dict(zip(points, met, strict=False)), stopped)


def _until_interrupted(raced: Iterator[list[Race]]) -> Iterator[Race]:
    """One race after the other, and not the one after Ctrl-C."""
    (race,) = next(raced)
    yield race
    with suppress(KeyboardInterrupt):
        while not race.conditions.interrupted and (more := next(raced, None)):
            (race,) = more
            yield race


def _axis(inputs: Any, threads: Any, sizes: Mapping[str, Any]) -> tuple[str, list[int]]:
    """What is swept, and its sizes in ascending order."""
    axes = {**sizes, **({} if isinstance(threads, int) else {THREADS: threads})}
    if len(axes) != 1 or callable(inputs) != bool(sizes):
        given = ", ".join(f"{name}={axis!r}" for name, axis in axes.items()) or "nothing"
        raise InputError(
            f"sweep() takes one thing to sweep over, and was given {given} and inputs of type "
            f"{type(inputs).__name__}. Write sweep(contestants, lambda batch: x[:batch], "
            "batch=(1, 4, 16)) or sweep(contestants, x, threads=(1, 2))."
        )
    ((over, axis),) = axes.items()
    points = list(axis) if isinstance(axis, Iterable) and not isinstance(axis, str) else [axis]
    if not points:
        raise InputError(f"{over} has no sizes; it takes whole numbers, such as (1, 4, 16).")
    checked = checks.threads if over == THREADS else partial(checks.whole, over)
    return over, sorted(set(map(checked, points)))


def _call(inputs: Any) -> tuple[tuple, dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
