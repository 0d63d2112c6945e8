"""Shapes promised, shapes kept: each dynamic dimension of a file, tried at many sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import Any

from torch import nn

from ..artifact import Artifact, export
from ..calls import door
from ..comparison import answer, checked
from ..errors import CaptureError, InputError
from ..formatting import html_table, plural, table
from ..graph import Graph, axes_of, capture, opened_up
from ..graph.dims import demanded, limits, relaxed
from ..graph.exporter import Translations
from ..graph.guards import Guard, culprit, listening
from ..source import Line
from ..torch_state import evaluating
from .located import Fault, located
from .sizes import BAD, DIFFERS, FINE, Asked, Subject, Trial, in_file, in_graph, lie, sweep
from .together import Joint, apart, joint

KEPT = "kept"
WITHIN = "kept within"
STATIC = "static in silence"
BROKEN = "advertised but broken"
REFUSED = "refused by capture"
WRONG = "wrong at the example's own size"
RUNS = "runs, numbers unknown"
TIED = "kept as equal to"
UNTRIED = "not tried: the model refuses all other sizes"
"""The verdicts on a dimension; "kept within" is followed by bounds, such as "[1, 32]", and "kept as
equal to" by another dimension. RUNS is all that can be said of a file without its model."""

_HEADER = ("dimension", "asked as", "file says", "torch.export says", "verdict", "sizes tried")
_REPAIRS = {
    STATIC: "Name it in `dynamic_shapes`: then export() raises where the model freezes it.",
    WRONG: "It is not the size: verify() the call of the example itself, and mend that first.",
    UNTRIED: "Take the dimension out of `dynamic_shapes` if it never changes. If it does, an input "
    "holds numbers that depend on it, such as offsets or lengths, and probe() cannot make them up: "
    "verify() calls of your own with other sizes.",
    RUNS: "Give probe() the model: a file alone does not know the right numbers.",
}
_EQUAL = "Give both one name, or the same Dim. If they may differ, let them differ in the example."
_LOOK = "Call verify() with one of these sizes: nothing in the graph says which line it is."
_BRING = "Give probe() the model that this file came from: it finds the line."
"""Where there is no guard and no fault, or no model to look into."""


@door
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

    The sizes are 1 and 2, the size of the example and its neighbours, primes, and the bounds, edges
    first. The larger and smaller inputs are made of the example's own rows, so that an index stays
    in range. Dimensions that stand for the same size vary together: those that torch.export found
    to be one, or that share a name in a file which was loaded. Then all dimensions move at once, to
    sizes that differ, so that two which are kept only while they are equal are found, whatever
    torch.export made of them; dimensions of one name stay equal. Numbers are compared as
    :func:`~onnx_workbench.verify` does it, and a size that the model itself refuses is no fault of
    the file.

    Args:
        model: a module, which is captured and exported to a temporary file; an Artifact of
            :func:`~onnx_workbench.export`, which knows its model; or one of
            :func:`~onnx_workbench.load`, of which can be said what it declares and where it runs,
            and not whether its numbers are right.
        args, kwargs: the arguments of one call. An exported Artifact knows them.
        dynamic_shapes: the dimensions asked for, as :func:`~onnx_workbench.capture` takes them; by
            name of the input for a loaded file. The default is what an Artifact was exported with,
            or declares.
        custom_translation_table: as for :func:`~onnx_workbench.export`, for a module.
        tolerance: as for :func:`~onnx_workbench.verify`.

    Raises:
        InputError: nothing is asked for, or the arguments do not fit.
        CaptureError, ExportError: there is no file to try.

    >>> import torch
    >>> probe(nn.Linear(8, 2).eval(), torch.ones(5, 8), dynamic_shapes={"input": {0: "batch"}})
    KEPT: 1 dynamic dimension
    dimension       asked as  file says  torch.export says  verdict  sizes tried
    --------------  --------  ---------  -----------------  -------  ------------------------------
    input.shape[0]  batch     batch      any size           kept     agrees: 1 2 3 4 5 6 7 10 11 13
    """
    bounds = checked(tolerance)
    model, args, kwargs, dynamic_shapes = opened_up(model, args, kwargs or {}, dynamic_shapes)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if isinstance(model, Artifact):
            subject = _of_artifact(model, args, kwargs, dynamic_shapes)
        else:
            graph = _captured(model, args, kwargs, dynamic_shapes or {})
            file = replace(graph, axes=_standing(graph))
            artifact = export(
                file,
                f=Path(folder) / "probed.onnx",
                custom_translation_table=custom_translation_table,
            )
            subject = replace(in_graph(artifact, graph, args, kwargs), exported=False)
        subject = replace(subject, tolerance=bounds)
        if not subject.asked:
            raise InputError(
                "probe() was asked for no dynamic dimension. Name what may change, for example "
                "dynamic_shapes={'x': {0: 'batch'}}."
            )
        with evaluating(subject.graph.model) if subject.graph else nullcontext():
            found = sweep(subject)
            joints = tuple(joint(subject, found))
        dimensions = [
            _tied(_dimension(asked, trials, subject), joints)
            for asked, trials in zip(subject.asked, found, strict=True)
        ]
        if subject.graph and not all(dimensions):
            dimensions = _blamed(dimensions, subject.graph, subject.call(subject.tensors))
            dimensions = [_located(dimension, subject) for dimension in dimensions]
    return Contract(tuple(dimensions), subject.graph is not None, joints)


@dataclass(frozen=True)
class Dimension:
    """One dimension that was asked to be dynamic.

    ``promised`` is what the input of the file says, ``constraint`` what torch.export's range
    constraints say. ``guard`` is the assumption of the capture that froze or bounded it, with its
    ``line`` and ``locals``; it is None where the dimension is kept, or torch made none: then
    ``fault`` is what goes wrong at the first size that fails.
    """

    input: str
    axis: int
    name: str
    verdict: str
    promised: int | str
    constraint: str
    trials: tuple[Trial, ...]
    guard: Guard | None = None
    fault: Fault | None = None

    def __bool__(self) -> bool:
        broken = any(trial.outcome in BAD for trial in self.trials)
        return self.verdict == KEPT or (self.verdict.startswith(WITHIN) and not broken)

    @property
    def line(self) -> Line | None:
        """The user's line that made the assumption, or that fails at a size."""
        return (self.guard or self.fault).line if self.guard or self.fault else None

    @property
    def locals(self) -> Mapping[str, str]:
        """The tensors and sizes that this line works with."""
        return self.guard.locals if self.guard else {}

    @property
    def repair(self) -> str:
        """What usually helps; empty where nothing is to be mended."""
        if self.verdict.startswith(TIED):
            return _EQUAL
        if self.guard:
            return self.guard.repair
        if self.fault:
            return self.fault.repair
        usual = _BRING if self.constraint == "unknown" else _LOOK
        return "" if self else _REPAIRS.get(self.verdict, usual)

    @property
    def place(self) -> str:
        """
        >>> Dimension("x", 1, "words", KEPT, "words", "", ()).place
        'x.shape[1]'
        """
        return f"{self.input}.shape[{self.axis}]"


@dataclass(frozen=True, repr=False)
class Contract:
    """The answer of :func:`probe`; true where every dimension asked for is kept.

    A dimension kept within bounds counts as kept where the model itself refuses what lies outside.
    ``compared`` is False where there was no model to compare numbers with; ``joints`` are the
    trials in which several dimensions had other sizes than the example's, and all of them differed.
    """

    dimensions: tuple[Dimension, ...]
    compared: bool
    joints: tuple[Joint, ...] = ()

    def __bool__(self) -> bool:
        return all(self.dimensions) and self.compared and not self.clashes

    @property
    def clashes(self) -> tuple[Joint, ...]:
        """The fewest dimensions that are not kept when they are moved together."""
        bad = [one for one in self.joints if one.outcome in BAD]
        pairs = [one for one in bad if len(one.dimensions) == 2]
        return tuple({one.dimensions: one for one in (pairs or bad)[::-1]}.values())[::-1]

    def __repr__(self) -> str:
        parts = [self._headline(), table(map(_row, self.dimensions), _HEADER)]
        return "\n".join([*parts, *self._notes()])

    def _repr_html_(self) -> str:
        notes = escape("\n".join(self._notes()))
        rows = html_table(map(_row, self.dimensions), _HEADER)
        return f"<p>{escape(self._headline())}</p>{rows}<pre>{notes}</pre>"

    def _notes(self) -> Iterator[str]:
        yield from map(str, self.clashes)
        for dimension in self.dimensions:
            yield from _notes(dimension)

    def _headline(self) -> str:
        count = plural(len(self.dimensions), "dynamic dimension")
        broken = sum(not d and not d.verdict.startswith(("runs", UNTRIED)) for d in self.dimensions)
        if broken:
            return f"BROKEN: {broken} of {count}"
        if self.clashes:
            return f"BROKEN: {count}, kept one at a time and not together"
        if UNTRIED in (dimension.verdict for dimension in self.dimensions):
            return f"NOT PROVEN: {count}; the model refuses every size but the example's"
        if not self.compared:
            return f"NOT PROVEN: {count}; without the model nobody knows if the numbers are right"
        return f"KEPT: {count}"


def _row(dimension: Dimension) -> tuple[str, ...]:
    d = dimension
    says = repr(d.promised) if str(d.promised).isdigit() else d.promised
    return (d.place, d.name, str(says), d.constraint, d.verdict, _tried(d.trials))


def _tried(trials: Sequence[Trial]) -> str:
    sizes: dict[str, list[str]] = {}
    for trial in sorted(trials, key=lambda trial: trial.size):
        sizes.setdefault(trial.outcome, []).append(str(trial.size))
    return "; ".join(f"{outcome}: {' '.join(found)}" for outcome, found in sizes.items())


def _notes(dimension: Dimension) -> Iterator[str]:
    guard = dimension.guard
    if guard:
        yield f"{dimension.place}: {guard}"
        yield from (f"    {name} = {value}" for name, value in guard.locals.items())
    elif not dimension and not dimension.verdict.startswith(TIED):
        said = next((t.said.partition(". ")[0] for t in dimension.trials if t.outcome in BAD), "")
        yield f"{dimension.place}: {said or dimension.verdict}"
        if dimension.fault:
            at = f" at {dimension.fault.line}" if dimension.fault.line else ""
            yield f"    {dimension.fault.reason}{at}"
    if dimension.repair:
        yield f"    What helps: {dimension.repair}"


def _captured(model: nn.Module, args: tuple, kwargs: Any, dynamic: Mapping[str, Any]) -> Graph:
    """The graph with what was asked for, whether it can be kept or not."""
    graph = capture(model, args, kwargs, dynamic_shapes=relaxed(dynamic))
    return replace(graph, axes=axes_of(graph, args, kwargs, dynamic))


def _of_artifact(
    artifact: Artifact, args: tuple, kwargs: Any, dynamic: Mapping[str, Any] | None
) -> Subject:
    graph = artifact.graph
    if graph is None:
        return in_file(replace(artifact, isolated=True), args, kwargs, dynamic)
    if not (args or kwargs):
        args, kwargs = graph.program.example_inputs
    if dynamic is not None:
        graph = replace(graph, axes=axes_of(graph, args, kwargs, dynamic))
    return in_graph(artifact, graph, args, kwargs)


def _standing(graph: Graph) -> tuple[dict[int, Any] | None, ...]:
    """The axes without those that capture would have refused."""
    return tuple(
        {i: a for i, a in (axes or {}).items() if i in dynamic or not demanded(a)}
        for axes, dynamic in zip(graph.axes, graph.symbolic, strict=True)
    )


def _dimension(asked: Asked, trials: Sequence[Trial], subject: Subject) -> Dimension:
    """The dimension and its verdict; who is to blame comes later."""
    usual = subject.tensors[asked.tensor].shape[asked.axis]
    if subject.refuses(asked):
        verdict = REFUSED
    elif isinstance(asked.promised, int):
        verdict = STATIC
    elif any(trial.size == usual and trial.outcome == DIFFERS for trial in trials):
        verdict = WRONG
    else:
        verdict = BROKEN if asked.frozen else _moving(asked, trials, usual, subject)
    return Dimension(
        asked.input,
        asked.axis,
        asked.name,
        verdict,
        "" if verdict == REFUSED else asked.promised,
        subject.constraint(asked),
        tuple(trials),
    )


def _tied(dimension: Dimension, joints: Sequence[Joint]) -> Dimension:
    """The dimension, and which others it must be equal to."""
    others = ", ".join(apart(joints, dimension.place))
    return replace(dimension, verdict=f"{TIED} {others}") if others else dimension


def _moving(asked: Asked, trials: Sequence[Trial], usual: int, subject: Subject) -> str:
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
        return KEPT if subject.graph else RUNS
    return f"{WITHIN if subject.graph else 'runs within'} [{first}, {last}]"


def _run(trials: Sequence[Trial], usual: int) -> list[int]:
    """The sizes around the example's, up to the first on either side that is not fine."""
    below = takewhile(_fine, (t for t in reversed(trials) if t.size <= usual))
    above = takewhile(_fine, (t for t in trials if t.size > usual))
    return sorted(trial.size for trial in (*below, *above))


def _fine(trial: Trial) -> bool:
    return trial.outcome in FINE


def _blamed(
    dimensions: Sequence[Dimension], graph: Graph, call: tuple[tuple, dict[str, Any]]
) -> list[Dimension]:
    """Those that are not kept, with the guard that torch.export made of them."""
    asked = graph.signature.dynamic_shapes(graph.axes)
    with listening() as heard, suppress(CaptureError):
        capture(graph.model, call[0], call[1], dynamic_shapes=relaxed(asked))
    sources = dict(zip(graph.signature.inputs, graph.signature.sources, strict=True))
    own = {d: culprit(heard, f"{sources[d.input]}.size()[{d.axis}]") for d in dimensions}

    def guard(dimension: Dimension) -> Guard | None:
        """Of one name the first that froze it: the others had to follow."""
        named = [found for d, found in own.items() if d.name and d.name == dimension.name]
        froze = [found for found in named if found and found.freezes]
        return min(froze, key=heard.index, default=own[dimension])

    return [d if d or d.verdict == WRONG else replace(d, guard=guard(d)) for d in dimensions]


def _located(dimension: Dimension, subject: Subject) -> Dimension:
    """One that no guard speaks of, with what goes wrong at the first size that fails."""
    first = next((trial for trial in dimension.trials if trial.outcome in BAD), None)
    if dimension or dimension.guard or first is None or subject.graph is None:
        return dimension
    args, kwargs = first.call
    result = answer(subject.graph.model, args, kwargs)
    fault = located(subject.graph, subject.artifact, result, args, kwargs)
    return replace(dimension, fault=fault)


def misdeclared(artifact: Artifact, args: tuple, kwargs: dict[str, Any]) -> Fault | None:
    """What an exported file declares of its outputs and does not keep at the example's sizes."""
    assert artifact.graph is not None
    subject = in_graph(artifact, artifact.graph, args, kwargs)
    result = artifact(*args, **kwargs)
    said = lie(subject, args, kwargs, result)
    if not said:
        return None
    fault = located(artifact.graph, artifact, result, args, kwargs) or Fault(None, "", "")
    return replace(fault, reason=f"{said}{': ' * bool(fault.reason)}{fault.reason}")
