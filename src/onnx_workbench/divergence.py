"""The first value of a file that is not the model's: its node, its module, its line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._pytree as pytree
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from . import causes, plots, progress
from .artifact import Artifact
from .causes import Cause
from .comparison import (
    Agreement,
    Grains,
    Tolerance,
    compare,
    distance,
    tolerance_of,
)
from .errors import InputError, WorkbenchError
from .exporter_metadata import call_site
from .formatting import kind_of, plural, shaped, table
from .lineage import table as lineage
from .lineage.table import Lineage
from .proto import node_refs
from .runs.intermediates import Exposed
from .runs.program import ProgramRun, stored
from .source import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHUNK = 256_000_000
"""Bytes of values that are held at a time, in PyTorch and again in ONNX Runtime."""

_JUMP = 10.0
"""A node whose error is this many times that of its inputs made it; one below passed it on."""

INNER = "a step inside one FX node, which PyTorch has no value for"
BODY = "in the body of a node or function, which cannot be an output"
GONE = "no value of that name in the file: folded, merged or a view"
RANDOM = "follows from a random operator"
KIND = "another kind of value: a size, or a sequence"


def compare_values(
    artifact: Artifact,
    args: tuple,
    kwargs: Mapping[str, Any],
    results: Sequence[Any],
    tolerance: Tolerance | None,
) -> Divergence:
    """The values of a file beside those of the graph that it was translated from."""
    run = _Beside(artifact.translated, artifact, artifact.feeds(*args, **kwargs), tolerance)
    leaves = artifact.signature.flatten(args, dict(kwargs))
    made = run.along(leaves)
    result = artifact.signature.unflatten(made)
    grains = [run.grains.of(leaf) for leaf in pytree.tree_leaves(result)]
    outputs = compare(*results, tolerance, grains)
    captured = compare(results[0], result, tolerance, grains)
    run.judge(leaves)
    return run.divergence(outputs, captured, lineage.trace(artifact))


@dataclass(frozen=True)
class Step:
    """One value, in PyTorch and in ONNX Runtime.

    ``node`` makes it in the file, ``fx`` in the graph. ``error`` is relative as :func:`verify` says
    it, ``inherited`` the largest error among the nearest compared values that it was computed from.
    ``weights`` are weights of a wrong value that are not the model's. ``reason`` and ``repair`` are
    known where the node was recomputed alone; ``rounding`` is a wrong value of a node that is not
    at fault.
    """

    name: str
    node: str
    operator: str
    fx: str
    module: str
    line: Line | None
    value: str
    error: float
    inherited: float
    tolerance: float
    wrong: bool
    blamed: bool = False
    weights: tuple[str, ...] = ()
    reason: str = ""
    repair: str = ""
    rounding: bool = False

    @property
    def jump(self) -> bool:
        """Whether the error was made here, rather than brought along."""
        return self.error >= _JUMP * self.inherited

    def __repr__(self) -> str:
        way = "a jump" if self.jump else "drift"
        text = f"\n    {self.line.text}" if self.line else ""
        lost = f"\n    its {', '.join(self.weights)} in the file is not the model's"
        return (
            f"{self.node} ({self.operator}){' in ' if self.module else ''}{self.module}, "
            f"{self.line.place if self.line else 'no line'}: error {self.error:.1e}, {way} from "
            f"inputs with {self.inherited:.1e}{text}{lost if self.weights else ''}"
            f"{f'{chr(10)}    {self.reason}' if self.reason else ''}"
        )


@dataclass(frozen=True, repr=False, eq=False)
class Divergence:
    """The verdict of ``verify(values=True)``.

    ``outputs`` compares what ``a`` and ``b`` return, ``steps`` the values inside ``b`` in the order
    in which they are computed. ``captured`` compares what ``a`` and the captured graph return, both
    in PyTorch. ``apart`` has the values that cannot be compared, by reason, and ``random`` the
    operators that draw new numbers on every call, with their lines.
    """

    outputs: Agreement
    captured: Agreement
    steps: tuple[Step, ...]
    apart: Mapping[str, tuple[str, ...]]
    random: Mapping[str, Line | None]

    def __bool__(self) -> bool:
        return bool(self.outputs)

    @cached_property
    def first(self) -> Step | None:
        """The first wrong value whose inputs agree, and whose error is not rounding."""
        return next((step for step in self.steps if step.blamed), None)

    @property
    def rounding(self) -> tuple[Step, ...]:
        """The values beyond tolerance that ONNX Runtime computes as exactly as PyTorch."""
        return tuple(step for step in self.steps if step.rounding)

    @property
    def blamed(self) -> tuple[Step, ...]:
        """Every wrong value whose inputs agree: as many faults, unless one hides another."""
        return tuple(step for step in self.steps if step.blamed)

    @property
    def largest(self) -> Step | None:
        """The value with the largest error, which is seldom where the fault is."""
        return max(self.steps, key=lambda step: step.error, default=None)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The error of each value along the graph, beside its tolerance."""
        return plots.growth(
            [step.error for step in self.steps],
            [step.tolerance for step in self.steps],
            marked={
                i: s.line.place if s.line else s.node for i, s in enumerate(self.steps) if s.blamed
            },
            title=self._headline(),
            note=self._count(),
            ax=ax,
        )

    def __repr__(self) -> str:
        parts = [self._headline(), *map(repr, self.blamed[:3]), *self._table(), *self._notes()]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def _headline(self) -> str:
        count = plural(len(self.steps), "value")
        if self.first:
            place = self.first.line.place if self.first.line else self.first.node
            wrong = sum(step.wrong for step in self.steps)
            where = f"first at {place}, {self.first.operator}; {wrong:,} of {count}"
            if self.outputs:
                return f"AGREE: the outputs; inside, {where} beyond tolerance"
            return f"DIFFERENT: {where} beyond tolerance"
        if self.random and not self.outputs:
            where = [f"{name} ({line.place})" if line else name for name, line in self._drawn()]
            return f"RANDOM: {', '.join(where)} gives new numbers on every call"
        if self.outputs and self.rounding:
            return f"AGREE: {count} and the outputs, {len(self.rounding):,} of them by rounding"
        if self.outputs:
            return f"AGREE: {count} and the outputs within tolerance"
        other_kind = [
            leaf.reason for leaf in self.outputs.leaves if leaf.worst is None and leaf.reason
        ]
        if not self.captured:
            why = "the captured graph is not the model"
        elif other_kind:
            why = other_kind[0]
        else:
            why = "ONNX Runtime's optimizer changed them"
        return f"DIFFERENT: the outputs, while all {count} agree: {why}"

    def _drawn(self) -> list[tuple[str, Line | None]]:
        return list(self.random.items())

    def _count(self) -> str:
        missing = sum(map(len, self.apart.values()))
        return f"{plural(len(self.steps), 'value')} compared, {missing:,} not comparable"

    def _table(self) -> Iterator[str]:
        found = (*self.blamed[:8], *self.rounding[:4], self.largest)
        shown = list(dict.fromkeys(filter(None, found)))
        if shown:
            yield table(
                (
                    (
                        s.node,
                        s.line.place if s.line else "",
                        s.value,
                        f"{s.error:.1e}",
                        f"{s.inherited:.1e}",
                        f"{s.tolerance:.0e}",
                        _verdict(s, s is self.largest),
                    )
                    for s in shown
                ),
                ("node", "line", "value", "error", "of its inputs", "tolerance", ""),
            )

    def _notes(self) -> Iterator[str]:
        yield self._count()
        rows = [(f"{len(names):,}", reason, names[0]) for reason, names in self.apart.items()]
        rows += [("random", name, line.place if line else "") for name, line in self._drawn()]
        if rows:
            yield table(rows)
        if not self.outputs or any(leaf.note for leaf in self.outputs.leaves):
            yield repr(self.outputs)


def _verdict(step: Step, largest: bool) -> str:
    words = (
        ["rounding"]
        if step.rounding
        else ["wrong, inputs agree"]
        if step.blamed
        else ["wrong"]
        if step.wrong
        else ["agrees"]
    )
    return ", ".join([*words, "the largest"] if largest else words)


def check_graph(b: object) -> None:
    if not isinstance(b, Artifact):
        raise InputError(
            f"verify(values=True) was given {kind_of(b)} as 'b', and it looks into an "
            "artifact. Pass what export() returned: verify(model, artifact, x, values=True)."
        )
    if b.translated is None:
        raise InputError(
            f"{b.path.name} has no graph beside it to compare its values with: it was loaded from "
            "a file, or made with dynamo=False. Pass what export() returned, or leave values=True "
            "out and compare the outputs."
        )


@dataclass(frozen=True)
class _Error:
    value: str
    error: float
    tolerance: float
    wrong: bool
    bounds: Tolerance = (0.0, 0.0)
    cause: Cause | None = None


class _Beside(ProgramRun):
    """Runs the graph that was translated, and compares what its nodes make, a chunk at a time."""

    def __init__(
        self,
        program: ExportedProgram,
        artifact: Artifact,
        feeds: Mapping[str, Any],
        tolerance: Tolerance | None,
    ) -> None:
        super().__init__(program)
        self.tolerance, self.grains = tolerance, Grains()
        self.exposed = Exposed(artifact.unchanged, artifact.proto, artifact.provider, feeds)
        self.held: dict[fx.Node, tuple[str, torch.Tensor, torch.dtype | None]] = {}
        self.results: list[torch.Tensor] = []
        self.sizes: set[fx.Node] = set()
        self.bytes = 0
        self.errors: dict[fx.Node, _Error] = {}
        self.names: dict[fx.Node, str] = {}
        self.drawn: list[fx.Node] = []
        self.tainted: set[fx.Node] = set()
        self.apart: dict[str, list[str]] = {}

    def along(self, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the whole graph, and return what it does. The generator of random numbers is left as
        it was."""
        total = len(self.program.graph.nodes)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            progress.bar(total=total, desc="values", delay=2) as self.bar,
        ):
            for _ in self.steps(leaves):
                pass
            self._flush()
        return self.results

    def run_node(self, n: fx.Node) -> Any:
        self.bar.update()
        if n.op == "output":
            self.results = self._returned(n)
            return None
        with self.grains:
            result = super().run_node(n)
        if n.op == "call_function":
            self._hear(n, result)
        return result

    def _returned(self, output: fx.Node) -> list[torch.Tensor]:
        """The tensors that the user gets; writes into buffers and inputs are outputs, too."""
        (values,), _ = self.fetch_args_kwargs_from_env(output)
        specs = self.program.graph_signature.output_specs
        return [
            value if isinstance(value, torch.Tensor) else torch.tensor(value)
            for value, spec in zip(values, specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT and not isinstance(spec.arg, ConstantArgument)
        ]

    def _hear(self, node: fx.Node, result: Any) -> None:
        size = isinstance(result, (bool, int))
        if size:
            result = torch.tensor(result)
        if self.tainted.intersection(node.all_input_nodes):
            self.tainted.add(node)
        elif _seeded(node) and not _same(result, super().run_node(node)):
            self.tainted.add(node)
            self.drawn.append(node)
        name = next((name for name in _names(node) if name in self.exposed.names), "")
        if not isinstance(result, torch.Tensor):
            return  # of a tuple, each item comes as a node of its own
        folded = None if name else self.exposed.weight(node.name)
        grain = self.grains.of(result)
        found = None if folded is None else _error(result, folded, self.tolerance, grain)
        if found and node not in self.tainted:  # computed at export, and a weight of the file
            self.names[node], self.errors[node] = node.name, found
            return
        if name:
            self.names[node] = name
        if not name or node in self.tainted:
            reason = RANDOM if node in self.tainted else GONE
            self.apart.setdefault(reason, []).append(name or node.name)
            return
        self.held[node] = (name, result, grain)
        if size:
            self.sizes.add(node)
        self.bytes += result.nbytes
        if self.bytes > CHUNK:
            self._flush()

    def _flush(self) -> None:
        if not self.held:
            return
        wanted = list(dict.fromkeys(name for name, *_ in self.held.values()))
        made = self.exposed.run(wanted)
        for node, (name, reference, grain) in self.held.items():
            value = made[name]
            found = _error(reference, value, self.tolerance, grain)
            if found is None and isinstance(value, torch.Tensor) and node not in self.sizes:
                cause = causes.of_kind(reference, value)
                word = shaped(reference.dtype, reference.shape)
                found = _Error(word, math.inf, 0.0, wrong=True, cause=cause)
            if found is None:
                self.apart.setdefault(KIND, []).append(name)
            else:
                self.errors[node] = found
        self.held, self.bytes = {}, 0

    @cached_property
    def before(self) -> dict[fx.Node, frozenset[fx.Node]]:
        """The nearest compared values that each compared one is computed from, and the inputs."""
        near: dict[fx.Node, frozenset[fx.Node]] = {}
        found = {}
        for node in self.program.graph.nodes:
            near[node] = frozenset().union(*(near[m] for m in node.all_input_nodes))
            if node in self.errors:
                found[node] = near[node]
            if node.op == "placeholder" or node in self.errors:
                near[node] = frozenset([node])
        return found

    def judge(self, leaves: Sequence[torch.Tensor]) -> None:
        """Say of each wrong value that no fault comes before what its cause is."""
        if any(error.wrong for error in self.errors.values()):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                again = _Again(self)
                for _ in again.steps(leaves):
                    pass
            for node, cause in again.causes.items():
                self.errors[node] = replace(self.errors[node], cause=cause)

    def divergence(self, outputs: Agreement, captured: Agreement, origins: Lineage) -> Divergence:
        """What was heard, joined to the lines."""
        by_value = _makers(origins)
        steps = [
            self._step(node, before, by_value.get(self.names[node], _WEIGHT))
            for node, before in self.before.items()
        ]
        wrong = [step for step in steps if step.wrong]
        if wrong and captured and not any(step.blamed for step in steps):
            outputs = Agreement(tuple(leaf.excused() for leaf in outputs.leaves))
        known = {step.name for step in steps} | set(self.names.values())
        inner = sorted(self.exposed.names - known)
        apart = {name: tuple(values) for name, values in self.apart.items()}
        apart |= {INNER: tuple(inner)} if inner else {}
        apart |= {BODY: self.exposed.hidden} if self.exposed.hidden else {}
        drawn = {str(node.target): call_site(node).line for node in self.drawn}
        return Divergence(outputs, captured, tuple(steps), apart, drawn)

    def _step(self, node: fx.Node, before: frozenset[fx.Node], origin: lineage.Origin) -> Step:
        mine, key = self.errors[node], call_site(node)
        compared = [self.errors[m] for m in before if m in self.errors]
        cause = mine.cause
        blamed = cause is not None and not cause.rounding
        return Step(
            self.names[node],
            origin.node,
            origin.operator,
            node.name,
            key.module or origin.module,
            key.line or origin.line,
            mine.value,
            mine.error,
            max((error.error for error in compared), default=0.0),
            mine.tolerance,
            mine.wrong,
            blamed,
            tuple(self._changed(before)) if blamed else (),
            cause.reason if cause else "",
            cause.repair if cause else "",
            cause is not None and cause.rounding,
        )

    def _changed(self, before: frozenset[fx.Node]) -> Iterator[str]:
        """The weights among these inputs that are others in the file."""
        names = {node.name for node in before if node.op == "placeholder"}
        for spec in self.program.graph_signature.input_specs:
            if spec.arg.name in names and spec.kind is not InputKind.USER_INPUT:
                ours = stored(self.program, spec.target)
                theirs = self.exposed.weight(str(spec.target))
                if theirs is None or theirs.shape != ours.shape:
                    continue
                if not torch.equal(ours, theirs):
                    yield str(spec.target)


class _Again(ProgramRun):
    """Runs the graph once more, and recomputes alone each wrong value that no fault comes before.

    Where a wrong value is rounding, the next one may be a fault, or rounding again.
    """

    def __init__(self, beside: _Beside) -> None:
        super().__init__(beside.program)
        self.beside = beside
        self.wrong = {node for node, error in beside.errors.items() if error.wrong}
        self.readers = Counter(m for node in self.wrong for m in beside.before[node])
        self.values: dict[fx.Node, Any] = {}
        self.causes: dict[fx.Node, Cause] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return None
        result = super().run_node(n)
        if n in self.wrong:
            before = self.beside.before[n]
            if all(m in self.causes and self.causes[m].rounding for m in before & self.wrong):
                self.causes[n] = self.beside.errors[n].cause or self._cause(n, result)
            self.readers.subtract(before)
            for m in before:
                if not self.readers[m]:
                    del self.values[m]
        if self.readers[n]:
            self.values[n] = result
        return result

    def _cause(self, node: fx.Node, result: Any) -> Cause:
        names, exposed = self.beside.names, self.beside.exposed
        given = {m: self.values[m] for m in self.beside.before[node]}
        fed = {names[m]: _in_file(v) for m, v in given.items() if names.get(m) in exposed.names}
        try:
            alone = exposed.alone(names[node], fed)
        except WorkbenchError:
            return causes.UNKNOWN
        reference = _in_file(result)
        if not isinstance(alone, torch.Tensor) or alone.shape != reference.shape:
            return causes.UNKNOWN
        bounds = self.beside.errors[node].bounds
        return causes.of_numbers(node, given, self.fetch_attr, reference, alone, bounds)


_WEIGHT = lineage.Origin("", "Initializer", "", "", None, lineage.NONE)


def _makers(origins: Lineage) -> dict[str, lineage.Origin]:
    """Value of the main graph -> the origin of the node that makes it."""
    return {
        value: origins.of(ref.name)
        for ref in node_refs(origins.artifact.proto)
        if not ref.inside
        for value in ref.outputs
    }


def _names(node: fx.Node) -> list[str]:
    """What the exporter calls the value of a node; an item of a tuple it numbers, and onnxscript's
    optimizer once more where it makes a Split of a sequence (``_constant_folding.py``)."""
    if getattr(node.target, "__name__", "") == "getitem":
        whole, item = node.args
        return [f"{whole}__{item}", f"{whole}_split_{item}", node.name]
    return [node.name]


def _seeded(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _same(one: Any, other: Any) -> bool:
    """Equal tensors wherever they stand, NaN and NaN too."""
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True)
    return all(
        torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs if isinstance(x, torch.Tensor)
    )


def _in_file(value: Any) -> torch.Tensor:
    """A value as a file has it: a size is a tensor, a complex number a pair."""
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _error(
    reference: torch.Tensor,
    value: Any,
    tolerance: Tolerance | None,
    grain: torch.dtype | None = None,
) -> _Error | None:
    """None where the two are no values of one kind."""
    if not isinstance(value, torch.Tensor):
        return None
    word = shaped(reference.dtype, reference.shape)
    if not value.is_complex():
        reference = _in_file(reference)
    if reference.shape != value.shape or reference.dtype != value.dtype:
        return None
    bounds = tolerance_of(reference.dtype, tolerance, grain)
    found = distance(reference, value, bounds)
    limit = bounds[0] or bounds[1]
    return _Error(word, found.relative, limit, bool(found.wrong), bounds)
