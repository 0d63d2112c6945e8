"""What a contestant costs before it is fast: import, load, first call, memory, in fresh processes.

A race leaves these out. Every one here comes from a process that was started for it: what a process
has imported, compiled or allocated before would make the next one cheap.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import torch

from . import figures, progress, text
from .artifact import Artifact
from .coldstart import Life, Script, live
from .errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WARM = 30
"""Calls after the first, for the time of a later one: the median of their second half."""
_PARTS = ("import", "load", "first call")
_HEADER = ("contestant", *_PARTS, "ready after", "later calls", "peak memory")

_SESSION = {
    "import": "import onnxruntime",
    "load": """
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, options, providers=[provider])
""",
}
_TORCH = {
    "import": "import torch; torch.set_num_threads(threads)",
    "load": "import pickle; call, args, kwargs = pickle.loads(pickled)",
}
_COMPILE = {"load": f"{_TORCH['load']}; call = torch.compile(call)"}
_CALL = """
with torch.inference_mode():
    call(*args, **kwargs)
"""


@dataclass(frozen=True)
class Bill:
    """One contestant: a life for each process that was started for it.

    >>> Bill("fast", (Life({"import": 1.0, "load": 0.5, "first call": 0.1}, (2e-3,), 9),)).ready
    1.6
    """

    name: str
    lives: tuple[Life, ...] = ()

    @property
    def trouble(self) -> str:
        """Why it could not be started, else empty."""
        return next((life.trouble for life in self.lives if life.trouble), "")

    @property
    def steps(self) -> dict[str, float]:
        """Seconds of import, load and first call, medians over the processes."""
        return {part: statistics.median(life.steps[part] for life in self.lives) for part in _PARTS}

    @property
    def ready(self) -> float:
        """Seconds until the first answer, the start of Python itself not counted."""
        return statistics.median(sum(life.steps[part] for part in _PARTS) for life in self.lives)

    @property
    def later(self) -> float:
        """Seconds of a later call."""
        return statistics.median(map(_later, self.lives))

    @property
    def peak(self) -> int:
        """Bytes that the process held at most, Python included."""
        return int(statistics.median(life.peak for life in self.lives))


@dataclass(frozen=True, repr=False)
class Costs:
    """What each contestant costs until its first answer; the repr is the report."""

    bills: tuple[Bill, ...]
    threads: int = 1
    interrupted: bool = False

    @property
    def finding(self) -> str:
        """One sentence: who is ready when, and holding how much."""
        ready = sorted((bill.ready, bill.name, bill.peak) for bill in self._started())
        parts = (
            f"{name} after {text.seconds(seconds)} and with {text.size(peak)}"
            for seconds, name, peak in ready
        )
        return f"first answer: {'; '.join(parts)}"

    def records(self) -> list[dict[str, Any]]:
        """One flat dict a process: seconds, and bytes of memory. For ``pandas.DataFrame``."""
        return [
            {
                "contestant": bill.name,
                **life.steps,
                "later call": _later(life),
                "peak_memory": life.peak,
            }
            for bill in self._started()
            for life in bill.lives
        ]

    def plot(self, calls: int = 1000, ax: Axes | None = None) -> Axes:
        """Import, load, first call and so many calls more, end to end."""
        name = f"{calls:,} calls more"
        parts = {b.name: {**b.steps, name: calls * b.later} for b in self._started()}
        note = f"fresh processes, medians; {text.plural(self.threads, 'thread')}"
        return figures.stacked(parts, title=self.finding, note=note, ax=ax)

    def __repr__(self) -> str:
        state = ", interrupted: what was measured until then" if self.interrupted else ""
        count = max(len(bill.lives) for bill in self.bills)
        rows = [self._row(bill) for bill in self.bills]
        table = text.table(rows, _HEADER, right=range(1, len(_HEADER)))
        head = f"Costs, {text.plural(count, 'time')} in a fresh process{state}"
        return f"{head}\n{table}\n\n{text.table(self._facts())}"

    def _started(self) -> list[Bill]:
        return [bill for bill in self.bills if not bill.trouble]

    def _row(self, bill: Bill) -> tuple[str, ...]:
        if bill.trouble:
            return bill.name, *"-----", "not started"
        times = (*bill.steps.values(), bill.ready, bill.later)
        return bill.name, *map(text.seconds, times), text.size(bill.peak)

    def _facts(self) -> Iterator[tuple[str, str]]:
        for bill in self.bills:
            if bill.trouble:
                yield "not started", f"{bill.name}: {bill.trouble}"
        yield "values", "medians over the processes, which were started in random order"
        yield "not counted", "the start of Python itself; what the system keeps of files once read"
        yield "load", "from memory (PyTorch: unpickled) or from the file (ONNX Runtime: optimised)"
        yield "threads", str(self.threads)


def weigh(
    contestants: Mapping[str, Callable[..., object]],
    *args: Any,
    threads: int = 1,
    times: int = 5,
    seed: int = 0,
    **kwargs: Any,
) -> Costs:
    """What models and Artifacts cost until their first answer, each in fresh processes.

    An Artifact is started without PyTorch. What :func:`torch.compile` made is compiled anew, so
    that its first call says what compiling takes with the caches of this machine.

    Args:
        contestants: name -> model, function or Artifact; code from a cell is pickled by value.
        args, kwargs: the inputs of every contestant; tensors on the CPU.
        threads: intra-op threads of every contestant.
        times: processes for each contestant.
        seed: of the order in which they are started.

    Raises:
        InputError: there is nothing to weigh, or something that cannot be sent to a process.

    >>> costs = weigh({"relu": torch.nn.ReLU()}, torch.ones(2), times=1)
    >>> list(costs.records()[0])
    ['contestant', 'import', 'load', 'first call', 'later call', 'peak_memory']
    """
    if not contestants or times < 1:
        count = text.plural(len(contestants), "contestant")
        raise InputError(
            f"weigh() was given {count} and times={times}; it takes one of each or more. "
            'Write weigh({"PyTorch": model, "ONNX Runtime": onnx}, x).'
        )
    scripts = {name: _script(name, fn, threads, args, kwargs) for name, fn in contestants.items()}
    lives: dict[str, list[Life]] = {name: [] for name in scripts}
    rng, interrupted = random.Random(seed), False
    queue = [name for _ in range(times) for name in rng.sample(list(scripts), len(scripts))]
    try:
        for name in progress.bar(queue, desc="weighing", unit="process"):
            if not (lives[name] and lives[name][-1].trouble):  # it would fail again
                lives[name].append(live(scripts[name]))
    except KeyboardInterrupt:
        if not any(lives.values()):
            raise
        interrupted = True
    bills = tuple(Bill(name, tuple(found)) for name, found in lives.items() if found)
    return Costs(bills, threads, interrupted)


def _later(life: Life) -> float:
    return statistics.median(life.again[len(life.again) // 2 :])


def _script(name: str, fn: Callable, threads: int, args: Any, kwargs: Any) -> Script:
    if isinstance(fn, Artifact):
        feeds = fn.feeds(*args, **kwargs)
        given = {"path": str(fn.path), "provider": fn.provider, "feeds": feeds, "threads": threads}
        call = "session.run(None, feeds)"
        return Script({**_SESSION, "first call": call}, call, WARM, given)
    compiled = getattr(fn, "_orig_mod", None)  # torch.compile keeps the module there
    try:
        pickled = cloudpickle.dumps((_for_use(compiled or fn), args, kwargs))
    except Exception as error:
        raise InputError(
            f"Contestant {name!r} cannot be sent to a process of its own: {error}. Pass a model, "
            "an Artifact, or a function that holds neither files nor locks."
        ) from error
    steps = {**_TORCH, **(_COMPILE if compiled else {}), "first call": _CALL}
    return Script(steps, _CALL, WARM, {"pickled": pickled, "threads": threads})


def _for_use(fn: Callable) -> Callable:
    """A model as it is used: in eval mode; the one that was passed is left as it is."""
    if not (isinstance(fn, torch.nn.Module) and any(part.training for part in fn.modules())):
        return fn
    return cloudpickle.loads(cloudpickle.dumps(fn)).eval()
