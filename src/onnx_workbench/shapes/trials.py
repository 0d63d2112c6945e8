"""Calls of a model and of its file at many sizes of the dynamic dimensions."""

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
from ..brief import first_words
from ..comparison import Tolerance, answer
from ..errors import WorkbenchError
from ..graph import Graph
from ..graph.dims import bound, limits, must_stay_dynamic, name_of, parse_shapes
from ..graph.guards import Guard
from ..source import Line
from .declared import mismatch

AGREES = "agrees"
DIFFERS = "differs"
FAILS = "the file fails"
REFUSES = "the model refuses"
FILE_ONLY = "the model refuses, the file answers"
RUNS = "runs"
ANSWERS = "the model answers"
MISDECLARED = "declares another shape"
"""The outcomes at one size. A file without its model RUNS, a model without a file ANSWERS."""

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
"""The verdicts on a dimension. "kept within" is followed by bounds, such as "[1, 32]", and "kept as
equal to" by another dimension. UNKNOWN is the best verdict on a file without its model."""

_REPAIRS = {
    STATIC: "Name it in `dynamic_shapes`, so that export() raises if the model freezes it.",
    WRONG: "It is not the size: verify() the call of the example itself, and fix that first.",
    UNTRIED: "Take the dimension out of `dynamic_shapes` if it never changes. If it does, an input "
    "has numbers that depend on it, such as offsets or lengths, which probe() cannot make up: "
    "verify() calls of your own with other sizes.",
    UNKNOWN: "Give probe() the model: from the file alone, the right numbers are unknown.",
}
_EQUAL = "Give both one name, or the same Dim. If they may differ, let them differ in the example."
_LOOK = "Call verify() with one of these sizes: the graph does not show the line at fault."
_BRING = "Give probe() the model that this file came from, so that it can find the line."

_PRIMES = (3, 7, 13)
_SMALL = 64
"""Bounds up to this one are always tried; higher ones only up to four times the example's size."""
_HALVINGS = 8

Call = tuple[tuple, dict[str, Any]]
"""The ``args`` and ``kwargs`` of a call."""

Axis = tuple[int, int]
"""A tensor of the call and one of its axes, by number."""


@dataclass(frozen=True)
class Trial:
    """What happened at one size. ``reason`` says what failed or differs; ``call`` has the arguments
    of a trial that went wrong."""

    size: int
    outcome: str
    reason: str = ""
    call: Call | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Fault:
    """``reason`` says what goes wrong at ``line``, ``repair`` what usually helps."""

    line: Line | None
    reason: str
    repair: str


@dataclass(frozen=True)
class Dimension:
    """One dimension that is to be dynamic, with a name, a hint or a Dim as its ``label``.

    ``size`` is an expression in the symbols that vary; ``frozen`` says that torch.export made it a
    number. ``declared`` is the size that the file declares, ``constraint`` is torch.export's range
    constraint in words. ``guard`` is the assumption of the capture that froze or bounded it; it is
    None if the dimension is kept or torch made no guard. In the second case, ``fault`` says what
    goes wrong at the first size that fails.
    """

    input: str
    at: Axis
    label: Any
    size: sympy.Expr
    frozen: bool
    declared: int | str
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
        """The user's name for it, if any."""
        return name_of(self.label)

    @property
    def place(self) -> str:
        """``x.shape[1]``"""
        return f"{self.input}.shape[{self.axis}]"

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
        """The tensors and sizes on that line."""
        return self.guard.locals if self.guard else {}

    @property
    def repair(self) -> str:
        """What usually helps; empty if nothing needs a fix."""
        if self.verdict.startswith(TIED):
            return _EQUAL
        if blamed := self.guard or self.fault:
            return blamed.repair
        usual = _BRING if self.constraint == "unknown" else _LOOK
        return "" if self else _REPAIRS.get(self.verdict, usual)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is tried: a file, the graph of its model, and one call.

    ``call`` turns tensors into arguments. ``graph`` is None for a loaded file. ``sizes`` has an
    expression for each dimension that varies, requested or not. If ``made_by_probe``, the user's
    own capture would refuse to freeze a dimension.
    """

    artifact: Artifact
    graph: Graph | None
    tensors: Sequence[torch.Tensor]
    call: Callable[[Sequence[torch.Tensor]], Call]
    sizes: Mapping[Axis, sympy.Expr]
    dimensions: Sequence[Dimension]
    made_by_probe: bool = False
    tolerance: Tolerance | None = None

    def refuses(self, dimension: Dimension) -> bool:
        """Whether capture raises because it cannot keep this dimension dynamic."""
        return dimension.frozen and must_stay_dynamic(dimension.label) and self.made_by_probe

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
        ranges = self.graph.program.range_constraints if self.graph else {}
        return {symbol: (bound(r.lower), bound(r.upper)) for symbol, r in ranges.items()}

    def allowed(self, size: sympy.Expr) -> tuple[int | None, int | None]:
        """The least and greatest size that all of the user's labels of this size allow."""
        ends = [limits(d.label) for d in self.dimensions if d.size == size]
        lows, highs = [low for low, _ in ends if low], [high for _, high in ends if high]
        return max(lows, default=None), min(highs, default=None)

    def constraint(self, dimension: Dimension) -> str:
        """torch.export's constraint on a dimension, in words."""
        if self.graph is None:
            return "unknown"
        if dimension.frozen:
            return f"only {self.usual(dimension.at)}"
        if not dimension.size.is_Symbol:
            places = {d.size: sympy.Symbol(d.place) for d in self.dimensions if d.size.is_Symbol}
            return str(dimension.size.subs(places))
        low, high = self.ranges.get(dimension.size, (0, None))
        return f"{low or 0} to {high}" if high else f"{low} or more" if low else "any size"

    def moved(self, sizes: Mapping[sympy.Symbol, int]) -> dict[Axis, int]:
        """The size of every dimension that varies, with these sizes for some symbols."""
        values = {**self.example, **sizes}
        return {at: int(size.subs(values)) for at, size in self.sizes.items()}

    def at(self, moved: Mapping[Axis, int], largest: int | None = None, apart: bool = True) -> Call:
        """The arguments of a call of these sizes, from the rows of the example.

        Rows that ascend, such as offsets and boundaries, still ascend. With ``apart``, if the
        numbers of a tensor differ, those of its repeated rows differ a little, too: topk may order
        equal ones in any way. Integers above ``largest`` are clamped to it.
        """
        tensors = [tensor.clone() for tensor in self.tensors]
        for (index, axis), size in moved.items():
            tensor, usual = tensors[index], tensors[index].shape[axis]
            rows, ascends = torch.arange(size) % usual, _ascends(tensor, axis)
            tensors[index] = tensor.index_select(axis, rows.sort().values if ascends else rows)
            if apart and not ascends and _differ(tensor):
                repeated = (torch.arange(size) // usual).view(-1, *[1] * (tensor.dim() - axis - 1))
                apart_by = 1 + repeated.double() * 2**-10
                tensors[index] = (tensors[index].double() * apart_by).to(tensor.dtype)
        if largest is not None:
            tensors = [t.clamp(max=largest) if _is_whole(t) else t for t in tensors]
        return self.call(tensors)

    def largest_index(self, moved: Mapping[Axis, int]) -> int | None:
        """The largest valid index into each dimension that shrank; None if all integers of the call
        are valid."""
        shrunk = [size for at, size in moved.items() if size < self.usual(at)]
        most = min(shrunk, default=1) - 1
        beyond = any(_is_whole(t) and bool((t > most).any()) for t in self.tensors)
        return most if shrunk and beyond else None


def _ascends(tensor: torch.Tensor, axis: int) -> bool:
    if tensor.is_complex() or tensor.dtype is torch.bool or tensor.shape[axis] < 2:
        return False
    values = tensor.double()  # float8 has no order of its own
    return values.equal(values.sort(dim=axis).values)


def _differ(tensor: torch.Tensor) -> bool:
    """Whether most numbers differ: those of a mask do not."""
    sample = tensor.flatten()[:1024]
    return tensor.is_floating_point() and 2 * sample.double().unique().numel() > sample.numel()


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def of_graph(artifact: Artifact, graph: Graph, args: tuple, kwargs: Mapping[str, Any]) -> Subject:
    """The subject for an artifact with its model. Dimensions vary together if torch.export found
    them equal, or the user gave them one name."""
    sizes = {
        (i, axis): size for i, axes in enumerate(graph.symbolic) for axis, size in axes.items()
    }
    by_name: dict[str, sympy.Expr] = {}
    for asked in graph.requested:
        size = sizes.get((asked.tensor, asked.axis))
        if size is not None and size.is_Symbol and name_of(asked.label):
            first = by_name.setdefault(name_of(asked.label), size)
            sizes = {at: other.subs(size, first) for at, other in sizes.items()}
    signature = graph.signature
    labels = dict(zip(signature.tensor_inputs, graph.axes, strict=True))
    dimensions = list(_dimensions(artifact, labels, sizes, known=True))
    tensors = signature.flatten(args, kwargs)
    return Subject(artifact, graph, tensors, signature.call, sizes, dimensions)


def of_file(artifact: Artifact, args: tuple, kwargs: Mapping[str, Any], dynamic: Any) -> Subject:
    """The subject for a file alone. Dimensions with one name in the file vary together."""
    declared = {
        value.name: {i: n for i, n in enumerate(value.shape or ()) if isinstance(n, str)}
        for value in artifact.inputs
    }
    sizes = {
        (tensor, axis): sympy.Symbol(f"{name}.{axis}" if size == "?" else size)
        for tensor, (name, axes) in enumerate(declared.items())
        for axis, size in axes.items()
    }
    tensors = artifact.tensors(*args, **kwargs)
    inputs = dict(zip(declared, tensors, strict=True))
    labels = declared if dynamic is None else parse_shapes(dynamic, inputs)
    dimensions = list(_dimensions(artifact, labels, sizes, known=False))
    return Subject(artifact, None, tensors, lambda tensors: (tuple(tensors), {}), sizes, dimensions)


def _dimensions(
    artifact: Artifact, labels: Mapping[str, Any], sizes: dict[Axis, sympy.Expr], known: bool
) -> Iterator[Dimension]:
    """The dimensions with a label; ``sizes`` gets a symbol for those that lack one. ``known`` says
    that a dimension without a size is frozen."""
    for tensor, (name, axes) in enumerate(labels.items()):
        for axis, label in axes.items():
            at, shape = (tensor, axis), artifact.inputs[tensor].shape
            frozen = known and at not in sizes
            size = sizes.setdefault(at, sympy.Symbol(f"{name}.{axis}"))
            yield Dimension(name, at, label, size, frozen, shape[axis] if shape else "?")


def try_sizes(subject: Subject) -> list[Dimension]:
    """Try each requested dimension at many sizes, with the others as in the example.

    A dimension that depends on others (their sum) takes part in the trials of each of these.
    """
    symbols = dict.fromkeys(symbol for d in subject.dimensions for symbol in d.size.free_symbols)
    with progress.bar("probe", unit=" sizes") as step:
        trials = {symbol: [*_trials(subject, symbol, step)] for symbol in symbols}
    return [
        _judged(
            d,
            [
                replace(trial, size=int(d.size.subs({**subject.example, symbol: trial.size})))
                for symbol in d.size.free_symbols
                for trial in trials[symbol]
            ],
            subject,
        )
        for d in subject.dimensions
    ]


def _trials(subject: Subject, symbol: sympy.Symbol, step: Callable[[], Any]) -> Iterable[Trial]:
    refused = any(subject.refuses(d) for d in subject.dimensions if d.size == symbol)
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

    Sizes that the user's Dim does not allow are left out.
    """
    usual = subject.example[symbol]
    (low, high), (least, most) = subject.allowed(symbol), subject.ranges.get(symbol, (None, None))
    low, least = low or 1, least or 1
    sizes = [1, 2, low, least - 1, least, usual - 1, usual, usual + 1, *_PRIMES]
    sizes += [size + beyond for size in (high, most) if size for beyond in (0, 1)]
    sizes += [2 * usual, sympy.nextprime(2 * usual)]
    far = max(_SMALL, 4 * usual)
    return list(dict.fromkeys(int(size) for size in sizes if low <= size <= min(high or far, far)))


def _undecided(trials: Mapping[int, Trial], usual: int) -> list[int]:
    """The midpoint between the last size that works and the first that does not, on each side."""
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
    apart: bool = True,
) -> Trial:
    """Make a call with the dimensions ``moved``. ``refused`` runs only the model, since capture
    refuses to make such a file.

    If the model refuses the call, it is repeated with the example's own numbers, which may be
    probabilities. Integers may be offsets or indices into a dimension that shrank, so it is then
    repeated with smaller ones.
    """
    artifact, call = subject.artifact, subject.at(moved, largest, apart)
    if subject.graph is None:
        try:
            return _declared(artifact, size, call, artifact(*call[0], **call[1]), RUNS)
        except WorkbenchError as error:
            return Trial(size, FAILS, str(error).splitlines()[0], call)
    try:
        result = answer(subject.graph.model, *call)
    except Exception as error:
        if apart:
            return try_call(subject, size, moved, refused, largest, apart=False)
        most = subject.largest_index(moved) if largest is None else None
        if most is not None:
            again = try_call(subject, size, moved, refused, most, apart=False)
            if again.outcome not in (REFUSES, FILE_ONLY):
                return again
        alone = not refused and _answers(artifact, call)
        return Trial(size, FILE_ONLY if alone else REFUSES, first_words(error))
    if refused:
        return Trial(size, ANSWERS)
    try:
        agreement = verify(lambda *_, **__: result, artifact, *call, tolerance=subject.tolerance)
    except WorkbenchError as error:
        return Trial(size, FAILS, str(error).splitlines()[0], call)
    if not agreement:
        return Trial(size, DIFFERS, agreement.worst.summary, call)
    return _declared(artifact, size, call, result, AGREES)


def _declared(artifact: Artifact, size: int, call: Call, result: Any, outcome: str) -> Trial:
    reason = mismatch(artifact, *call, result)
    return Trial(size, MISDECLARED, reason, call) if reason else Trial(size, outcome)


def _answers(artifact: Artifact, call: Call) -> bool:
    try:
        artifact(*call[0], **call[1])
    except WorkbenchError:
        return False
    return True


def _judged(dimension: Dimension, trials: Sequence[Trial], subject: Subject) -> Dimension:
    """The dimension with its verdict, but without guard and fault."""
    usual = subject.usual(dimension.at)
    if subject.refuses(dimension):
        verdict = REFUSED
    elif isinstance(dimension.declared, int):
        verdict = STATIC
    elif any(trial.size == usual and trial.outcome == DIFFERS for trial in trials):
        verdict = WRONG
    else:
        verdict = BROKEN if dimension.frozen else _moving(dimension, trials, usual, subject)
    declared = "" if verdict == REFUSED else dimension.declared
    constraint, tried = subject.constraint(dimension), tuple(trials)
    return replace(
        dimension, verdict=verdict, declared=declared, constraint=constraint, trials=tried
    )


def _moving(dimension: Dimension, trials: Sequence[Trial], usual: int, subject: Subject) -> str:
    """The verdict on a dimension that the file says is dynamic."""
    tried = sorted(trials, key=lambda trial: trial.size)
    run = _run([trial for trial in tried if trial.outcome in (*FINE, *BAD)], usual)
    if len(run) < 2:
        return BROKEN if any(trial.outcome in BAD for trial in tried) else UNTRIED
    low, high = subject.allowed(dimension.size)
    gaps = any(run[0] < trial.size < run[-1] and trial.size not in run for trial in tried)
    first = run[0] if (low or 0) > 1 or (tried[0].size < run[0] and not gaps) else 1
    stops = run[-1] == high or (tried[-1].size > run[-1] and not gaps)
    last = run[-1] if stops else "..."
    if (first, last) == (1, "..."):
        return KEPT if subject.graph else UNKNOWN
    return f"{WITHIN if subject.graph else 'runs within'} [{first}, {last}]"


def _run(trials: Sequence[Trial], usual: int) -> list[int]:
    """The sizes around the example's, up to the first on each side that does not work."""

    def fine(trial: Trial) -> bool:
        return trial.outcome in FINE

    below = takewhile(fine, (t for t in reversed(trials) if t.size <= usual))
    above = takewhile(fine, (t for t in trials if t.size > usual))
    return sorted(trial.size for trial in (*below, *above))
