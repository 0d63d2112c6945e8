"""``sweep``: a race at each of several sizes, or numbers of threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

from .. import calls, formatting, plots
from ..errors import InputError
from ..formatting import Part, Report, Table, ToFrame
from . import statistics
from .report import HEADER, Race
from .results import Result, Saved
from .rounds import race
from .statistics import Ratio, times

THREADS = "threads"
_SURE = ("faster", "slower")
_COLUMNS = {"throughput", "gain", "contended", *Race((Result(""),)).records()[0]}


@dataclass(frozen=True, repr=False)
class Sweep(Saved, Report, ToFrame):
    """A race for each size; the repr is the report.

    Args:
        over: the caller's name for the sizes, or ``threads``.
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

    @property
    def names(self) -> tuple[str, ...]:
        """Every target, the baseline first."""
        first = next(iter(self.races.values()))
        return tuple(one.name for one in first.results if not one.control)

    def throughput(self, name: str, size: int) -> float | None:
        """Size times calls a second (for threads, calls a second) at the median block; None if the
        target did not run."""
        one = self.races[size].result(name)
        return self._per_call(size) / one.median if one.ran else None

    def gain(self, name: str, size: int) -> Ratio | None:
        """The throughput over that at the first size; for threads, the scaling.

        The two are from different races, so the interval is Welch's over processes. None at the
        first size, or if the target did not run.
        """
        ran, at = self._ran(name), self.races[size].conditions
        if size not in ran or size == (least := min(ran)):
            return None
        ratio = statistics.welch(ran[least].rounds, ran[size].rounds, at.matters)
        more = self._per_call(size) / self._per_call(least)
        grown = {end: more * getattr(ratio, end) for end in ("value", "low", "high")}
        return replace(ratio, bar="contended" if at.contended else "", **grown)

    @cached_property
    def crossovers(self) -> dict[str, float]:
        """The size at which a target and the baseline change places, by name.

        They do between two sizes with a verdict, one faster and the other slower. The logarithm of
        the ratio is interpolated between them. If there are several such sizes, the first counts.
        """
        crossovers: dict[str, float] = {}
        for name in self.names[1:]:
            sure = [(size, r) for size, r in self._ratios(name) if r.verdict in _SURE]
            for (low, before), (high, after) in pairwise(sure):
                if before.verdict != after.verdict:
                    one, other = math.log(before.value), math.log(after.value)
                    crossovers.setdefault(name, low * (high / low) ** (one / (one - other)))
        return crossovers

    @property
    def finding(self) -> str:
        """One sentence for each target: how it scales, or compares with the baseline."""
        sentences = map(self._scaled if self.over == THREADS else self._compared, self.names)
        return "\n".join(filter(None, sentences)) or f"{self.names[0]} over {self.over}"

    def records(self) -> list[dict[str, Any]]:
        """The records of each race, with its size, the throughput and the gain."""
        records = []
        for size, each in self.races.items():
            for record in each.records():
                rate = self.throughput(record["target"], size)
                gain = self.gain(record["target"], size)
                more = {"throughput": rate, "gain": gain and gain.value}
                contended = each.conditions.contended
                records.append({self.over: size, **record, **more, "contended": contended})
        return records

    def plot(self, ax: plots.Axes | None = None) -> plots.Axes:
        """Plot the throughput over the size, with crossovers; for threads, with ideal scaling."""
        threads, note = self.over == THREADS, self.races[max(self.races)].note()
        rates = {
            name: {at: (self._per_call(at) / one.times).tolist() for at, one in curve.items()}
            for name in self.names
            if (curve := self._ran(name))
        }
        return plots.sweep(
            rates,
            {} if threads else self.crossovers,
            hollow=[size for size, each in self.races.items() if each.conditions.contended],
            ideal=threads,
            over=self.over,
            per="calls a second" if threads else f"{self.over} x calls a second",
            title=self.finding,
            note=note.partition(", ")[2] if threads else note,  # the axis has their number
            ax=ax,
        )

    def _parts(self) -> Iterator[Part]:
        state = ", interrupted: the results until then" * self.interrupted
        yield f"Sweep over {self.over} against {self.names[0]}{state}"
        header = ("target", self.over, "a second", *HEADER[1:])
        rows = [self._row(name, size) for name in self.names for size in self.races]
        yield Table(rows, header, right=range(1, len(header) - 1))
        yield ""
        yield self.finding
        yield ""
        last = max(self.races)
        startup = ", with the startup of each," * self.races[last].conditions.workers
        yield f"sweep.races[{last}]{startup} was measured like this:"
        yield self.races[last].provenance()

    def _row(self, name: str, size: int) -> tuple[Any, ...]:
        rate = self.throughput(name, size)
        row = self.races[size].row(self.races[size].result(name))
        return name, size, f"{rate:,.0f}" if rate else "-", *row[1:]

    def _ran(self, name: str) -> dict[int, Result]:
        """The results of a target, by the sizes at which it ran."""
        results = {size: race.result(name) for size, race in self.races.items()}
        return {size: result for size, result in results.items() if result.ran}

    def _ratios(self, name: str) -> list[tuple[int, Ratio]]:
        ratios = ((size, race.ratio(name)) for size, race in self.races.items())
        return [(size, ratio) for size, ratio in ratios if ratio]

    def _per_call(self, size: int) -> int:
        return 1 if self.over == THREADS else size

    def _compared(self, name: str) -> str:
        parts = []
        for size, ratio in self._ratios(name):
            word = "the same" if ratio.verdict == "same" else f"no verdict ({ratio.verdict})"
            word = times(ratio.value) if ratio.verdict in _SURE else word
            parts.append(f"{word} at {self.over} {size}")
        ends = ", ".join(parts[:1] + parts[1:][-1:])
        if place := self.crossovers.get(name):
            ends += f"; they change places at about {self.over} {formatting.about(place)}"
        return f"{name} against {self.names[0]}: {ends}" if parts else ""

    def _scaled(self, name: str) -> str:
        most, least = (end(self._ran(name), default=1) for end in (max, min))
        if not (ratio := self.gain(name, most)):
            return ""
        span = f"({times(ratio.low)} to {times(ratio.high)}{', contended' * bool(ratio.bar)})"
        grown = f"{times(ratio.value)} as fast with {most} threads as with {least}"
        return f"{name} is {grown} {span}"


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
        inputs: of one call: a tensor, a tuple of arguments, or a dict of keywords. To sweep over
            sizes, a function that makes them from the size.
        threads: intra-op threads of every target, or several numbers to sweep over.
        seconds: the budget for each size, as for race().
        quick: race in this process.
        matters: the least difference that counts, as a fraction.
        seed: of every random order.
        sizes: one name with its sizes, such as ``batch=(1, 4, 16)``.

    Ctrl-C keeps the finished races, and the report says so.

    Raises:
        InputError: there is not exactly one thing to sweep over, a size is no whole number, or no
            target runs.

    >>> sums = {"sum": sum, "max": max}
    >>> lengths = sweep(sums, lambda length: list(range(length)), length=(1, 9), quick=True,
    ...                 seconds=0.02)
    >>> lengths.over, list(lengths.races), lengths.names
    ('length', [1, 9], ('sum', 'max'))
    """
    over, points = _axis(inputs, threads, sizes)
    common: dict[str, Any] = {"seconds": seconds, "quick": quick, "matters": matters, "seed": seed}
    races: dict[int, Race] = {}
    interrupted = False
    for size in points:
        try:
            given = inputs if over == THREADS else inputs(size)
            args, kwargs = ((), given) if isinstance(given, dict) else (given, {})
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
    """The name of the axis, and its sizes in ascending order."""
    axes = {**sizes, **({} if isinstance(threads, int) else {THREADS: threads})}
    if len(axes) != 1 or callable(inputs) != bool(sizes):
        given = ", ".join(f"{name}={axis!r}" for name, axis in axes.items()) or "nothing"
        raise InputError(
            f"sweep() takes one thing to sweep over, but was given {given} and inputs of type "
            f"{type(inputs).__name__}.",
            "Write sweep(targets, lambda batch: x[:batch], batch=(1, 4, 16)) or "
            "sweep(targets, x, threads=(1, 2)).",
        )
    ((over, axis),) = axes.items()
    if over in _COLUMNS - {THREADS}:
        raise InputError(
            f"{over!r} cannot be the name of the sizes: it is a column of records().",
            f"Pass another name, such as n_{over}.",
        )
    points = list(axis) if isinstance(axis, Iterable) and not isinstance(axis, str) else [axis]
    if not points:
        raise InputError(f"{over} has no sizes.", "Pass whole numbers, such as (1, 4, 16).")
    checked = calls.threads if over == THREADS else partial(calls.whole, over)
    return over, sorted(set(map(checked, points)))
