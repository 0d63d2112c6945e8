"""The result of a race: its table, its verdicts and its plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from .. import formatting, plots
from ..calls import Mode
from ..errors import InputError
from ..formatting import Fold, Part, Report, Table, ToFrame, plural
from . import statistics
from .bench import BLOCK, WARM_CALLS
from .results import Conditions, Result, Saved
from .statistics import Ratio, times

HEADER = ("target", "median", "p90", "p99", "ratio", "interval", "verdict")
_STARTUP = ("target", "import", "load", "first call", "memory")
_MODES: dict[Mode, str] = {
    "API": "API: a call takes and returns the user's own objects",
    "compute": "compute: buffers bound once and reused",
}


@dataclass(frozen=True, repr=False)
class Race(Saved, Report, ToFrame):
    """The results of a race and its conditions; the repr is the report.

    >>> from onnx_workbench.timing.results import Replicate
    >>> def result(name, *blocks, **more):
    ...     return Result(name, tuple(Replicate((block,) * 5) for block in blocks), **more)
    >>> race = Race((result("eager", 4000, 4040), result("eager again", 4020, 4020, control=True),
    ...              result("fast", 2000, 2000)))
    >>> print(race.finding)
    fast is 2.01x as fast as eager (95 % interval 1.95 to 2.07)
    >>> race.trusted
    True
    """

    results: tuple[Result, ...]
    conditions: Conditions = field(default_factory=Conditions)

    @property
    def baseline(self) -> str:
        """The first target that ran."""
        return (self._ran or self.results)[0].name

    @property
    def replicates(self) -> int:
        """How many times every target was started."""
        return max(len(one.replicates) for one in self.results)

    def result(self, name: str) -> Result:
        """The result of one target.

        Raises:
            InputError: it is not part of the race.
        """
        results = {one.name: one for one in self.results}
        if name not in results:
            names = ", ".join(map(repr, results))
            raise InputError(f"There is no target {name!r} in this race.", f"Pass one of {names}.")
        return results[name]

    def ratio(self, name: str) -> Ratio | None:
        """How many times as fast as the first target of its timing mode that ran, or as the mean of
        that and its copy.

        None for that first target, or if one of the two did not run.
        """
        return self._ratios.get(self.result(name).name)

    @cached_property
    def control(self) -> Ratio | None:
        """The baseline against its own copy: the race's check on itself."""
        if not self._control_result:
            return None
        pair = self.results[0].rounds, {"": self._control_result.rounds}
        return statistics.ratios(*pair, self.conditions.matters)[""]

    @property
    def trusted(self) -> bool:
        """False if the baseline differs from its own copy."""
        return not (self.control and self.control.verdict in ("faster", "slower"))

    @cached_property
    def copies(self) -> dict[str, Ratio]:
        """How many times as fast a call with IOBinding is as the same call with copies, if both are
        in the race. The share of the copies is 1 - 1 / ratio."""
        ratios: dict[str, Ratio] = {}
        for one in self._ran:
            if one.unbound and (plain := self.result(one.unbound)).ran:
                pair = plain.rounds, {one.name: one.rounds}
                ratios |= statistics.ratios(*pair, self.conditions.matters)
        return ratios

    @property
    def finding(self) -> str:
        """One sentence for each target but the baseline."""
        return "\n".join(map(self._sentence, self._ratios)) or f"{self.baseline} raced alone"

    def records(self) -> list[dict[str, Any]]:
        """One flat dict for each target. Times are in seconds per call, memory in bytes; None if
        not measured. The median and the quartiles are over blocks, p50 to p99 over single calls."""
        return list(map(self._record, self.results))

    def plot(
        self,
        what: Literal["times", "ratios", "startup", "copies"] = "times",
        ax: plots.Axes | None = None,
    ) -> plots.Axes:
        """Plot the race.

        Args:
            what: every block of every target; the ratios with their intervals; the time before the
                first answer; or the part of a call that :attr:`copies` take, if a file races with
                and without IOBinding.
            ax: where to draw; a new figure by default.

        Raises:
            InputError: there is no such plot of this race.
        """
        look: Any = {"note": self.note(), "ax": ax}
        if what == "times":
            ran = {one.name: one.times.tolist() for one in self._ran}
            words = {name: times(one.value) for name, one in self._ratios.items()}
            return plots.blocks(ran, words, title=self._title(), **look)
        if what == "ratios" and self._ratios:
            spans = {name: (one.low, one.value, one.high) for name, one in self._ratios.items()}
            return plots.ratios(spans, self.conditions.matters, title=self._title(), **look)
        if what == "startup" and self.conditions.workers:
            parts = {one.name: one.startup for one in self._ran}
            return plots.stacked(parts, title=self._first_answers(), **look)
        if what == "copies" and self.copies:
            parts = {}
            for name, ratio in self.copies.items():
                call = self.result(self.result(name).unbound)
                work = call.median / max(ratio.value, 1.0)
                parts[call.name] = {"compute": work, "copies": call.median - work}
            title = "\n".join(self._copied())
            return plots.stacked(parts, over="time per call, median", title=title, **look)
        raise InputError(
            f"There is no plot {what!r} of this race.",
            "Pass 'times'; 'ratios' if two or more raced; 'startup' if they raced in fresh "
            "processes; or 'copies' if a file raced with and without .using(bound=True).",
        )

    def since(self, earlier: Race) -> dict[str, Ratio]:
        """How many times as fast each target is now as in an earlier race, by name.

        The two races have different processes, so the interval is Welch's.

        Raises:
            InputError: the races ran in different environments; the message says what differs.
        """
        one, other = self._where(), earlier._where()
        apart = [key for key in one | other if one.get(key) != other.get(key)]
        if apart:
            diff = "; ".join(f"{key}: {one.get(key)} now, {other.get(key)} then" for key in apart)
            raise InputError(
                f"The two races ran in different environments ({diff}), so their times cannot be "
                "compared.",
                "Race both in one environment, or in one race.",
            )
        if min(self.replicates, earlier.replicates) < 2:
            raise InputError(
                "One of the races has a single process for each target, which gives no interval.",
                "Race again without quick=True.",
            )
        then = {one.name: one for one in earlier._ran}
        return {
            one.name: statistics.welch(then[one.name].rounds, one.rounds, self.conditions.matters)
            for one in self._ran
            if one.name in then
        }

    def _parts(self) -> Iterator[Part]:
        at = self.conditions
        if at.took > 1.5 * at.seconds and at.workers:
            took = f"{at.took:.0f} s instead of {at.seconds:g} s"
            yield f"It took {took}: a race has at least two replicates"
        state = ", interrupted: the results until then" * at.interrupted
        yield f"Race against {self.baseline}{state}"
        both = {one.started.mode for one in self._ran} >= _MODES.keys()
        modes: dict[Mode, str] = _MODES if both else {"": ""}
        for mode, words in modes.items():
            if words:
                yield words
            rows = [self.row(one) for one in self.results if _comparable(one.started.mode, mode)]
            yield Table(rows, HEADER, right=range(1, len(HEADER) - 1))
        if at.workers:
            rows = [self._startup(one) for one in self.results if one.ran]
            yield Fold("Until the first answer", ["", Table(rows, _STARTUP, right=(1, 2, 3, 4))])
        yield self.provenance()

    @property
    def _ran(self) -> list[Result]:
        """The targets that ran, without the copy."""
        return [one for one in self.results if one.ran and not one.control]

    @property
    def _control_result(self) -> Result | None:
        """The result of the baseline's copy, if both ran."""
        ran = (one for one in self.results if one.ran and self.results[0].ran)
        return next((one for one in ran if one.control), None)

    @cached_property
    def _ratios(self) -> dict[str, Ratio]:
        """The ratio of each target to its baseline, with Holm's correction per timing mode."""
        doubted = "" if self.trusted else "untrusted"
        bar: Any = "contended" if self.conditions.contended else doubted
        found: dict[str, Ratio] = {}
        for first in self._ran:
            baseline = first.rounds
            if self._control_result and first is self.results[0]:
                both = zip(first.rounds, self._control_result.rounds, strict=True)
                baseline = [*map(np.stack, both)]
            rivals = [one for one in self._ran if one is not first and self._first(one) is first]
            rounds = {one.name: one.rounds for one in rivals}
            found |= statistics.ratios(baseline, rounds, self.conditions.matters)
        return {
            one.name: replace(found[one.name], bar=bar) for one in self._ran if one.name in found
        }

    def _first(self, result: Result) -> Result:
        """The baseline of a result: the first target of its timing mode that ran."""
        mode = result.started.mode
        return next(one for one in self._ran if _comparable(one.started.mode, mode))

    def _sentence(self, name: str) -> str:
        return self._ratios[name].sentence(name, self._first(self.result(name)).name)

    def _record(self, result: Result) -> dict[str, Any]:
        ratio = self.control if result.control else self.ratio(result.name)
        ran, workers, copies = result.ran, self.conditions.workers, self.copies.get(result.name)
        start = result.startup if ran else {}
        low, median, high = result.quartiles if ran else (None, None, None)
        return {
            "target": result.name,
            "threads": result.started.threads,
            "mode": result.started.mode or None,
            "replicates": len(result.replicates),
            "import": start.get("import") if workers else None,
            **{"load": start.get("load"), "first_call": start.get("first call")},
            "peak_bytes": result.peak if workers else None,
            **{"lower_quartile": low, "median": median, "upper_quartile": high},
            **{f"p{p}": result.percentile(p) if ran else None for p in (50, 90, 99)},
            "ratio": ratio and ratio.value,
            **{f"ratio_{end}": ratio and getattr(ratio, end) for end in ("low", "high")},
            "verdict": ratio and ratio.verdict,
            "copies": copies and 1 - 1 / copies.value,
            "timed": result.started.timed,
            "error": result.error or None,
        }

    def row(self, result: Result) -> tuple[str, ...]:
        """One line of the table, in the order of its header."""
        if not result.ran:
            return result.name, *"-" * (len(HEADER) - 2), "did not run"
        record = self._record(result)
        cells = [f"{formatting.seconds(record[key]):>7}" for key in ("median", "p90", "p99")]
        ratio = span = ""
        if record["ratio"]:
            ratio = f"{times(record['ratio']):>5}"
            span = f"{times(record['ratio_low']):>5} to {times(record['ratio_high']):>5}"
        verdict = record["verdict"] or ""
        return (result.name, *cells, ratio, f"{span:14}", f"{verdict:9}")

    def _startup(self, result: Result) -> tuple[str, ...]:
        record = self._record(result)
        seconds = (record[key] for key in ("import", "load", "first_call"))
        cells = ("" if one is None else f"{formatting.seconds(one):>7}" for one in seconds)
        memory = formatting.size(record["peak_bytes"]) if record["peak_bytes"] else ""
        return (result.name, *cells, f"{memory:>7}")

    def provenance(self) -> Fold:
        """How the race was measured, as rows of label and text."""
        return Fold("How it was measured", ["", Table(self._facts())])

    def _facts(self) -> list[tuple[str, str]]:
        at, started = self.conditions, [(one.name, one.started) for one in self._ran]
        matters = f"{100 * at.matters:g} %"
        over = f"rounds, widened by {100 * statistics.ONE_PROCESS:g} %"
        if at.workers:
            over = f"{plural(self.replicates, 'replicate')} of fresh processes"
        agrees = "no difference found" if self.trusted else "UNTRUSTED: it differs from itself"
        firsts = dict.fromkeys(self._first(self.result(name)).name for name in self._ratios)
        divided = {name: name for name in firsts}
        if self._control_result:
            divided[self.baseline] = f"(mean of {self.baseline} and its copy)"
        control = self.control and times(self.control.value)
        rows: dict[str, Iterable[str]] = {
            "did not run": [f"{one.name}: {one.error}" for one in self.results if one.error],
            "timed": _grouped((one.timed, name) for name, one in started),
            "clock": [self._clock()],
            "startup": [
                "import: torch or onnxruntime; load: data, session, compilation; memory: the peak "
                "until it was warm, Python included"
            ]
            * at.workers,
            "calls": ["median, ratio: the rounds; p90, p99: single calls, timed after the rounds"]
            * any(run.laps for one in self.results for run in one.replicates),
            "ratio": [
                f"{one} / target within a round; 95 % interval over {over}"
                for one in divided.values()
            ],
            "verdict": [
                f"faster, slower: the interval{' (Holm)' * at.workers} excludes 1, ratio over "
                f"{matters} from 1; same: the whole interval within {matters}; else undecided"
            ],
            "control": [
                f"{self.baseline} against its own copy: {control}, {agrees}" if control else "none"
            ],
            "copies": self._copied(),
            "threads": _grouped(
                (f"{one.threads}, as reported" if one.threads else f"{at.threads} asked", name)
                for name, one in started
            ),
            "rounds": [self._rounds()],
            "stopped": [at.stopped],
            "machine": [", ".join([plural(at.cores, "core"), *at.environment.values()])],
            "doubt": self._doubts(),
        }
        return [
            (label * (not index), line)
            for label, lines in rows.items()
            for index, line in enumerate(lines)
        ]

    def note(self) -> str:
        """Small print for a plot."""
        at = self.conditions
        where = f"one process: intervals widened by {100 * statistics.ONE_PROCESS:g} %"
        if at.workers:
            where = f"{self.replicates} processes each"
        missing = ", ".join(one.name for one in self.results if one.error)
        return (
            f"{plural(at.threads, 'thread')}, {where}{', contended' * at.contended}"
            f"{', untrusted' * (not self.trusted)}{', interrupted' * at.interrupted}"
            f"{f'; did not run: {missing}' if missing else ''}"
        )

    def _clock(self) -> str:
        runs = [run for one in self.results for run in one.replicates]
        if not (queued := sum(sum(run.queued) for run in runs)):
            return "wall time"
        share = 100 * queued / sum(sum(run.blocks) for run in runs)
        whose = " of the calling thread" * (self.conditions.threads > 1)
        return f"wall time less the {share:.1f} % in which other processes had the core{whose}"

    def _title(self) -> str:
        """The finding in a sentence or two, whatever the number of targets."""
        if len(self._ratios) < 3:
            return self.finding
        best = max(self._ratios, key=lambda name: self._ratios[name].value)
        first = self._first(self.result(best)).name
        counts = Counter(one.verdict for one in self._ratios.values()).most_common()
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts)
        among = f"of {plural(len(self._ratios), 'target')} against {first}: {verdicts}"
        return f"{self._sentence(best)}\n{among}"

    def _first_answers(self) -> str:
        answers = [(sum(one.startup.values()), one) for one in self._ran]
        words = (
            f"{one.name} after {formatting.seconds(seconds)}"
            + (f" and with {formatting.size(one.peak)}" if one.peak else "")
            for seconds, one in sorted(answers, key=lambda answer: answer[0])
        )
        return f"first answer: {'; '.join(words)}"

    def _copied(self) -> Iterator[str]:
        for name, ratio in self.copies.items():
            share, low, high = (100 * (1 - 1 / one) for one in (ratio.value, ratio.low, ratio.high))
            part = f"{share:.0f} % of {self.result(name).unbound}"
            yield f"{part} (95 % interval {low:.0f} to {high:.0f}) is what {name} leaves out"

    def _rounds(self) -> str:
        rounds = min((len(run.blocks) for one in self.results for run in one.replicates), default=0)
        where = "in one process"
        if self.conditions.workers:
            where = f"in each of {self.replicates} replicates"
            where += ", on one core" * self.conditions.one_core
        return (
            f"{plural(rounds, 'round')} of blocks of about {1e3 * BLOCK:.0f} ms {where}, in fresh "
            f"random order (seed {self.conditions.seed}), after {WARM_CALLS} calls or fewer to "
            "warm up"
        )

    def _doubts(self) -> Iterator[str]:
        at = self.conditions
        if not at.workers:
            why = f", because {at.why}" * bool(at.why)
            yield f"all targets ran in one process{why}: differences of 1-2 % are noise"
            if at.threads > 1:
                yield "thread pools in one process disturb each other"
        if at.contended:
            busy = f", of which other processes kept {at.load:.1f} busy" if at.load else ""
            yield f"contended: {at.threads} threads on {plural(at.cores, 'core')}{busy}: no verdict"

    def _where(self) -> dict[str, Any]:
        at = self.conditions
        settings = {"cores": at.cores, "threads": at.threads, "one core": at.one_core}
        return {**at.environment, **settings, "fresh processes": at.workers}


def _comparable(one: Mode, other: Mode) -> bool:
    """Whether two timing modes are in one table. Without a mode, a call is in each."""
    return not one or not other or one == other


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each text, with the names of the targets that share it."""
    groups: dict[str, list[str]] = {}
    for words, name in pairs:
        groups.setdefault(words, []).append(name)
    return [f"{', '.join(names)}: {words}" for words, names in groups.items()]
