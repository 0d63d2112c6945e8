"""The result of a race: its table, its verdicts, its plot, and its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .. import figures, text
from ..contestant import Panel
from ..errors import InputError
from . import verdict
from .bench import BLOCK, WARM_CALLS, WARM_SECONDS
from .lane import Lane
from .verdict import Ratio, times

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

_HEADER = ("contestant", "batch", "p50", "p90", "p99", "first call", "ratio", "interval", "verdict")
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
        stopped: what ended the race.
        stratum: seconds that one stratum took.
        load: the machine's load average at the start, None where there is none.
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

    @property
    def contended(self) -> bool:
        """Several threads each, and fewer cores free than that when the race began.

        One thread needs no free core: the one that is taken away is missed by all alike.
        """
        return self.threads > 1 and self.threads + (self.load or 0.0) > self.cores + 0.5


@dataclass(frozen=True, repr=False)
class Race:
    """What was measured, and under which conditions; the repr is the report.

    >>> from onnx_workbench.racing.lane import Run
    >>> def lane(name, *blocks, **more):
    ...     return Lane(name, None, tuple(Run((block,) * 5) for block in blocks), "call", **more)
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
        return next(lane.name for lane in self.lanes if lane.ran)

    @property
    def batches(self) -> tuple[int | None, ...]:
        """The batch sizes in the order raced; ``(None,)`` where the inputs ran as passed."""
        return tuple(dict.fromkeys(lane.batch for lane in self.lanes))

    @property
    def panels(self) -> tuple[Panel, ...]:
        """``API`` and ``compute`` where both are in the race: they are never held together."""
        met = {lane.panel for lane in self.lanes if lane.ran and lane.panel}
        return tuple(panel for panel in _PANELS if panel in met)

    @property
    def strata(self) -> int:
        """How many times everybody was started anew."""
        return max(len(lane.runs) for lane in self.lanes)

    def lane(self, name: str, batch: int | None = None) -> Lane:
        """One contestant at one batch size.

        Raises:
            InputError: this contestant or batch size is not part of the race.
        """
        found = [lane for lane in self.lanes if (lane.name, lane.batch) == (name, batch)]
        if not found:
            names = ", ".join(dict.fromkeys(repr(lane.name) for lane in self.lanes))
            raise InputError(
                f"There is no contestant {name!r} at batch {batch} in this race. "
                f"It has {names} at batch {', '.join(map(str, self.batches))}."
            )
        return found[0]

    def ratio(self, name: str, batch: int | None = None) -> Ratio | None:
        """How many times as fast as the first contestant of its panel that ran.

        None for that one itself, and where one of the two did not run.
        """
        self.lane(name, batch)
        return self._ratios.get((name, batch))

    @cached_property
    def control(self) -> dict[int | None, Ratio]:
        """The baseline against its own second copy, by batch size: the race's check on itself."""
        copies = [lane for lane in self.lanes if lane.control and lane.ran]
        return {lane.batch: ratio for lane in copies for ratio in self._against([lane])}

    @property
    def trusted(self) -> bool:
        """False where the same contestant was found to differ from itself."""
        return not any(ratio.verdict in ("faster", "slower") for ratio in self.control.values())

    @property
    def finding(self) -> str:
        """One sentence per challenger, at the smallest and the largest batch size it ran."""
        names = dict.fromkeys(name for name, _ in self._ratios)
        return "\n".join(map(self._sentence, names)) or f"{self.baseline} raced alone"

    def records(self) -> list[dict[str, Any]]:
        """One flat dict per contestant and batch size. Times are in seconds per call, memory in
        bytes. What was not measured is None."""
        return [self._record(lane) for lane in self.lanes]

    def to_frame(self) -> Any:
        """The records as a ``pandas.DataFrame``, or as they are where pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            return self.records()
        return pandas.DataFrame(self.records())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Every block for one batch size, medians with a quartile band for a sweep."""
        ran = [lane for lane in self.lanes if lane.ran and not lane.control]
        if len({lane.batch for lane in ran}) == 1:
            at = "" if ran[0].batch is None else f" at batch {ran[0].batch}"
            blocks = {lane.name: lane.times.tolist() for lane in ran}
            return figures.blocks(blocks, title=self.finding, note=self._note(at), ax=ax)
        curves: dict[str, dict[int, Any]] = {lane.name: {} for lane in ran}
        for lane in ran:
            curves[lane.name][int(lane.batch or 0)] = lane.times.tolist()
        return figures.sweep(curves, title=self.finding, note=self._note(), ax=ax)

    def save(self, path: str | os.PathLike[str]) -> None:
        """The race as JSON, every block and its environment included."""
        from . import archive

        archive.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Race:
        """A race that :meth:`save` wrote.

        Raises:
            LoadError: the file is no race.
        """
        from . import archive

        return archive.load(path)

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
        return "\n".join([head, *tables, "", text.table(self._facts())])

    @cached_property
    def _ratios(self) -> dict[tuple[str, int | None], Ratio]:
        found = {}
        for batch in self.batches:
            at = [lane for lane in self.lanes if lane.batch == batch and lane.ran]
            lanes = [lane for lane in at if not lane.control]
            bar: Any = "contended" if self.conditions.contended else ""
            bar = bar or ("" if self.trusted else "untrusted")
            for lane, ratio in zip(lanes[1:], self._against(lanes[1:]), strict=True):
                if ratio:
                    found[lane.name, batch] = replace(ratio, bar=bar)
        return found

    def _against(self, lanes: list[Lane]) -> list[Any]:
        """The ratio of each lane, None for the first of its panel; Holm for each baseline."""
        firsts = {lane.name: self._first(lane) for lane in lanes}
        met: dict[str, Ratio] = {}
        for first in {id(one): one for one in firsts.values() if one}.values():
            rivals = [lane for lane in lanes if firsts[lane.name] is first]
            met |= verdict.ratios(first, rivals, self.conditions.matters, self.conditions.stratum)
        return [met.get(lane.name) for lane in lanes]

    def _first(self, lane: Lane) -> Lane | None:
        """The baseline of a lane: the first that ran at its size and counts for its panel."""
        for other in self.lanes:
            fits = not (other.panel and lane.panel) or other.panel == lane.panel
            if other.ran and not other.control and other.batch == lane.batch and fits:
                return None if other is lane else other
        return None

    def _table(self, panel: Panel) -> str:
        rows = [
            self._row(lane)
            for lane in self.lanes
            if not panel or not lane.panel or lane.panel == panel
        ]
        head = f"{_PANELS[panel]}\n" if panel else ""
        return head + text.table(rows, _HEADER, right=range(1, len(_HEADER) - 1))

    def _row(self, lane: Lane) -> tuple[str, ...]:
        name, batch = lane.name, "-" if lane.batch is None else str(lane.batch)
        if not lane.ran:
            return name, batch, *"------", "did not run"
        spread = [_seconds(lane.percentile(percent)) for percent in (50, 90, 99)]
        measured = (name, batch, *spread, _seconds(lane.first))
        ratio = self.control.get(lane.batch) if lane.control else self.ratio(lane.name, lane.batch)
        if ratio is None:
            return (*measured, "", f"{'':14}", f"{'':9}")
        span = f"{times(ratio.low):>5} to {times(ratio.high):>5}"
        return (*measured, f"{times(ratio.value):>5}", span, f"{ratio.verdict:9}")

    def _facts(self) -> Iterator[tuple[str, str]]:
        at = self.conditions
        yield from _labelled("did not run", self._failures())
        yield from _labelled("timed", self._timed())
        yield "clock", f"wall time less the {self._queued()} in which other processes had the core"
        yield "ratio", f"{self.baseline} / contestant within a round; {self._interval()}"
        yield (
            "verdict",
            (
                f"faster, slower: 1 outside the interval (Holm), more than {100 * at.matters:g} % "
                f"apart; same: all of it within {100 * at.matters:g} %"
            ),
        )
        yield "control", self._check()
        yield from _labelled("threads", self._threads())
        yield "rounds", self._rounds()
        yield "stopped", at.stopped
        yield (
            "warm-up",
            f"{WARM_CALLS} calls or {1e3 * WARM_SECONDS:.0f} ms, whichever comes first; "
            "the first call is kept apart",
        )
        yield "machine", ", ".join([text.plural(at.cores, "core"), *at.environment.values()])
        yield from _labelled("doubt", self._doubts())

    def _queued(self) -> str:
        runs = [run for lane in self.lanes for run in lane.runs]
        share = sum(sum(run.queued) for run in runs) / sum(sum(run.blocks) for run in runs)
        return f"{100 * share:.1f} %"

    def _interval(self) -> str:
        if self.conditions.how == "workers":
            return f"95 % interval over {self.strata} strata of fresh processes"
        return f"95 % interval over rounds, widened by {100 * verdict.ALONE:g} %"

    def _check(self) -> str:
        if not self.control:
            return "none"
        said = [
            f"{times(ratio.value)}{'' if batch is None else f' at batch {batch}'}"
            for batch, ratio in self.control.items()
        ]
        agrees = "as it must be" if self.trusted else "UNTRUSTED: it differs from itself"
        return f"{self.baseline} against its own copy: {', '.join(said)}, {agrees}"

    def _threads(self) -> Iterator[str]:
        ran = [(lane.threads, lane.name) for lane in self.lanes if lane.ran and not lane.control]
        for threads, names in _grouped(ran):
            asked = f"{self.conditions.threads} asked"
            yield f"{', '.join(names)}: {threads if threads else asked}, " + (
                "as read back" if threads else "nothing to read back"
            )

    def _rounds(self) -> str:
        counts = [min(len(run.blocks) for run in lane.runs) for lane in self.lanes if lane.ran]
        idle = "idle workers frozen" if self.conditions.freezes else "idle workers wait unfrozen"
        where = f"{self.strata} strata, {idle}" if self.conditions.how == "workers" else "1 process"
        return (
            f"{text.plural(min(counts), 'round')} of blocks of about {1e3 * BLOCK:.0f} ms in each "
            f"of {where}, in fresh random order (seed {self.conditions.seed})"
        )

    def _doubts(self) -> Iterator[str]:
        at = self.conditions
        if at.how != "workers":
            yield f"one process for all{at.why and ': '}{at.why}: a percent or two is chance"
            if at.threads > 1:
                yield "pools of threads in one process disturb each other"
        if at.contended:
            busy = "" if at.load is None else f", which had a load of {at.load:.1f} before"
            cores = text.plural(at.cores, "core")
            yield f"contended: {at.threads} threads on {cores}{busy}: no verdict"

    def _timed(self) -> Iterator[str]:
        ran = [(lane.timed, lane.name) for lane in self.lanes if lane.ran and not lane.control]
        return (f"{', '.join(names)}: {timed}" for timed, names in _grouped(ran))

    def _failures(self) -> Iterator[str]:
        failed = [(lane, f"{lane.name}: {reason(lane.error)}") for lane in self.lanes if lane.error]
        for said, at in _grouped((said, lane.batch) for lane, said in failed):
            yield said if at == [None] else f"{said} (batch {', '.join(map(str, at))})"

    def _sentence(self, name: str) -> str:
        met = [(b, self._ratios[name, b]) for b in self.batches if (name, b) in self._ratios]
        first = self._first(self.lane(name, met[0][0]))
        rival = first.name if first else self.baseline
        ends = met[:1] + met[1:][-1:]
        (batch, ratio), (last, other) = ends[0], ends[-1]
        said = _said(name, rival, ratio)
        if batch is None:
            return said
        if len(ends) == 1:
            return f"{said} at batch {batch}"
        if ratio.phrase == other.phrase:
            return f"{said} at batch {batch} and {last}"
        return f"{said} at batch {batch}; {_said('', '', other)} at batch {last}"

    def _note(self, at: str = "") -> str:
        missing = ", ".join(dict.fromkeys(lane.name for lane in self.lanes if lane.error))
        where = (
            "one process" if self.conditions.how != "workers" else f"{self.strata} processes each"
        )
        return (
            f"{text.plural(self.conditions.threads, 'thread')}{at}, {where}"
            f"{', contended' if self.conditions.contended else ''}"
            f"{'' if self.trusted else ', untrusted'}"
            f"{', interrupted' if self.conditions.interrupted else ''}"
            f"{f'; did not run: {missing}' if missing else ''}"
        )

    def _record(self, lane: Lane) -> dict[str, Any]:
        ratio = self.control.get(lane.batch) if lane.control else self.ratio(lane.name, lane.batch)
        low, median, high = lane.quartiles if lane.ran else (None, None, None)
        peaks = [run.peak for run in lane.runs if run.peak]
        return {
            "contestant": lane.name,
            "batch": lane.batch,
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
            "timed": lane.timed,
            "error": lane.error and reason(lane.error),
        }


def reason(error: Exception | None) -> str:
    """The class and the first line of what it says, short enough for a table."""
    said = next(iter(str(error).strip().splitlines()), "")
    said = said if len(said) <= 80 else f"{said[:77]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _said(name: str, rival: str, ratio: Ratio) -> str:
    if ratio.verdict in ("faster", "slower"):
        than = f" as {rival}" if rival else ""
        words = ratio.phrase.replace(" as fast ", f" as fast{than} ", 1)
        return f"{name} is {words}" if name else words
    return f"{name} against {rival}: {ratio.phrase}" if name else ratio.phrase


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
