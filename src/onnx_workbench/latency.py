"""How long do callables take, raced side by side under the same conditions?

The protocol removes what misleads most benchmarks of this field. Runs one after the other drift
apart on a shared machine, so contestants are interleaved: in every round each runs one short block,
in fresh random order, and ratios are taken within a round. Thread budgets are equal and read back.
The first call is kept apart. What one call covers is said for each contestant.

What it does not do: replicate. One process and one instance of each contestant race, and between
fresh processes the same contestant differs by a percent or two.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from . import figures, text
from .errors import InputError, TrainingModeWarning
from .track import (
    BLOCK,
    SETTLE,
    WARM_CALLS,
    WARM_SHARE,
    Lane,
    Runner,
    eval_mode,
    heat,
    quartiles_of,
    thread_budget,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISTRIBUTIONS = ("torch", "onnxruntime", "numpy")
_HEADER = (
    *("contestant", "batch", "median", "quartiles", "first call"),
    *("ratio", "quartiles", "verdict"),
)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the first contestant: quartiles over the rounds that both ran.

    ``matters`` is the least difference that counts, as a fraction.

    >>> Ratio(1.31, 1.38, 1.44, matters=0.03).verdict
    'faster'
    >>> Ratio(0.99, 1.00, 1.01, matters=0.03).phrase
    'no difference that matters (within 3 %)'
    """

    low: float
    median: float
    high: float
    matters: float
    contended: bool = False

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` where both quartiles clear the least difference that matters,
        ``same`` where both stay inside it, else ``undecided``; ``contended`` where the threads
        had to share cores, which slows one runtime more than another."""
        if self.contended:
            return "contended"
        least = 1 + self.matters
        if self.low > least:
            return "faster"
        if self.high < 1 / least:
            return "slower"
        return "same" if self.low >= 1 / least and self.high <= least else "undecided"

    @property
    def phrase(self) -> str:
        """The verdict in words, with its number where it has one."""
        return {
            "same": f"no difference that matters (within {_percent(self.matters)})",
            "undecided": "undecided",
            "contended": "no verdict, the cores were contended",
        }.get(self.verdict, f"{_times(self.median)} as fast")


@dataclass(frozen=True)
class Race:
    """What was measured, and under which conditions; the repr is the report.

    >>> Race((Lane("eager", None, (400, 420, 410), 10, first=2e-6, warmup=50, timed="call"),
    ...       Lane("fast", None, (200, 210, 205), 10, first=1e-6, warmup=50, timed="call"),
    ...       Lane("compiled", None, error=RuntimeError("no compiler"))),
    ...      machine="a laptop")
    Race against eager
    contestant  batch   median           quartiles  first call  ratio       quartiles  verdict
    ----------  -----  -------  ------------------  ----------  -----  --------------  -----------
    eager           -  41.0 ns  40.5 ns to 41.5 ns     2.00 us
    fast            -  20.5 ns  20.2 ns to 20.8 ns     1.00 us  2.00x  2.00x to 2.00x  faster
    compiled        -        -                   -           -      -               -  did not run
    <BLANKLINE>
    did not run  compiled: RuntimeError: no compiler
    timed        eager, fast: call
    ratio        eager / contestant within a round; quartiles over rounds, not over instances
    verdict      faster, slower: both quartiles clear 3 %; same: both within 3 %
    threads      1 each, as torch reads back
    rounds       3 rounds, each in fresh random order (seed 0)
    blocks       about 4 ms each, one call discarded before it, garbage collector off
    warm-up      50 calls or 400 ms, whichever comes first; the first call is kept apart
    machine      1 core, a laptop
    doubt        one process, one instance each: not replicated, a percent or two is chance
    """

    lanes: tuple[Lane, ...]
    threads: int = 1
    cores: int = 1
    load: float | None = None
    seconds: float = 2.0
    matters: float = 0.03
    seed: int = 0
    machine: str = ""
    interrupted: bool = False

    @property
    def baseline(self) -> str:
        """The first contestant that ran; every ratio is taken against it."""
        return next(lane.name for lane in self.lanes if lane.ran)

    @property
    def batches(self) -> tuple[int | None, ...]:
        """The batch sizes in the order raced; ``(None,)`` where the inputs ran as passed."""
        return tuple(dict.fromkeys(lane.batch for lane in self.lanes))

    @property
    def contended(self) -> bool:
        """Several threads each, and fewer cores free than that when the race began.

        One thread needs no free core: the one that is taken away is missed by every contestant
        alike. ``load`` is the machine's load average at the start, None where there is none.
        """
        return self.threads > 1 and self.threads + (self.load or 0.0) > self.cores + 0.5

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
        """How many times as fast as the baseline, or None where one of the two did not run."""
        first, lane = self.lane(self.baseline, batch), self.lane(name, batch)
        if not (first.ran and lane.ran):
            return None
        paired = zip(
            first.times, lane.times, strict=False
        )  # Ctrl-C may leave one without the other
        quartiles = quartiles_of([one / other for one, other in paired])
        return Ratio(*quartiles, matters=self.matters, contended=self.contended)

    @property
    def finding(self) -> str:
        """One sentence per challenger, at the smallest and the largest batch size it ran.

        >>> Race((Lane("eager", None, (400,)), Lane("fast", None, (200,)))).finding
        'fast against eager: 2.00x as fast'
        """
        names = dict.fromkeys(lane.name for lane in self.lanes if lane.ran)
        sentences = [self._sentence(name) for name in names if name != self.baseline]
        return "\n".join(sentences) or f"{self.baseline} raced alone"

    def records(self) -> list[dict[str, Any]]:
        """One flat dict per contestant and batch size, for ``pandas.DataFrame`` or ``csv``.

        Times are in seconds per call. What was not measured is None.
        """
        return [self._record(lane) for lane in self.lanes]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Every block for one batch size, medians with a quartile band for a sweep."""
        ran = [lane for lane in self.lanes if lane.ran]
        if len({lane.batch for lane in ran}) == 1:
            at = "" if ran[0].batch is None else f" at batch {ran[0].batch}"
            times = {lane.name: lane.times for lane in ran}
            return figures.blocks(times, title=self.finding, note=self._note(at), ax=ax)
        curves: dict[str, dict[int, Sequence[float]]] = {lane.name: {} for lane in ran}
        for lane in ran:
            curves[lane.name][int(lane.batch or 0)] = lane.times
        return figures.sweep(curves, title=self.finding, note=self._note(), ax=ax)

    def __repr__(self) -> str:
        state = ", interrupted: what was measured until then" if self.interrupted else ""
        rows = [self._row(lane) for lane in self.lanes]
        table = text.table(rows, _HEADER, right=range(1, len(_HEADER) - 1))
        return f"Race against {self.baseline}{state}\n{table}\n\n{text.table(self._facts())}"

    def _row(self, lane: Lane) -> tuple[str, ...]:
        name, batch = lane.name, "-" if lane.batch is None else str(lane.batch)
        if not lane.ran:
            return name, batch, *"-----", "did not run"
        low, median, high = map(_seconds, lane.quartiles)
        measured = (name, batch, median, f"{low} to {high}", _seconds(lane.first))
        ratio = None if name == self.baseline else self.ratio(name, lane.batch)
        if ratio is None:
            return (*measured, "", f"{'':14}", f"{'':9}")
        span = f"{_times(ratio.low):>5} to {_times(ratio.high):>5}"
        return (*measured, f"{_times(ratio.median):>5}", span, f"{ratio.verdict:9}")

    def _facts(self) -> Iterator[tuple[str, str]]:
        least = _percent(self.matters)
        yield from _labelled("did not run", self._failures())
        yield from _labelled("timed", self._timed())
        yield (
            "ratio",
            f"{self.baseline} / contestant within a round; "
            "quartiles over rounds, not over instances",
        )
        yield "verdict", f"faster, slower: both quartiles clear {least}; same: both within {least}"
        yield "threads", f"{self.threads} each, as torch reads back"
        yield "rounds", f"{self._rounds()}, each in fresh random order (seed {self.seed})"
        yield (
            "blocks",
            f"about {1e3 * BLOCK:.0f} ms each, one call discarded before it, "
            f"garbage collector off{_rest(self.threads)}",
        )
        yield (
            "warm-up",
            f"{WARM_CALLS} calls or {1e3 * self.seconds * WARM_SHARE:.0f} ms, "
            "whichever comes first; the first call is kept apart",
        )
        yield "machine", f"{text.plural(self.cores, 'core')}, {self.machine}"
        yield from _labelled("doubt", self._doubts())

    def _doubts(self) -> Iterator[str]:
        yield "one process, one instance each: not replicated, a percent or two is chance"
        if self.threads > 1:
            yield "pools of threads in one process disturb each other: 1 thread is the fairer race"
        if self.contended:
            busy = "" if self.load is None else f", which had a load of {self.load:.1f} before"
            cores = text.plural(self.cores, "core")
            yield f"contended: {self.threads} threads on {cores}{busy}: no verdict"

    def _rounds(self) -> str:
        counts = [len(lane.blocks) for lane in self.lanes if lane.ran]
        more = " or more at each batch size" if len(self.batches) > 1 else ""
        return text.plural(min(counts), "round") + more

    def _timed(self) -> Iterator[str]:
        ran = [(lane.timed, lane.name) for lane in self.lanes if lane.ran]
        return (f"{', '.join(names)}: {timed}" for timed, names in _grouped(ran))

    def _failures(self) -> Iterator[str]:
        failed = [
            (lane, f"{lane.name}: {_reason(lane.error)}") for lane in self.lanes if lane.error
        ]
        for said, at in _grouped((said, lane.batch) for lane, said in failed):
            yield said if at == [None] else f"{said} (batch {', '.join(map(str, at))})"

    def _sentence(self, name: str) -> str:
        ratios = {batch: self.ratio(name, batch) for batch in self.batches}
        met = [(ratio.phrase, batch) for batch, ratio in ratios.items() if ratio]
        if not met:
            return f"{name} and {self.baseline} never ran side by side"
        (phrase, sizes), *later = _grouped(met[:1] + met[1:][-1:])
        at = "" if sizes == [None] else f" at batch {' and '.join(map(str, sizes))}"
        rest = (f", {other.removesuffix(' as fast')} at {size}" for other, (size,) in later)
        return f"{name} against {self.baseline}: {phrase}{at}{''.join(rest)}"

    def _note(self, at: str = "") -> str:
        missing = ", ".join(dict.fromkeys(lane.name for lane in self.lanes if lane.error))
        return (
            f"{text.plural(self.threads, 'thread')}{at}, one process, one instance each"
            f"{', contended' if self.contended else ''}"
            f"{', interrupted' if self.interrupted else ''}"
            f"{f'; did not run: {missing}' if missing else ''}"
        )

    def _record(self, lane: Lane) -> dict[str, Any]:
        ratio = self.ratio(lane.name, lane.batch)
        low, median, high = lane.quartiles if lane.ran else (None, None, None)
        return {
            "contestant": lane.name,
            "batch": lane.batch,
            "threads": self.threads,
            "rounds": len(lane.blocks),
            "calls_per_block": lane.calls,
            "first_call": lane.first if lane.ran else None,
            "lower_quartile": low,
            "median": median,
            "upper_quartile": high,
            "ratio": ratio and ratio.median,
            "ratio_lower_quartile": ratio and ratio.low,
            "ratio_upper_quartile": ratio and ratio.high,
            "verdict": ratio and ratio.verdict,
            "timed": lane.timed,
            "error": lane.error and _reason(lane.error),
        }


def race(
    contestants: Mapping[str, Callable[..., object]],
    *args: Any,
    batch: int | Iterable[int] | None = None,
    threads: int = 1,
    seconds: float = 2.0,
    matters: float = 0.03,
    seed: int = 0,
    **kwargs: Any,
) -> Race:
    """Race callables on the same inputs; the first is the one that the others are compared to.

    A contestant that offers ``prepare(*args, threads=, **kwargs)``, as an Artifact does, says
    itself what is timed (:class:`~onnx_workbench.contestant.Prepared`). Every other is timed as
    ``fn(*args, **kwargs)`` under ``torch.inference_mode``. Models in training mode are raced in
    eval mode and put back, as is torch's number of threads.

    A contestant that fails stays in the table as "did not run" with its reason, and the others
    race on. Ctrl-C returns what was measured until then, marked as interrupted.

    Args:
        contestants: name -> callable.
        args, kwargs: the inputs of every contestant; tensors live on the CPU.
        batch: one batch size, or several for a sweep: dimension 0 of every tensor is brought to
            each size by repeating or cutting rows. None races the inputs as passed.
        threads: intra-op threads of every contestant.
        seconds: how long the rounds of one batch size may take; compiling and warming up (a fifth
            of it at most for each contestant) come on top, and five rounds are run whatever they
            take. 0.3 is quick enough behind a slider.
        matters: the least difference that counts, as a fraction.
        seed: of the order within the rounds.

    Raises:
        InputError: nothing to race, something that cannot be called, a size or budget that is not
            positive, tensors that are not on the CPU, or no contestant that runs.

    >>> relu = race({"eager": torch.relu, "clamp": lambda x: x.clamp(min=0)},
    ...             torch.ones(4, 8), batch=(1, 16), seconds=0.02)
    >>> relu.batches, relu.baseline, relu.lane("clamp", 16).error
    ((1, 16), 'eager', None)
    """
    _check(contestants, args, kwargs, threads, seconds)
    sizes = _sizes(batch, args, kwargs)
    if training := _training(contestants):
        warnings.warn(
            f"{', '.join(training)} in training mode: raced in eval mode, put back afterwards.",
            TrainingModeWarning,
            stacklevel=2,
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # Windows has none
    rng, runners, interrupted = random.Random(seed), list[Runner](), False
    with eval_mode(contestants), thread_budget(threads) as granted:
        try:
            for size in sizes:
                inputs = _resized(size, args, kwargs)
                group = [Runner(name, fn, size, *inputs) for name, fn in contestants.items()]
                runners += group
                heat(group, threads, seconds, rng)
        except KeyboardInterrupt:
            if not any(runner.blocks for runner in runners):
                raise
            interrupted = True
    lanes = tuple(runner.lane() for runner in runners if runner.blocks or runner.error)
    _someone_ran(lanes)
    return Race(
        lanes, granted, _cores(), load, seconds, matters, seed, _machine(), interrupted=interrupted
    )


def _check(contestants: Any, args: Any, kwargs: Any, threads: Any, seconds: Any) -> None:
    if not isinstance(contestants, Mapping):
        raise InputError(
            f"race takes a dict of name -> callable, and got {type(contestants).__name__}. "
            'Write race({"PyTorch": model, "ONNX Runtime": artifact}, x).'
        )
    if not contestants:
        raise InputError(
            "There is nothing to race: the dict of contestants is empty. "
            'Write race({"PyTorch": model, "ONNX Runtime": artifact}, x).'
        )
    for name, fn in contestants.items():
        if not callable(fn):
            raise InputError(
                f"Contestant {name!r} cannot be called: it is of type {type(fn).__name__}. "
                "Pass a model, an Artifact or a function."
            )
    if not _positive(threads):
        raise InputError(f"threads is {threads!r}; it must be a whole number of 1 or more.")
    if not seconds > 0:
        raise InputError(f"seconds is {seconds!r}; it must be more than 0.")
    for tensor in _tensors(args, kwargs):
        if tensor.device.type != "cpu":
            raise InputError(
                f"An input is on {tensor.device}, where calls return before the work is done. "
                "race measures the CPU: pass tensor.cpu() and a model on the CPU."
            )


def _sizes(batch: Any, args: Any, kwargs: Any) -> tuple[int | None, ...]:
    if batch is None:
        return (None,)
    sizes = tuple(dict.fromkeys(batch if isinstance(batch, Iterable) else (batch,)))
    if not sizes or not all(map(_positive, sizes)):
        raise InputError(
            f"batch is {batch!r}; it must be one whole number of 1 or more, or several: (1, 4, 16)."
        )
    rows = [len(tensor) for tensor in _tensors(args, kwargs) if tensor.dim()]
    if not rows or not all(rows):
        raise InputError(
            f"batch is {batch!r}, but no row of the inputs can be repeated. "
            "Pass tensors whose dimension 0 is the batch, with one row or more."
        )
    return sizes


def _resized(size: int | None, args: Any, kwargs: Any) -> tuple[Any, Any]:
    def rows(value: Any) -> Any:
        if size is None or not isinstance(value, torch.Tensor) or not value.dim():
            return value
        return value[torch.arange(size) % len(value)]

    return tree_map(rows, args), tree_map(rows, kwargs)


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    return [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]


def _positive(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _training(contestants: Mapping[str, Callable]) -> list[str]:
    return [
        str(name)
        for name, fn in contestants.items()
        if isinstance(fn, torch.nn.Module) and any(part.training for part in fn.modules())
    ]


def _someone_ran(lanes: Sequence[Lane]) -> None:
    if not any(lane.ran for lane in lanes):
        reasons = "; ".join(dict.fromkeys(f"{lane.name}: {_reason(lane.error)}" for lane in lanes))
        raise InputError(
            f"No contestant ran. {reasons}. Call one by hand with the same inputs to see it fail."
        ) from lanes[0].error


def _reason(error: Exception | None) -> str:
    """The class and the first line of what it says, short enough for a table."""
    said = next(iter(str(error).strip().splitlines()), "")
    said = said if len(said) <= 80 else f"{said[:77]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _labelled(label: str, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for index, line in enumerate(lines):
        yield ("" if index else label), line


def _grouped(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, list[Any]]]:
    """What belongs to the same words, each once, in the order of its first appearance."""
    groups: dict[str, dict[Any, None]] = {}
    for words, item in pairs:
        groups.setdefault(words, {})[item] = None
    return [(words, list(items)) for words, items in groups.items()]


def _seconds(value: float) -> str:
    """Always as wide, whatever the digits, so that two runs align alike."""
    return f"{text.seconds(value):>7}"


def _times(ratio: float) -> str:
    return f"{ratio:.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}x"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _rest(threads: int) -> str:
    return f", after a rest of {1e3 * SETTLE:.0f} ms" if threads > 1 else ""


def _cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _machine() -> str:
    loaded = [name for name in _DISTRIBUTIONS if name in sys.modules]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in loaded]
    chip = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    where = f"{chip}, {platform.system()}, Python {platform.python_version()}"
    return ", ".join([where, *versions])
