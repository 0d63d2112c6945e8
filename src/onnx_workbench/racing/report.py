"""The result of a race: its table, its verdicts, its plot, and its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from .. import plots, text
from ..contestant import Panel
from ..errors import InputError
from ..tabled import Tabled
from . import verdict
from .bench import BLOCK, WARM_CALLS, WARM_SECONDS
from .lane import Lane
from .verdict import Ratio, times

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

_HEADER = ("contestant", "p50", "p90", "p99", "first call", "ratio", "interval", "verdict")
_PANELS: dict[Panel, str] = {
    "API": "API: a call takes and gives what its user holds",
    "compute": "compute: buffers bound once and used again",
}


@dataclass(frozen=True)
class Conditions:
    """Under which a race ran; two races are only compared where ``environment`` is the same.

    Args:
        how: ``workers``, or ``in process`` with the reason in ``why``.
        freezes: idle workers are stopped; else they wait for their pipe.
        one_core: all workers of a stratum are kept to the same core.
        stopped: what ended the race.
        stratum: seconds that one stratum took.
        load: how many cores others kept busy at the start; not looked at for one thread.
        warm: seconds after which the warm-up of a contestant at one size ends.
    """

    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    cores: int = 1
    load: float | None = None
    seconds: float = 25.0
    matters: float = 0.03
    seed: int = 0
    how: str = "workers"
    why: str = ""
    freezes: bool = True
    stopped: str = ""
    stratum: float = 0.0
    interrupted: bool = False
    warm: float = WARM_SECONDS
    one_core: bool = False

    @property
    def contended(self) -> bool:
        """Several threads each, and fewer cores free than that when the race began.

        One thread needs no free core: the one that is taken away is missed by all alike.
        """
        return self.threads > 1 and self.threads + (self.load or 0.0) > self.cores + 0.5


@dataclass(frozen=True, repr=False)
class Race(Tabled):
    """What was measured, and under which conditions; the repr is the report.

    >>> from onnx_workbench.racing.lane import Run
    >>> def lane(name, *blocks, **more):
    ...     return Lane(name, tuple(Run((block,) * 5) for block in blocks), "call", **more)
    >>> race = Race((lane("eager", 4000, 4040), lane("eager again", 4020, 4020, control=True),
    ...              lane("fast", 2000, 2000)))
    >>> print(race.finding)
    fast is 2.01x as fast as eager (95 % interval 1.89 to 2.14)
    >>> race.trusted
    True
    """

    lanes: tuple[Lane, ...]
    conditions: Conditions = Conditions()

    @property
    def baseline(self) -> str:
        """The first contestant that ran."""
        return next(lane.name for lane in (*filter(_ran, self.lanes), *self.lanes))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """``API`` and ``compute`` where both are in the race: they are never held together."""
        met = {lane.panel for lane in self.lanes if lane.ran and lane.panel}
        return tuple(panel for panel in _PANELS if panel in met)

    @property
    def strata(self) -> int:
        """How many times everybody was started anew."""
        return max(len(lane.runs) for lane in self.lanes)

    def lane(self, name: str) -> Lane:
        """What one contestant did.

        Raises:
            InputError: it is not part of the race.
        """
        found = [lane for lane in self.lanes if lane.name == name]
        if not found:
            names = ", ".join(repr(lane.name) for lane in self.lanes)
            raise InputError(f"There is no contestant {name!r} in this race. It has {names}.")
        return found[0]

    def ratio(self, name: str) -> Ratio | None:
        """How many times as fast as the first contestant of its panel that ran.

        None for that one itself, and where one of the two did not run.
        """
        self.lane(name)
        return self._ratios.get(name)

    @cached_property
    def control(self) -> Ratio | None:
        """The baseline against its own second copy: the race's check on itself."""
        copies = [lane for lane in self.lanes if lane.control and lane.ran]
        return next(iter(self._against(copies)), None)

    @property
    def trusted(self) -> bool:
        """False where the same contestant was found to differ from itself."""
        return not (self.control and self.control.verdict in ("faster", "slower"))

    @cached_property
    def copies(self) -> dict[str, Ratio]:
        """How many times as fast a call with IOBinding is as the same call that copies, where both
        are in the race. The share of the copies is 1 less 1 / that."""
        pairs = [(self.lane(lane.twin), lane) for lane in self.lanes if lane.twin and lane.ran]
        at = self.conditions
        return {
            lane.name: verdict.ratios(twin, [lane], at.matters, at.stratum)[lane.name]
            for twin, lane in pairs
            if twin.ran
        }

    @property
    def finding(self) -> str:
        """One sentence per challenger."""
        said = (
            _said(name, first.name, ratio)
            for name, ratio in self._ratios.items()
            if (first := self._first(self.lane(name)))
        )
        return "\n".join(said) or f"{self.baseline} raced alone"

    def records(self) -> list[dict[str, Any]]:
        """One flat dict per contestant. Times are in seconds per call, memory in bytes. What was
        not measured is None."""
        return [self._record(lane) for lane in self.lanes]

    def plot(
        self, what: Literal["times", "ratios", "copies"] = "times", ax: Axes | None = None
    ) -> Axes:
        """What was measured, or what follows from it.

        Args:
            what: every block of everybody; the ratios with their intervals; or the part of a call
                that :attr:`copies` takes, for which a file has to race with IOBinding and without.
            ax: where to draw; a new figure without it.

        Raises:
            InputError: there is no such plot of this race.
        """
        look: Any = {"note": self.note(), "ax": ax}
        if what == "times":
            ran = {lane.name: lane.times.tolist() for lane in self.lanes if _races(lane)}
            return plots.blocks(ran, title=self.finding, **look)
        if what == "ratios" and self._ratios:
            spans = {name: (one.low, one.value, one.high) for name, one in self._ratios.items()}
            matters = self.conditions.matters
            return plots.ratios(spans, matters, title=self.finding, **look)
        if what == "copies" and self.copies:
            title = "\n".join(self._copied())
            return plots.stacked(self._parts(), title, over="time per call, median", **look)
        raise InputError(
            f"There is no plot {what!r} of this race: it takes 'times', 'ratios' where two or more "
            "raced, or 'copies' where a file raced with .using(bound=True) and without."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """The race as JSON, every block and its environment included."""
        from . import archive

        archive.save("race", archive.plain(self), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Race:
        """A race that :meth:`save` wrote.

        Raises:
            LoadError: the file is no race.
        """
        from . import archive

        return archive.load("race", archive.raced, path)

    def since(self, earlier: Race) -> dict[str, Ratio]:
        """How many times as fast each contestant is now as in an earlier race, by name.

        The processes of the two races have nothing in common, so the interval is Welch's.

        Raises:
            InputError: the races ran in different environments; it says what differs.
        """
        from . import archive

        return archive.since(self, earlier)

    def __repr__(self) -> str:
        state = ", interrupted: what was measured until then" * self.conditions.interrupted
        head = f"Race against {self.baseline}{state}"
        panels = self.panels if len(self.panels) > 1 else ("",)
        tables = [self._table(panel) for panel in panels]
        return "\n".join([head, *tables, "", text.table(self.facts())])

    @cached_property
    def _ratios(self) -> dict[str, Ratio]:
        lanes = list(filter(_races, self.lanes))[1:]
        bar: Any = "contended" if self.conditions.contended else ""
        bar = bar or ("" if self.trusted else "untrusted")
        found = zip(lanes, self._against(lanes), strict=True)
        return {lane.name: replace(ratio, bar=bar) for lane, ratio in found if ratio}

    def _against(self, lanes: list[Lane]) -> list[Any]:
        """The ratio of each lane, None for the first of its panel; Holm for each baseline."""
        firsts = {lane.name: self._first(lane) for lane in lanes}
        met: dict[str, Ratio] = {}
        for first in {id(one): one for one in firsts.values() if one}.values():
            rivals = [lane for lane in lanes if firsts[lane.name] is first]
            met |= verdict.ratios(first, rivals, self.conditions.matters, self.conditions.stratum)
        return [met.get(lane.name) for lane in lanes]

    def _first(self, lane: Lane) -> Lane | None:
        """The baseline of a lane: the first that ran and counts for its panel."""
        for other in filter(_races, self.lanes):
            if not (other.panel and lane.panel) or other.panel == lane.panel:
                return None if other is lane else other
        return None

    def _table(self, panel: Panel) -> str:
        rows = [
            self.row(lane)
            for lane in self.lanes
            if not panel or not lane.panel or lane.panel == panel
        ]
        head = f"{_PANELS[panel]}\n" if panel else ""
        return head + text.table(rows, _HEADER, right=range(1, len(_HEADER) - 1))

    def row(self, lane: Lane) -> tuple[str, ...]:
        """One line of the table, in the order of its header."""
        if not lane.ran:
            return lane.name, *"------", "did not run"
        spread = [_seconds(lane.percentile(percent)) for percent in (50, 90, 99)]
        measured = (lane.name, *spread, _seconds(lane.first))
        ratio = self.control if lane.control else self.ratio(lane.name)
        if ratio is None:
            return (*measured, "", f"{'':14}", f"{'':9}")
        span = f"{times(ratio.low):>5} to {times(ratio.high):>5}"
        return (*measured, f"{times(ratio.value):>5}", span, f"{ratio.verdict:9}")

    def facts(self) -> Iterator[tuple[str, str]]:
        """What stands below the table, as a label and a line each."""
        at = self.conditions
        yield from _labelled("did not run", self._failures())
        yield from _labelled("timed", self._timed())
        yield "clock", self._clock()
        yield "ratio", f"{self.baseline} / contestant within a round; {self._interval()}"
        yield (
            "verdict",
            (
                f"faster, slower: 1 outside the interval (Holm), more than {100 * at.matters:g} % "
                f"apart; same: all of it within {100 * at.matters:g} %"
            ),
        )
        yield "control", self._check()
        yield from _labelled("copies", self._copied())
        yield from _labelled("threads", self._threads())
        yield "rounds", self._rounds()
        yield "stopped", at.stopped
        yield (
            "warm-up",
            f"{WARM_CALLS} calls or {1e3 * at.warm:.0f} ms, whichever comes first; "
            "the first call is kept apart",
        )
        yield "machine", ", ".join([text.plural(at.cores, "core"), *at.environment.values()])
        yield from _labelled("doubt", self._doubts())

    def _clock(self) -> str:
        runs = [run for lane in self.lanes for run in lane.runs]
        if not (queued := sum(sum(run.queued) for run in runs)):
            return "wall time"
        share = queued / sum(sum(run.blocks) for run in runs)
        whose = " of the calling thread" * (self.conditions.threads > 1)
        return (
            f"wall time less the {100 * share:.1f} % in which other processes had the core{whose}"
        )

    def _interval(self) -> str:
        if self.conditions.how == "workers":
            return f"95 % interval over {self.strata} strata of fresh processes"
        return f"95 % interval over rounds, widened by {100 * verdict.ALONE:g} %"

    def _check(self) -> str:
        if not self.control:
            return "none"
        said = times(self.control.value)
        agrees = "as it must be" if self.trusted else "UNTRUSTED: it differs from itself"
        return f"{self.baseline} against its own copy: {said}, {agrees}"

    def _copied(self) -> Iterator[str]:
        for name, ratio in self.copies.items():
            share, low, high = (100 * (1 - 1 / one) for one in (ratio.value, ratio.low, ratio.high))
            yield (
                f"{share:.0f} % of {self.lane(name).twin} (95 % interval {low:.0f} to {high:.0f}) "
                f"is what {name} leaves out"
            )

    def _parts(self) -> dict[str, dict[str, float]]:
        found = {}
        for name, ratio in self.copies.items():
            call = self.lane(self.lane(name).twin)
            work = min(call.median, call.median / ratio.value)
            found[call.name] = {"compute": work, "copies": call.median - work}
        return found

    def _threads(self) -> Iterator[str]:
        ran = [(lane.threads, lane.name) for lane in self.lanes if _races(lane)]
        for threads, names in _grouped(ran):
            asked = f"{self.conditions.threads} asked"
            yield f"{', '.join(names)}: {threads if threads else asked}, " + (
                "as read back" if threads else "nothing to read back"
            )

    def _rounds(self) -> str:
        counts = [len(run.blocks) for lane in self.lanes for run in lane.runs]
        rounds = text.plural(min(counts, default=0), "round")
        idle = "idle workers frozen" if self.conditions.freezes else "idle workers wait unfrozen"
        idle += ", one core for all of a stratum" * self.conditions.one_core
        where = f"{self.strata} strata, {idle}" if self.conditions.how == "workers" else "1 process"
        order = f"in fresh random order (seed {self.conditions.seed})"
        return f"{rounds} of blocks of about {1e3 * BLOCK:.0f} ms in each of {where}, {order}"

    def _doubts(self) -> Iterator[str]:
        at = self.conditions
        if at.how != "workers":
            yield f"one process for all{at.why and ': '}{at.why}: a percent or two is chance"
            if at.threads > 1:
                yield "pools of threads in one process disturb each other"
        if at.contended:
            busy = f", of which others kept {at.load:.1f} busy" if at.load else ""
            cores = text.plural(at.cores, "core")
            yield f"contended: {at.threads} threads on {cores}{busy}: no verdict"

    def _timed(self) -> Iterator[str]:
        ran = [(lane.timed, lane.name) for lane in self.lanes if _races(lane)]
        return (f"{', '.join(names)}: {timed}" for timed, names in _grouped(ran))

    def _failures(self) -> Iterator[str]:
        return (f"{lane.name}: {reason(lane.error)}" for lane in self.lanes if lane.error)

    def note(self) -> str:
        """Small print for a plot."""
        missing = ", ".join(dict.fromkeys(lane.name for lane in self.lanes if lane.error))
        where = (
            f"one process: intervals widened by {100 * verdict.ALONE:g} %"
            if self.conditions.how != "workers"
            else f"{self.strata} processes each"
        )
        return (
            f"{text.plural(self.conditions.threads, 'thread')}, {where}"
            f"{', contended' if self.conditions.contended else ''}"
            f"{'' if self.trusted else ', untrusted'}"
            f"{', interrupted' if self.conditions.interrupted else ''}"
            f"{f'; did not run: {missing}' if missing else ''}"
        )

    def _record(self, lane: Lane) -> dict[str, Any]:
        ratio = self.control if lane.control else self.ratio(lane.name)
        copies = self.copies.get(lane.name)
        low, median, high = lane.quartiles if lane.ran else (None, None, None)
        peaks = [run.peak for run in lane.runs if run.peak]
        return {
            "contestant": lane.name,
            "threads": lane.threads,
            "panel": lane.panel or None,
            "processes": len(lane.runs),
            "load": lane.load if lane.ran else None,
            "first_call": lane.first if lane.ran else None,
            "peak_bytes": max(peaks, default=None),
            "lower_quartile": low,
            "median": median,
            "upper_quartile": high,
            **{
                f"p{percent}": lane.percentile(percent) if lane.ran else None
                for percent in (50, 90, 99)
            },
            "ratio": ratio and ratio.value,
            "ratio_low": ratio and ratio.low,
            "ratio_high": ratio and ratio.high,
            "verdict": ratio and ratio.verdict,
            "copies": copies and 1 - 1 / copies.value,
            "timed": lane.timed,
            "error": lane.error and reason(lane.error),
        }


def reason(error: Exception | None) -> str:
    """The class and what it says first, short enough for a table.

    >>> reason(RuntimeError("backend='inductor' raised:\\nCppCompileError: C++ compile error"))
    "RuntimeError: backend='inductor' raised: CppCompileError: C++ compile error"
    """
    first, *rest = str(error).strip().splitlines() or [""]
    said = " ".join([first, *rest[:1]]) if first.endswith(":") else first
    said = said if len(said) <= 80 else f"{said[:77]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _ran(lane: Lane) -> bool:
    return lane.ran


def _races(lane: Lane) -> bool:
    """It ran, and is no copy of another."""
    return lane.ran and not lane.control


def _said(name: str, rival: str, ratio: Ratio) -> str:
    if ratio.verdict in ("faster", "slower"):
        return f"{name} is {ratio.phrase.replace(' as fast ', f' as fast as {rival} ', 1)}"
    return f"{name} against {rival}: {ratio.phrase}"


def _labelled(label: str, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for index, line in enumerate(lines):
        yield ("" if index else label), line


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    """What belongs to the same words, each once, in the order of its first appearance."""
    groups: dict[Any, dict[Any, None]] = {}
    for words, item in pairs:
        groups.setdefault(words, {})[item] = None
    return [(words, list(items)) for words, items in groups.items()]


def _seconds(value: float) -> str:
    """Always as wide, whatever the digits, so that two runs align alike."""
    return f"{text.seconds(value):>7}"
