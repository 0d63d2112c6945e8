"""What a contestant costs before it is fast: load, first call and memory, in fresh processes.

A race leaves these out. Here each process is alone while it starts, and what another has imported,
compiled or allocated cannot make it cheap.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import checks, plots, progress, text
from .calls import door
from .errors import InputError
from .racing.bench import Entry
from .racing.race import check, entry_of
from .racing.report import reason
from .racing.worker import Worker, WorkerError, packed
from .tabled import Tabled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEADER = ("contestant", "load", "first call", "ready after", "later calls", "peak memory")


@dataclass(frozen=True)
class Life:
    """One process: seconds to load, of the first call and of a later one; bytes held at most.

    ``load`` is imports, the arrival of the model, and what opens or compiles it; ``peak`` is None
    where the system does not tell.
    """

    load: float
    first: float
    later: float
    peak: int | None = None


@dataclass(frozen=True)
class Bill:
    """One contestant: a life for each process that was started for it.

    >>> Bill("fast", (Life(load=1.5, first=0.1, later=2e-3),)).ready
    1.6
    """

    name: str
    lives: tuple[Life, ...] = ()
    trouble: str = ""

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of load and first call, medians over the processes."""
        return {
            "load": statistics.median(life.load for life in self.lives),
            "first call": statistics.median(life.first for life in self.lives),
        }

    @property
    def ready(self) -> float:
        """Seconds until the first answer, the start of Python itself not counted."""
        return statistics.median(life.load + life.first for life in self.lives)

    @property
    def later(self) -> float:
        """Seconds of a later call."""
        return statistics.median(life.later for life in self.lives)

    @property
    def peak(self) -> str:
        """What the process held at most, Python included, in words."""
        peaks = [life.peak for life in self.lives if life.peak is not None]
        return text.size(int(statistics.median(peaks))) if peaks else "-"


@dataclass(frozen=True, repr=False)
class Costs(Tabled):
    """What each contestant costs until its first answer; the repr is the report."""

    bills: tuple[Bill, ...]
    threads: int = 1
    interrupted: bool = False

    @property
    def finding(self) -> str:
        """One sentence: who is ready when, and holding how much."""
        parts = (
            f"{bill.name} after {text.seconds(bill.ready)}"
            + (f" and with {bill.peak}" if bill.peak != "-" else "")
            for bill in sorted(self._started(), key=lambda bill: bill.ready)
        )
        return f"first answer: {'; '.join(parts)}"

    def records(self) -> list[dict[str, Any]]:
        """One flat dict a process, in seconds and bytes."""
        return [
            {"contestant": bill.name, **vars(life)}
            for bill in self._started()
            for life in bill.lives
        ]

    def plot(self, calls: int = 1000, ax: Axes | None = None) -> Axes:
        """Load, first call and so many calls more, end to end."""
        name = f"{calls:,} calls more"
        parts = {b.name: {**b.parts, name: calls * b.later} for b in self._started()}
        note = f"fresh processes, medians; {text.plural(self.threads, 'thread')}"
        return plots.stacked(parts, title=self.finding, note=note, ax=ax)

    def __repr__(self) -> str:
        state = ", interrupted: what was measured until then" if self.interrupted else ""
        count = max(len(bill.lives) for bill in self.bills)
        rows = [self._row(bill) for bill in self.bills]
        table = text.table(rows, _HEADER, right=range(1, len(_HEADER)))
        head = f"Costs, {text.plural(count, 'time')} in a fresh process{state}"
        return f"{head}\n{table}\n\n{text.table(self._facts())}"

    def _started(self) -> list[Bill]:
        return [bill for bill in self.bills if bill.lives]

    def _row(self, bill: Bill) -> tuple[str, ...]:
        if not bill.lives:
            return bill.name, *"----", "not started"
        times = (*bill.parts.values(), bill.ready, bill.later)
        return bill.name, *map(text.seconds, times), bill.peak

    def _facts(self) -> Iterator[tuple[str, str]]:
        for bill in self.bills:
            if bill.trouble:
                yield "not started", f"{bill.name}: {bill.trouble}"
        yield "values", "medians over the processes, started one at a time in random order"
        yield "load", "imports, the model's way into the process, and what opens or compiles it"
        yield "not counted", "the start of Python itself; files that the system has read before"
        if any(life.peak is None for bill in self.bills for life in bill.lives):
            yield "peak memory", "not told by this system: Linux alone does"
        yield "threads", str(self.threads)


@door
def weigh(
    contestants: Mapping[str, Callable[..., object]],
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    threads: int = 1,
    times: int = 5,
    seed: int = 0,
) -> Costs:
    """What contestants of a race cost until their first answer, each in fresh processes.

    Args:
        contestants: name -> callable, as :func:`~onnx_workbench.race` takes them.
        args, kwargs: the inputs of every contestant.
        threads: intra-op threads of every contestant.
        times: processes for each contestant.
        seed: of the order in which they are started.

    Raises:
        InputError: there is nothing to weigh, or something that cannot be sent to a process.

    >>> costs = weigh({"max": max}, (1, 2), times=1)
    >>> list(costs.records()[0])
    ['contestant', 'load', 'first', 'later', 'peak']
    """
    threads, times = checks.threads(threads), checks.whole("times", times)
    checks.whole("seed", seed, least=0)
    check("weigh", contestants)
    payloads = {
        name: _sendable(name, entry_of(fn, args, kwargs or {}, threads))
        for name, fn in contestants.items()
    }
    rng, interrupted = random.Random(seed), False
    lives: dict[str, list[Life]] = {name: [] for name in payloads}
    troubles: dict[str, str] = {}
    queue = [name for _ in range(times) for name in rng.sample(list(payloads), len(payloads))]
    try:
        for name in progress.bar(queue, desc="weighing", unit="process"):
            try:
                lives[name] += [] if name in troubles else [_lived(payloads[name], threads)]
            except Exception as error:  # it would fail again
                troubles[name] = reason(error)
    except KeyboardInterrupt:
        if not any(lives.values()):
            raise
        interrupted = True
    bills = (Bill(name, tuple(met), troubles.get(name, "")) for name, met in lives.items())
    return Costs(tuple(b for b in bills if b.lives or b.trouble), threads, interrupted)


def _sendable(name: str, entry: Entry) -> bytes:
    try:
        return packed([entry])
    except WorkerError as error:
        raise InputError(
            f"Contestant {name!r} cannot be sent to a process of its own ({error}). Pass a model, "
            "an Artifact, or a function that holds neither files nor locks."
        ) from error


def _lived(payload: bytes, threads: int) -> Life:
    """A worker that is started, called until it is warm, and ended, come what may."""
    worker = Worker(payload, threads)
    try:
        arrived = worker.opened()
        (ready,) = worker.ready()
    finally:
        worker.close()
    if isinstance(ready, Exception):
        raise ready
    return Life(arrived + ready.load, ready.first, ready.pace, ready.peak)
