"""One call of a model and of its file, made anew at many sizes of its dynamic dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

import sympy
import torch

from .. import progress
from ..agreement import verify
from ..artifact import Artifact
from ..comparison import Tolerance, answer
from ..errors import WorkbenchError
from ..graph import Graph
from ..graph.dims import demanded, finite, limits, name_of, opened
from ..graph.guards import Guard
from ..source import Line
from .declared import mismatch

AGREES = "agrees"
DIFFERS = "differs"
FAILS = "the file fails"
REFUSES = "the model refuses"
ALONE = "the model refuses, the file answers"
RUNS = "runs"
ANSWERS = "the model answers"
MISDECLARED = "declares another shape"
"""The outcomes of one size. A file without its model RUNS, a model without a file ANSWERS."""

FINE = (AGREES, RUNS)
BAD = (DIFFERS, FAILS, MISDECLARED)

KEPT = "kept"
WITHIN = "kept within"
STATIC = "silently specialized"
BROKEN = "advertised but broken"
REFUSED = "refused by capture"
WRONG = "wrong at the example's own size"
UNKNOWN = "runs, numbers unknown"
TIED = "kept as equal to"
UNTRIED = "not tried: the model refuses all other sizes"
"""The verdicts on a dimension; "kept within" is followed by bounds, such as "[1, 32]", and "kept as
equal to" by another dimension. UNKNOWN is all that can be said of a file without its model."""

_REPAIRS = {
    STATIC: "Name it in `dynamic_shapes`: then export() raises where the model freezes it.",
    WRONG: "It is not the size: verify() the call of the example itself, and fix that first.",
    UNTRIED: "Take the dimension out of `dynamic_shapes` if it never changes. If it does, an input "
    "holds numbers that depend on it, such as offsets or lengths, and probe() cannot make them up: "
    "verify() calls of your own with other sizes.",
    UNKNOWN: "Give probe() the model: a file alone does not know the right numbers.",
}
_EQUAL = "Give both one name, or the same Dim. If they may differ, let them differ in the example."
_LOOK = "Call verify() with one of these sizes: nothing in the graph says which line it is."
_BRING = "Give probe() the model that this file came from: it finds the line."

_PRIMES = (3, 7, 13)
_SMALL = 64
"""A bound up to here is always tried; a higher one up to four times the example's size."""
_HALVINGS = 8

Call = tuple[tuple, dict[str, Any]]
"""The ``args`` and ``kwargs`` of a call."""

Axis = tuple[int, int]
"""A tensor of the call and one of its axes, by number."""


@dataclass(frozen=True)
class Trial:
    """What happened at one size. ``said`` has the words of what failed or differs, ``call`` the
    arguments of a trial that went wrong."""

    size: int
    outcome: str
    said: str = ""
    call: Call | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Fault:
    """``reason`` says what goes wrong at ``line``, ``repair`` what usually helps."""

    line: Line | None
    reason: str
    repair: str


@dataclass(frozen=True)
class Dimension:
    """One dimension that was asked to be dynamic, by a name or by a hint or Dim of torch.

    ``size`` is an expression in the symbols that vary; ``frozen`` says that torch.export made it a
    number. ``promised`` is what the input of the file says, ``constraint`` what torch.export's
    range constraints say. ``guard`` is the assumption of the capture that froze or bounded it; it
    is None where the dimension is kept, or torch made none: then ``fault`` is what goes wrong at
    the first size that fails.
    """

    input: str
    at: Axis
    label: Any
    size: sympy.Expr
    frozen: bool
    promised: int | str
    constraint: str = ""
    verdict: str = ""
    trials: tuple[Trial, ...] = ()
    guard: Guard | None = None
    fault: Fault | None = None

    def __bool__(self) -> bool:
        within = self.verdict.startswith(WITHIN) and not self.first_bad
        return self.verdict == KEPT or within

    @property
    def axis(self) -> int:
        return self.at[1]

    @property
    def name(self) -> str:
        """The user's name for it, if it has one."""
        return name_of(self.label)

    @property
    def place(self) -> str:
        """``x.shape[1]``"""
        return f"{self.input}.shape[{self.axis}]"

    @property
    def demanded(self) -> bool:
        """Whether capture raises where it cannot keep the dimension dynamic."""
        return demanded(self.label)

    @property
    def first_bad(self) -> Trial | None:
        """The first trial that went wrong."""
        return next((trial for trial in self.trials if trial.outcome in BAD), None)

    @property
    def line(self) -> Line | None:
        """The user's line that made the assumption, or that fails at a size."""
        blamed = self.guard or self.fault
        return blamed.line if blamed else None

    @property
    def locals(self) -> Mapping[str, str]:
        """The tensors and sizes that this line works with."""
        return self.guard.locals if self.guard else {}

    @property
    def repair(self) -> str:
        """What usually helps; empty where nothing needs a fix."""
        if self.verdict.startswith(TIED):
            return _EQUAL
        if blamed := self.guard or self.fault:
            return blamed.repair
        usual = _BRING if self.constraint == "unknown" else _LOOK
        return "" if self else _REPAIRS.get(self.verdict, usual)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is tried: a file, the graph and with it the model that it came from, and one call.

    ``call`` makes arguments of the tensors. ``graph`` is None for a file that was loaded. ``sizes``
    has an expression for each dimension that varies, asked for or not. Where ``exported`` is False,
    the file was made for the trial, and capture refuses to keep what is frozen.
    """

    artifact: Artifact
    graph: Graph | None
    tensors: Sequence[torch.Tensor]
    call: Callable[[Sequence[torch.Tensor]], Call]
    sizes: Mapping[Axis, sympy.Expr]
    asked: Sequence[Dimension]
    exported: bool = True
    tolerance: Tolerance | None = None

    def refuses(self, asked: Dimension) -> bool:
        """Whether capture raises instead of keeping this dimension dynamic."""
        return asked.frozen and asked.demanded and not self.exported

    def usual(self, at: Axis) -> int:
        """The size of a dimension in the example."""
        return self.tensors[at[0]].shape[at[1]]

    @cached_property
    def example(self) -> dict[sympy.Symbol, int]:
        """The size that each symbol had in the example."""
        return {size: self.usual(at) for at, size in self.sizes.items() if size.is_Symbol}

    @cached_property
    def ranges(self) -> dict[sympy.Expr, tuple[int | None, int | None]]:
        """The least and greatest size of each symbol, by torch.export's range constraints."""
        said = self.graph.program.range_constraints if self.graph else {}
        return {symbol: (finite(r.lower), finite(r.upper)) for symbol, r in said.items()}

    def constraint(self, asked: Dimension) -> str:
        """What torch.export says of a dimension, in words."""
        if self.graph is None:
            return "unknown"
        if asked.frozen:
            return f"only {self.usual(asked.at)}"
        if not asked.size.is_Symbol:
            return str(asked.size)
        low, high = self.ranges.get(asked.size, (0, None))
        return f"{low or 0} to {high}" if high else f"{low} or more" if low else "any size"

    def moved(self, sizes: Mapping[sympy.Symbol, int]) -> dict[Axis, int]:
        """Every dimension that varies, where these symbols have other sizes than the example's."""
        values = {**self.example, **sizes}
        return {at: int(size.subs(values)) for at, size in self.sizes.items()}

    def at(self, moved: Mapping[Axis, int], largest: int | None = None) -> Call:
        """The arguments of a call of these sizes, made of the example's own rows.

        Where these ascend, as offsets and boundaries do, they still ascend. ``largest`` is the
        greatest whole number that a tensor may hold.
        """
        tensors = [tensor.clone() for tensor in self.tensors]
        for (index, axis), size in moved.items():
            rows = torch.arange(size) % tensors[index].shape[axis]
            if _ascends(tensors[index], axis):
                rows = rows.sort().values
            tensors[index] = tensors[index].index_select(axis, rows)
        if largest is not None:
            tensors = [t.clamp(max=largest) if _is_whole(t) else t for t in tensors]
        return self.call(tensors)

    def largest_index(self, moved: Mapping[Axis, int]) -> int | None:
        """The largest valid index into each dimension that shrank; None where every
        whole number of the call is valid."""
        shrunk = [size for at, size in moved.items() if size < self.usual(at)]
        most = min(shrunk, default=1) - 1
        beyond = any(_is_whole(t) and bool((t > most).any()) for t in self.tensors)
        return most if shrunk and beyond else None


def _ascends(tensor: torch.Tensor, axis: int) -> bool:
    rest = tensor.shape[axis] - 1
    if tensor.is_complex() or tensor.dtype is torch.bool or rest < 1:
        return False
    return bool((tensor.narrow(axis, 1, rest) >= tensor.narrow(axis, 0, rest)).all())


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def of_graph(artifact: Artifact, graph: Graph, args: tuple, kwargs: Mapping[str, Any]) -> Subject:
    """An artifact that knows its model: dimensions vary together that torch.export found equal,
    or that the user gave one name."""
    sizes = {
        (i, axis): size for i, axes in enumerate(graph.symbolic) for axis, size in axes.items()
    }
    named: dict[str, sympy.Expr] = {}
    for tensor, axes in enumerate(graph.axes):
        for axis, label in opened(axes).items():
            size = sizes.get((tensor, axis))
            if size is not None and size.is_Symbol and name_of(label):
                one = named.setdefault(name_of(label), size)
                sizes = {at: other.subs(size, one) for at, other in sizes.items()}
    signature = graph.signature
    labels = dict(zip(signature.tensor_inputs, graph.axes, strict=True))
    asked = list(_asked(artifact, labels, sizes, known=True))
    tensors = signature.flatten(args, kwargs)
    return Subject(artifact, graph, tensors, signature.call, sizes, asked)


def of_file(
    artifact: Artifact, args: tuple, kwargs: Mapping[str, Any], dynamic: Mapping[str, Any] | None
) -> Subject:
    """A file alone: dimensions vary together that have one name in it."""
    declared = {
        value.name: {i: n for i, n in enumerate(value.shape or ()) if isinstance(n, str)}
        for value in artifact.inputs
    }
    sizes = {
        (tensor, axis): sympy.Symbol(f"{name}.{axis}" if size == "?" else size)
        for tensor, (name, axes) in enumerate(declared.items())
        for axis, size in axes.items()
    }
    labels = declared if dynamic is None else {name: dynamic.get(name) for name in declared}
    asked = list(_asked(artifact, labels, sizes, known=False))
    tensors = artifact.tensors(args, kwargs)
    return Subject(artifact, None, tensors, lambda given: (tuple(given), {}), sizes, asked)


def _asked(
    artifact: Artifact, labels: Mapping[str, Any], sizes: dict[Axis, sympy.Expr], known: bool
) -> Iterator[Dimension]:
    """The dimensions that have a label; ``sizes`` gets a symbol for those that lack one. ``known``
    says that a dimension without a size is frozen."""
    for tensor, (name, axes) in enumerate(labels.items()):
        for axis, label in opened(axes).items():
            at, shape = (tensor, axis), artifact.inputs[tensor].shape
            frozen = known and at not in sizes
            size = sizes.setdefault(at, sympy.Symbol(f"{name}.{axis}"))
            yield Dimension(name, at, label, size, frozen, shape[axis] if shape else "?")


def sweep(subject: Subject) -> list[Dimension]:
    """Each dimension asked for with its verdict, tried at many sizes, the others at the example's.

    A dimension that depends on others (their sum) takes part in the trials of each of these.
    """
    symbols = dict.fromkeys(s for asked in subject.asked for s in asked.size.free_symbols)
    with progress.bar(desc="probe", unit=" sizes", delay=2) as bar:
        found = {symbol: [*_trials(subject, symbol, bar.update)] for symbol in symbols}
    return [
        _judged(
            asked,
            [
                replace(trial, size=int(asked.size.subs({**subject.example, symbol: trial.size})))
                for symbol in asked.size.free_symbols
                for trial in found[symbol]
            ],
            subject,
        )
        for asked in subject.asked
    ]


def _trials(subject: Subject, symbol: sympy.Symbol, step: Callable[[], Any]) -> Iterable[Trial]:
    refused = any(subject.refuses(asked) for asked in subject.asked if asked.size == symbol)
    trials: dict[int, Trial] = {}
    waiting = _candidates(subject, symbol)
    for _ in range(1 + _HALVINGS):
        for size in waiting:
            trials[size] = try_call(subject, size, subject.moved({symbol: size}), refused)
            step()
        waiting = _undecided(trials, subject.example[symbol])
    return trials.values()


def _candidates(subject: Subject, symbol: sympy.Symbol) -> list[int]:
    """The sizes to try first: edges, the example's neighbors, primes, bounds and their neighbors.

    Those outside of what the user's Dim allows are left out.
    """
    usual = subject.example[symbol]
    low, high = {asked.size: limits(asked.label) for asked in subject.asked}.get(
        symbol, (None,) * 2
    )
    least, most = subject.ranges.get(symbol, (None, None))
    low, least = low or 1, least or 1
    sizes = [1, 2, low, least - 1, least, usual - 1, usual, usual + 1, *_PRIMES]
    sizes += [size + beyond for size in (high, most) if size for beyond in (0, 1)]
    sizes += [2 * usual, sympy.nextprime(2 * usual)]
    far = max(_SMALL, 4 * usual)
    return list(dict.fromkeys(int(size) for size in sizes if low <= size <= min(high or far, far)))


def _undecided(trials: Mapping[int, Trial], usual: int) -> list[int]:
    """The midpoint between the last size that is fine and the first that is not, on either side."""
    fine = [size for size, trial in trials.items() if trial.outcome in FINE]
    if usual not in fine or len(fine) == 1:
        return []
    above = min((size for size in trials if size > max(fine)), default=max(fine))
    below = max((size for size in trials if size < min(fine)), default=min(fine))
    middles = ((max(fine) + above) // 2, (min(fine) + below) // 2)
    return [size for size in middles if size not in trials]


def try_call(
    subject: Subject,
    size: int,
    moved: Mapping[Axis, int],
    refused: bool = False,
    largest: int | None = None,
) -> Trial:
    """The outcome of a call with the dimensions ``moved``. ``refused`` runs only the model, since
    there is no file of such sizes.

    Where the model refuses the call, whole numbers may be offsets or indices into what shrank: it
    is tried again with smaller ones.
    """
    artifact, call = subject.artifact, subject.at(moved, largest)
    if subject.graph is None:
        try:
            return _declared(artifact, size, call, artifact(*call[0], **call[1]), RUNS)
        except WorkbenchError as error:
            return Trial(size, FAILS, str(error).splitlines()[0], call)
    try:
        result = answer(subject.graph.model, *call)
    except Exception as error:
        most = subject.largest_index(moved) if largest is None else None
        if most is not None:
            again = try_call(subject, size, moved, refused, most)
            if again.outcome not in (REFUSES, ALONE):
                return again
        said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return Trial(size, ALONE if not refused and _answers(artifact, call) else REFUSES, said)
    if refused:
        return Trial(size, ANSWERS)
    try:
        found = verify(lambda *_, **__: result, artifact, *call, tolerance=subject.tolerance)
    except WorkbenchError as error:
        return Trial(size, FAILS, str(error).splitlines()[0], call)
    if not found:
        return Trial(size, DIFFERS, found.worst.said, call)
    return _declared(artifact, size, call, result, AGREES)


def _declared(artifact: Artifact, size: int, call: Call, result: Any, outcome: str) -> Trial:
    said = mismatch(artifact, *call, result)
    return Trial(size, MISDECLARED, said, call) if said else Trial(size, outcome)


def _answers(artifact: Artifact, call: Call) -> bool:
    try:
        artifact(*call[0], **call[1])
    except WorkbenchError:
        return False
    return True


def _judged(asked: Dimension, trials: Sequence[Trial], subject: Subject) -> Dimension:
    """The dimension with its verdict; who is to blame comes later."""
    usual = subject.usual(asked.at)
    if subject.refuses(asked):
        verdict = REFUSED
    elif isinstance(asked.promised, int):
        verdict = STATIC
    elif any(trial.size == usual and trial.outcome == DIFFERS for trial in trials):
        verdict = WRONG
    else:
        verdict = BROKEN if asked.frozen else _moving(asked, trials, usual, subject)
    promised = "" if verdict == REFUSED else asked.promised
    said = subject.constraint(asked)
    return replace(asked, verdict=verdict, promised=promised, constraint=said, trials=tuple(trials))


def _moving(asked: Dimension, trials: Sequence[Trial], usual: int, subject: Subject) -> str:
    """The verdict on a dimension that the file says is dynamic."""
    tried = sorted(trials, key=lambda trial: trial.size)
    run = _run([trial for trial in tried if trial.outcome in (*FINE, *BAD)], usual)
    if len(run) < 2:
        return BROKEN if any(trial.outcome in BAD for trial in tried) else UNTRIED
    low, high = limits(asked.label)
    gaps = any(run[0] < trial.size < run[-1] and trial.size not in run for trial in tried)
    first = run[0] if (low or 0) > 1 or (tried[0].size < run[0] and not gaps) else 1
    last = run[-1] if high or (tried[-1].size > run[-1] and not gaps) else "..."
    if (first, last) == (1, "..."):
        return KEPT if subject.graph else UNKNOWN
    return f"{WITHIN if subject.graph else 'runs within'} [{first}, {last}]"


def _run(trials: Sequence[Trial], usual: int) -> list[int]:
    """The sizes around the example's, up to the first on either side that is not fine."""

    def fine(trial: Trial) -> bool:
        return trial.outcome in FINE

    below = takewhile(fine, (t for t in reversed(trials) if t.size <= usual))
    above = takewhile(fine, (t for t in trials if t.size > usual))
    return sorted(trial.size for trial in (*below, *above))
