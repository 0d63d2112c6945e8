"""One call of a model and of its file, made anew at many sizes of its dynamic dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import sympy
import torch
import torch.utils._pytree as pytree

from .. import progress
from ..agreement import verify
from ..artifact import Artifact
from ..comparison import Tolerance, answer
from ..errors import WorkbenchError
from ..graph import Graph
from ..graph.dims import demanded, finite, limits, name_of, opened
from .declared import misstated

AGREE = "agrees"
DIFFERS = "differs"
FAILS = "the file fails"
REFUSED = "the model refuses"
ALONE = "the model refuses, the file answers"
RUNS = "runs"
ANSWERS = "the model answers"
LIES = "declares another shape"
"""The outcomes of one size. A file without its model RUNS, a model without a file ANSWERS."""

FINE = (AGREE, RUNS)
BAD = (DIFFERS, FAILS, LIES)

_PRIMES = (3, 7, 13)
_SMALL = 64
"""A bound up to here is always tried; a higher one up to four times the example's size."""
_HALVINGS = 8


Place = tuple[int, int | None, int]
"""A tensor of the call and its axis, by number, and the size that it is given there; or without an
axis the largest whole number that it may hold."""


Call = tuple[tuple, dict[str, Any]]
"""The ``args`` and ``kwargs`` of a call."""


@dataclass(frozen=True)
class Trial:
    """What happened at one size. ``said`` has the words of what failed or differs, ``call`` the
    arguments of a trial that went wrong."""

    size: int
    outcome: str
    said: str = ""
    call: Call | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Asked:
    """A dimension that was asked to be dynamic, by a name or by a hint or Dim of torch.

    ``size`` is an expression in the symbols that vary; ``frozen`` where torch.export made it a
    number. ``promised`` is what the input of the file says.
    """

    input: str
    tensor: int
    axis: int
    label: Any
    size: sympy.Expr
    frozen: bool
    promised: int | str

    @property
    def name(self) -> str:
        """The user's name for it, if it has one."""
        return name_of(self.label)

    @property
    def place(self) -> str:
        return f"{self.input}.shape[{self.axis}]"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is tried: a file, the graph and with it the model that it came from, and one call.

    ``call`` makes arguments of the tensors. ``graph`` is None for a file that was loaded. ``sizes``
    has an expression for each dimension (tensor, axis) that varies, asked for or not. The file of
    ``exported`` False was made for the trial, although capture would have refused what is frozen.
    """

    artifact: Artifact
    graph: Graph | None
    tensors: Sequence[torch.Tensor]
    call: Callable[[Sequence[torch.Tensor]], tuple[tuple, dict[str, Any]]]
    sizes: Mapping[tuple[int, int], sympy.Expr]
    asked: Sequence[Asked]
    exported: bool = True
    tolerance: Tolerance | None = None

    def refuses(self, asked: Asked) -> bool:
        """Whether capture raises instead of keeping this dimension dynamic."""
        return asked.frozen and demanded(asked.label) and not self.exported

    @cached_property
    def example(self) -> dict[sympy.Symbol, int]:
        """The size that each symbol had in the example."""
        return {
            size: self.tensors[tensor].shape[axis]
            for (tensor, axis), size in self.sizes.items()
            if size.is_Symbol
        }

    @cached_property
    def bounds(self) -> dict[sympy.Expr, tuple[int | None, int | None]]:
        """By symbol the least and greatest size that the user's Dim allows."""
        return {a.size: limits(a.label) for a in self.asked}

    @cached_property
    def ranges(self) -> dict[sympy.Expr, tuple[int | None, int | None]]:
        """By symbol the least and greatest size of torch.export's range constraints."""
        said = self.graph.program.range_constraints if self.graph else {}
        return {symbol: (finite(r.lower), finite(r.upper)) for symbol, r in said.items()}

    def constraint(self, asked: Asked) -> str:
        """What torch.export says of a dimension, in words."""
        if self.graph is None:
            return "unknown"
        if asked.frozen:
            return f"{self.tensors[asked.tensor].shape[asked.axis]} alone"
        if not asked.size.is_Symbol:
            return str(asked.size)
        low, high = self.ranges.get(asked.size, (0, None))
        return f"{low or 0} to {high}" if high else f"{low} or more" if low else "any size"

    def moved(self, sizes: Mapping[sympy.Symbol, int]) -> tuple[Place, ...]:
        """Every dimension that varies, where the symbols have these sizes."""
        return tuple((*place, int(size.subs(sizes))) for place, size in self.sizes.items())

    def at(self, moved: Sequence[Place]) -> tuple[tuple, dict[str, Any]]:
        """The arguments of a call of these sizes: the example's own rows, and where these ascend,
        as offsets and boundaries do, they still ascend."""
        tensors = [tensor.clone() for tensor in self.tensors]
        for index, axis, size in moved:
            tensor = tensors[index]
            if axis is None:
                tensors[index] = tensor.clamp(max=size)
                continue
            rows = torch.arange(size) % tensor.shape[axis]
            if _ascends(tensor, axis):
                rows = rows.sort().values
            tensors[index] = tensor.index_select(axis, rows)
        return self.call(tensors)

    def in_range(self, moved: Sequence[Place]) -> tuple[Place, ...]:
        """What more to move for whole numbers to be places in each dimension that shrank; nothing
        where they are."""
        if any(axis is None for _, axis, _ in moved):
            return ()
        shrunk = [n for i, axis, n in moved if axis is not None and n < self.tensors[i].shape[axis]]
        most = min(shrunk, default=1) - 1
        large = (i for i, t in enumerate(self.tensors) if _is_whole(t) and bool((t > most).any()))
        return tuple((index, None, most) for index in large) if shrunk else ()


def in_graph(artifact: Artifact, graph: Graph, args: tuple, kwargs: Mapping[str, Any]) -> Subject:
    """An artifact that knows its model: dimensions vary together that torch.export found equal,
    or that the user gave one name."""
    names = graph.signature.tensor_inputs
    sizes = {
        (tensor, axis): size
        for tensor, dynamic in enumerate(graph.symbolic)
        for axis, size in dynamic.items()
    }
    named: dict[str, sympy.Expr] = {}
    for tensor, axes in enumerate(graph.axes):
        for axis, label in opened(axes).items():
            size = sizes.get((tensor, axis))
            if size is not None and size.is_Symbol and name_of(label):
                one = named.setdefault(name_of(label), size)
                sizes = {place: other.subs(size, one) for place, other in sizes.items()}
    asked = []
    for tensor, (name, axes) in enumerate(zip(names, graph.axes, strict=True)):
        for axis, label in opened(axes).items():
            frozen = (tensor, axis) not in sizes
            size = sizes.get((tensor, axis), sympy.Symbol(name_of(label) or f"{name}.{axis}"))
            promised = artifact.inputs[tensor].shape[axis]
            asked.append(Asked(name, tensor, axis, label, size, frozen, promised))
    sizes |= {(a.tensor, a.axis): a.size for a in asked}
    tensors = graph.signature.flatten(args, kwargs)
    return Subject(artifact, graph, tensors, graph.signature.call, sizes, asked)


def in_file(
    artifact: Artifact, args: tuple, kwargs: Mapping[str, Any], dynamic: Mapping[str, Any] | None
) -> Subject:
    """A file alone: dimensions vary together that have one name in it."""
    sizes = {
        (tensor, axis): sympy.Symbol(f"{value.name}.{axis}" if size == "?" else str(size))
        for tensor, value in enumerate(artifact.inputs)
        for axis, size in enumerate(value.shape or ())
        if isinstance(size, str)
    }
    asked = []
    for tensor, value in enumerate(artifact.inputs):
        declared = {i: size for i, size in enumerate(value.shape or ()) if isinstance(size, str)}
        for axis, label in opened(declared if dynamic is None else dynamic.get(value.name)).items():
            size = sizes.get((tensor, axis), sympy.Symbol(f"{value.name}.{axis}"))
            promised = value.shape[axis] if value.shape else "?"
            asked.append(Asked(value.name, tensor, axis, label, size, False, promised))
    sizes |= {(a.tensor, a.axis): a.size for a in asked}
    tensors = artifact.tensors(args, kwargs)
    return Subject(artifact, None, tensors, lambda given: (tuple(given), {}), sizes, asked)


def sweep(subject: Subject) -> list[list[Trial]]:
    """For each dimension asked for, every size that it was tried at, the others at the example's.

    A dimension that depends on others (their sum) takes part in the trials of each of these.
    """
    symbols = dict.fromkeys(s for asked in subject.asked for s in asked.size.free_symbols)
    with progress.bar(desc="probe", unit=" sizes", delay=2) as bar:
        found = {symbol: list(_trials(subject, symbol, bar.update)) for symbol in symbols}
    return [
        [
            replace(trial, size=int(asked.size.subs({**subject.example, symbol: trial.size})))
            for symbol in asked.size.free_symbols
            for trial in found[symbol]
        ]
        for asked in subject.asked
    ]


def _trials(subject: Subject, symbol: sympy.Symbol, step: Callable[[], Any]) -> Iterator[Trial]:
    refused = any(subject.refuses(asked) for asked in subject.asked if asked.size == symbol)
    usual = subject.example[symbol]
    trials: dict[int, Trial] = {}

    def at(size: int) -> None:
        moved = subject.moved({**subject.example, symbol: size})
        trials[size] = outcome(subject, size, moved, refused)
        step()

    for size in candidates(subject, symbol):
        at(size)
    for _ in range(_HALVINGS):
        for size in _undecided(trials, usual):
            at(size)
    return iter(trials.values())


def candidates(subject: Subject, symbol: sympy.Symbol) -> list[int]:
    """The sizes to try first: edges, the example's neighbours, primes, bounds and their neighbours.

    Those outside of what the user's Dim allows are left out.
    """
    usual = subject.example[symbol]
    low, high = subject.bounds.get(symbol, (None, None))
    least, most = subject.ranges.get(symbol, (None, None))
    low, least = low or 1, least or 1
    edges = [1, 2, low, least - 1, least, usual - 1, usual, usual + 1, *_PRIMES]
    edges += [size + beyond for size in (high, most) if size for beyond in (0, 1)]
    edges += [2 * usual, sympy.nextprime(2 * usual)]
    limit = min(high or max(_SMALL, 4 * usual), max(_SMALL, 4 * usual))
    return list(dict.fromkeys(int(size) for size in edges if low <= size <= limit))


def _undecided(trials: Mapping[int, Trial], usual: int) -> list[int]:
    """The middle between the last size that is fine and the first that is not, on either side."""
    fine = [size for size, trial in trials.items() if trial.outcome in FINE]
    if usual not in fine or len(fine) == 1:
        return []
    middles = []
    for end, other in ((max(fine), max(trials)), (min(fine), min(trials))):
        beyond = [size for size in trials if end < size <= other or other <= size < end]
        if beyond:
            nearest = min(beyond, key=lambda size: abs(size - end))
            middles.append((end + nearest) // 2)
    return [size for size in middles if size not in trials]


def outcome(subject: Subject, size: int, moved: tuple[Place, ...], refused: bool = False) -> Trial:
    """What one call comes to, in which dimensions are ``moved`` for the sake of ``size``.
    ``refused`` runs the model alone, since there is no file of such sizes.

    Where the model refuses the call, whole numbers may be offsets or indices into what shrank: it
    is tried again with smaller ones.
    """
    call = args, kwargs = subject.at(moved)
    if subject.graph is None:
        try:
            result = subject.artifact(*args, **kwargs)
        except WorkbenchError as error:
            return Trial(size, FAILS, str(error).splitlines()[0], call)
        said = lie(subject, args, kwargs, result)
        return Trial(size, LIES, said, call) if said else Trial(size, RUNS)
    try:
        result = answer(subject.graph.model, args, kwargs)
    except Exception as error:
        if smaller := subject.in_range(moved):
            again = outcome(subject, size, (*moved, *smaller), refused)
            if again.outcome not in (REFUSED, ALONE):
                return again
        said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        alone = not refused and not _failure(subject.artifact, args, kwargs)
        return Trial(size, ALONE if alone else REFUSED, said)
    if refused:
        return Trial(size, ANSWERS)
    try:
        agreement = verify(
            lambda *_, **__: result, subject.artifact, args, kwargs, tolerance=subject.tolerance
        )
    except WorkbenchError as error:
        return Trial(size, FAILS, str(error).splitlines()[0], call)
    if not agreement:
        return Trial(size, DIFFERS, agreement.worst.said, call)
    said = lie(subject, args, kwargs, result)
    return Trial(size, LIES, said, call) if said else Trial(size, AGREE)


def _ascends(tensor: torch.Tensor, axis: int) -> bool:
    rest = tensor.shape[axis] - 1
    if tensor.is_complex() or tensor.dtype is torch.bool or rest < 1:
        return False
    return bool((tensor.narrow(axis, 1, rest) >= tensor.narrow(axis, 0, rest)).all())


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def lie(subject: Subject, args: tuple, kwargs: Mapping[str, Any], result: Any) -> str:
    """What the file declares of its outputs and does not keep."""
    artifact, leaves = subject.artifact, pytree.tree_leaves(result)
    results = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    given = artifact.tensors(args, kwargs)
    return misstated(artifact.inputs, given, artifact.outputs, results)


def _failure(artifact: Artifact, args: tuple, kwargs: Mapping[str, Any]) -> str:
    try:
        artifact(*args, **kwargs)
    except WorkbenchError as error:
        return str(error).splitlines()[0]
    return ""
