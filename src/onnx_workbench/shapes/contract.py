"""``probe``: each dynamic dimension of a file, tried at many sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ..artifact import Artifact, export
from ..calls import normalize_call
from ..comparison import answer, checked
from ..errors import InputError
from ..formatting import Part, Report, Table, plural
from ..graph import Graph, capture, check_module, module_and_call, with_axes
from ..graph.dims import relaxed
from ..graph.exporter import Translations
from ..graph.guards import culprit
from ..proto import grouped
from ..torch_state import evaluating
from .declared import mismatch
from .located import located
from .trials import (
    BAD,
    FINE,
    TIED,
    UNTRIED,
    WRONG,
    Call,
    Dimension,
    Fault,
    Subject,
    Trial,
    of_file,
    of_graph,
    try_call,
    try_sizes,
)


@normalize_call
def probe(
    model: nn.Module | Artifact,
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    custom_translation_table: Translations | None = None,
    tolerance: float | tuple[float, float] | None = None,
) -> Contract:
    """Try each dynamic dimension of a model's ONNX file at many sizes, against the model itself.

    The sizes are 1 and 2, the size of the example and its neighbors, primes, and the bounds, edges
    first. Larger and smaller inputs repeat or drop rows of the example, so that indices stay in
    range. Dimensions of the same size vary together: those that torch.export found equal, or that
    share a name in a loaded file. Then all dimensions change at once, to different sizes, which
    finds dimensions that work only while they are equal; dimensions with one name stay equal.
    Numbers are compared as in :func:`~onnx_workbench.verify`. A size that the model itself refuses
    is no fault of the file.

    Args:
        model: a module, which is captured and exported to a temporary file; an Artifact of
            :func:`~onnx_workbench.export`, which knows its model; or one of
            :func:`~onnx_workbench.load`, for which probe tells which sizes run, but not whether the
            numbers are right.
        args, kwargs: the arguments of one call. An exported Artifact knows them.
        dynamic_shapes: the dimensions to try, as :func:`~onnx_workbench.capture` takes them; by
            input name for a loaded file. The default is what an Artifact was exported with, or
            declares.
        custom_translation_table: as for :func:`~onnx_workbench.export`, for a module.
        tolerance: as for :func:`~onnx_workbench.verify`.

    Raises:
        InputError: no dimension is dynamic, or the arguments do not fit.
        CaptureError, ExportError: there is no file to try.

    >>> import torch
    >>> probe(nn.Linear(8, 2).eval(), torch.ones(5, 8), dynamic_shapes={"input": {0: "batch"}})
    KEPT: 1 dynamic dimension
    dimension       asked as  file says  torch.export says  verdict  sizes tried
    --------------  --------  ---------  -----------------  -------  ------------------------------
    input.shape[0]  batch     batch      any size           kept     agrees: 1 2 3 4 5 6 7 10 11 13
    """
    bounds = checked(tolerance)
    model, args, kwargs, dynamic_shapes = module_and_call(model, args, kwargs or {}, dynamic_shapes)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if isinstance(model, Artifact):
            subject = _of_artifact(model, args, kwargs, dynamic_shapes)
        else:
            path = Path(folder) / "probed.onnx"
            call, table = (args, kwargs), custom_translation_table
            subject = _of_module(model, call, dynamic_shapes or {}, path, table)
        subject = replace(subject, tolerance=bounds)
        if not subject.dimensions:
            raise InputError(
                "probe() has no dynamic dimension to try.",
                "Name the dimensions that may change: dynamic_shapes={'x': {0: 'batch'}}.",
            )
        with evaluating(subject.graph.model) if subject.graph else nullcontext():
            dimensions = try_sizes(subject)
            joints = tuple(_joints(subject, dimensions))
        dimensions = [_tied(dimension, joints) for dimension in dimensions]
        if subject.graph and not all(dimensions):
            blamed = _blamed(dimensions, subject.graph)
            dimensions = [_located(dimension, subject) for dimension in blamed]
    return Contract(tuple(dimensions), subject.graph is not None, joints)


@dataclass(frozen=True)
class Joint:
    """What happened with these dimensions at these sizes, and the others as in the example.

    ``alike`` is True if two dimensions fail together but work if their sizes are equal.
    """

    dimensions: tuple[str, ...]
    sizes: tuple[int, ...]
    outcome: str
    reason: str
    call: Call | None = field(default=None, compare=False, repr=False)
    alike: bool = False

    def __str__(self) -> str:
        at = " and ".join(f"{d} = {n}" for d, n in zip(self.dimensions, self.sizes, strict=True))
        only = ", and it agrees only where both are equal" if self.alike else ""
        return f"at {at}: {self.outcome}{': ' * bool(self.reason)}{self.reason}{only}"


_HEADER = ("dimension", "asked as", "file says", "torch.export says", "verdict", "sizes tried")


@dataclass(frozen=True, repr=False)
class Contract(Report):
    """The result of :func:`probe`; true if every dimension tried is kept.

    A dimension kept within bounds counts as kept if the model itself refuses all other sizes.
    ``compared`` is False if there was no model to compare numbers with; ``joints`` are the trials
    in which several dimensions changed at once.
    """

    dimensions: tuple[Dimension, ...]
    compared: bool
    joints: tuple[Joint, ...] = ()

    def __bool__(self) -> bool:
        return all(self.dimensions) and self.compared and not self.clashes

    @property
    def clashes(self) -> tuple[Joint, ...]:
        """The trials that failed with several dimensions changed: with two, if any."""
        bad = [joint for joint in self.joints if joint.outcome in BAD]
        pairs = [joint for joint in bad if len(joint.dimensions) == 2]
        first: dict[tuple[str, ...], Joint] = {}
        for joint in pairs or bad:
            first.setdefault(joint.dimensions, joint)
        return tuple(first.values())

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        yield Table([*map(_row, self.dimensions)], _HEADER)
        yield from map(str, self.clashes)
        for dimension in self.dimensions:
            yield from _notes(dimension)

    def _headline(self) -> str:
        count = plural(len(self.dimensions), "dynamic dimension")
        broken = sum(not d and not d.verdict.startswith(("runs", UNTRIED)) for d in self.dimensions)
        if broken:
            return f"BROKEN: {broken} of {count}"
        if self.clashes:
            return f"BROKEN: {count}, each kept alone but not all together"
        if UNTRIED in (dimension.verdict for dimension in self.dimensions):
            return f"NOT PROVEN: {count}; the model refuses every size but the example's"
        if not self.compared:
            return f"NOT PROVEN: {count}; the numbers cannot be checked without the model"
        return f"KEPT: {count}"


def _row(d: Dimension) -> tuple[str, ...]:
    trials = sorted(d.trials, key=lambda trial: trial.size)
    sizes = grouped((trial.outcome, str(trial.size)) for trial in trials)
    tried = "; ".join(f"{outcome}: {' '.join(numbers)}" for outcome, numbers in sizes.items())
    says = repr(d.declared) if str(d.declared).isdigit() else d.declared
    return (d.place, d.name, str(says), d.constraint, d.verdict, tried)


def _notes(dimension: Dimension) -> Iterator[str]:
    guard, fault = dimension.guard, dimension.fault
    if guard:
        yield f"{dimension.place}: {guard}"
        yield from (f"    {name} = {value}" for name, value in guard.locals.items())
    elif not dimension and not dimension.verdict.startswith(TIED):
        reason = dimension.first_bad.reason.partition(". ")[0] if dimension.first_bad else ""
        yield f"{dimension.place}: {reason or dimension.verdict}"
        if fault:
            yield f"    {fault.reason}{f' at {fault.line}' if fault.line else ''}"
    if dimension.repair:
        yield f"    What helps: {dimension.repair}"


def _of_module(
    model: nn.Module, call: Call, dynamic: Any, path: Path, table: Translations | None
) -> Subject:
    """Capture with the requested dimensions, whether they can be kept or not, and export."""
    check_module("probe", model)
    graph = with_axes(capture(model, *call, dynamic_shapes=relaxed(dynamic)), *call, dynamic)
    file = export(graph, f=path, custom_translation_table=table)
    return replace(of_graph(file, graph, *call), made_by_probe=True)


def _of_artifact(artifact: Artifact, args: tuple, kwargs: dict[str, Any], dynamic: Any) -> Subject:
    graph = artifact.graph
    if graph is None:
        return of_file(replace(artifact, isolated=True), args, kwargs, dynamic)
    if not (args or kwargs):
        args, kwargs = graph.example
    if dynamic is not None:
        graph = with_axes(graph, args, kwargs, dynamic)
    return of_graph(artifact, graph, args, kwargs)


class _Group(NamedTuple):
    """The dimensions with one name, their size in the example, and the sizes that work."""

    dimensions: list[Dimension]
    usual: int
    fine: list[int]


def _joints(subject: Subject, dimensions: Sequence[Dimension]) -> Iterator[Joint]:
    """Change all dimensions at once, upwards and downwards; if that fails, each pair of them.

    Dimensions change together only if the user gave them one name: torch.export may assume that two
    sizes are equal while the model does not need it. All sizes work for the dimension alone.
    """
    groups = _groups(subject, dimensions)
    if len(groups) < 2:
        return
    upwards, downwards = _different(groups), _different(groups[::-1])[::-1]
    first = [_joint(subject, groups, sizes) for sizes in (upwards, downwards)]
    yield from first
    if len(groups) > 2 and any(joint.outcome not in FINE for joint in first):
        for pair in combinations(groups, 2):
            yield _joint(subject, pair, _different(pair))


def _groups(subject: Subject, dimensions: Sequence[Dimension]) -> list[_Group]:
    groups: dict[object, _Group] = {}
    for d in dimensions:
        fine = sorted({t.size for t in d.trials if t.outcome in FINE and t.size > 1})
        if d.size.is_Symbol and not d.frozen and len(fine) > 1:
            new = _Group([], subject.usual(d.at), fine)
            groups.setdefault(d.name or d.at, new).dimensions.append(d)
    return [*groups.values()]


def _different(groups: Sequence[_Group]) -> list[int]:
    """For each group the smallest size that no other has and that is not the example's, if any."""
    chosen: list[int] = []
    for group in groups:
        free = (n for n in group.fine if n not in chosen and n != group.usual)
        chosen.append(next(free, group.usual))
    return chosen


def _joint(subject: Subject, groups: Sequence[_Group], sizes: Sequence[int]) -> Joint:
    done = _trial(subject, groups, sizes)
    alike = len(groups) == 2 and done.outcome in BAD and _alike(subject, *groups)
    places = tuple(group.dimensions[0].place for group in groups)
    return Joint(places, tuple(sizes), done.outcome, done.reason, done.call, alike)


def _alike(subject: Subject, one: _Group, other: _Group) -> bool:
    """Whether both groups have one size in the example and also work at another common size."""
    both = sorted(set(one.fine) & set(other.fine) - {one.usual})[:1]
    same = (_trial(subject, (one, other), (size, size)).outcome in FINE for size in both)
    return one.usual == other.usual and any(same)


def _trial(subject: Subject, groups: Sequence[_Group], sizes: Sequence[int]) -> Trial:
    pairs = [(d, n) for group, n in zip(groups, sizes, strict=True) for d in group.dimensions]
    moved = subject.moved({d.size: size for d, size in pairs})
    return try_call(subject, max(sizes), moved | {d.at: size for d, size in pairs})


def _tied(dimension: Dimension, joints: Sequence[Joint]) -> Dimension:
    """The dimension, with the others that it must be equal to in its verdict."""
    tied = (joint.dimensions for joint in joints if joint.alike)
    pairs = {places for places in tied if dimension.place in places}
    others = ", ".join(sorted({place for pair in pairs for place in pair} - {dimension.place}))
    return replace(dimension, verdict=f"{TIED} {others}") if others else dimension


def _blamed(dimensions: Sequence[Dimension], graph: Graph) -> Iterator[Dimension]:
    """Give each dimension that is not kept the guard of torch.export that explains it."""
    paths = dict(zip(graph.signature.inputs, graph.signature.paths, strict=True))
    culprits = [culprit(graph.guards, f"{paths[d.input]}.shape[{d.axis}]") for d in dimensions]
    for dimension, guard in zip(dimensions, culprits, strict=True):
        if dimension or dimension.verdict == WRONG:
            yield dimension
            continue
        # of the guards for one name, the first: it froze the other dimensions, too
        named = zip(dimensions, culprits, strict=True) if dimension.name else ()
        froze = [g for d, g in named if d.name == dimension.name and g and g.freezes]
        yield replace(dimension, guard=min(froze, key=graph.guards.index, default=guard))


def _located(dimension: Dimension, subject: Subject) -> Dimension:
    """Give a dimension without a guard the fault at the first size that fails."""
    first, graph = dimension.first_bad, subject.graph
    if dimension or dimension.guard or first is None or first.call is None or graph is None:
        return dimension
    result = answer(graph.model, *first.call)
    return replace(dimension, fault=located(graph, subject.artifact, result, *first.call))


def misdeclared(artifact: Artifact, args: tuple, kwargs: dict[str, Any]) -> Fault | None:
    """The fault if an output of an exported file differs from its declared shape."""
    result = artifact(*args, **kwargs)
    reason = mismatch(artifact, args, kwargs, result)
    if not reason or artifact.graph is None:
        return None
    fault = located(artifact.graph, artifact, result, args, kwargs) or Fault(None, "", "")
    return replace(fault, reason=f"{reason}{': ' * bool(fault.reason)}{fault.reason}")
