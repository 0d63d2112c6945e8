"""The first value in a file that differs from the model's: its node, its module, its line."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from . import causes, plots, progress
from .artifact import Artifact
from .causes import Cause
from .comparison import Agreement, Grains, Tolerance, compare, compare_leaf
from .errors import InputError, WorkbenchError
from .exporter_metadata import call_site, is_getitem
from .formatting import Part, Report, Table, kind_of, plural, shaped
from .lineage.origins import NONE, Origin
from .lineage.table import Lineage, join
from .machine import trim_memory
from .proto import node_refs
from .runs.intermediates import Intermediates
from .runs.program import ProgramRun, stored
from .runs.summary import SIDE, Summary, summary
from .source import Line

CHUNK = 256_000_000
"""Bytes of values in memory at a time, in PyTorch and again in ONNX Runtime."""

_LARGE_GRAPH = 300
"""Nodes from which the pictures of values have a quarter of the side."""
_BATCH = 32
"""Values that ONNX Runtime computes at a time where PyTorch has none."""

Look = Callable[[Mapping[str, Any]], None]

_JUMP = 10.0
"""A node adds error if its error is this many times its inputs' error; else it inherits it."""

INNER = "a step inside one FX node, for which PyTorch has no value"
BODY = "in the body of a node or function, so it cannot be an output"
GONE = "no value of that name in the file: folded, merged or a view"
RANDOM = "depends on a random operator"
KIND = "another kind of value: a size, or a sequence"

_INT8 = "_DequantizeLinear_Output"
"""What ONNX Runtime's quantizer adds to the name of a value that was rounded to int8."""
_QUANTIZED = re.compile(r"Quantize|Integer$|^Q")
"""Its operators."""

_WEIGHT = Origin("", "Initializer", "", "", None, NONE)


@dataclass(frozen=True)
class Step:
    """One value, in PyTorch and in ONNX Runtime.

    ``node`` computes it in the file, ``fx`` in the graph. ``error`` is the relative error of
    :func:`~onnx_workbench.verify`, ``bounds`` its tolerance as a pair, ``inherited`` the largest
    error among the nearest compared values that it depends on. A wrong value has a ``cause`` if its
    inputs agree, or differ only by rounding; ``weights`` are its weights that differ from the
    model's.
    """

    name: str
    node: str
    operator: str
    fx: str
    module: str
    line: Line | None
    value: str
    error: float
    bounds: Tolerance
    wrong: bool
    inherited: float = 0.0
    cause: Cause | None = None
    weights: tuple[str, ...] = ()

    @property
    def tolerance(self) -> float:
        """The relative bound; the absolute one if the relative is 0."""
        return self.bounds[0] or self.bounds[1]

    @property
    def jump(self) -> bool:
        """Whether the node adds the error instead of inheriting it."""
        return self.error >= _JUMP * self.inherited

    @property
    def rounding(self) -> bool:
        """Whether it is wrong although ONNX Runtime computes the node as accurately as PyTorch."""
        return self.cause is not None and self.cause.rounding

    @property
    def blamed(self) -> bool:
        """Whether the fault is here: the inputs agree, and it is not rounding."""
        return self.cause is not None and not self.cause.rounding

    @property
    def reason(self) -> str:
        """Why it differs; "" if unknown."""
        return self.cause.reason if self.cause else ""

    @property
    def repair(self) -> str:
        """What usually helps."""
        return self.cause.repair if self.cause else ""

    @property
    def place(self) -> str:
        """The place of the line, else the name of the node."""
        return self.line.place if self.line else self.node

    def __repr__(self) -> str:
        kind = "a jump" if self.jump else "drift"
        head = (
            f"{self.node} ({self.operator}){' in ' if self.module else ''}{self.module}, "
            f"{self.line.place if self.line else 'no line'}: error {self.error:.1e}, {kind} from "
            f"inputs with error {self.inherited:.1e}"
        )
        weights = ", ".join(self.weights)
        lost = f"its {weights} in the file differs from the model's" if weights else ""
        helps = f"What helps: {self.repair}" if self.repair else ""
        rows = [self.line.text if self.line else "", lost, self.reason, helps]
        return "\n    ".join([head, *filter(None, rows)])


@dataclass(frozen=True, repr=False, eq=False)
class Divergence(Report):
    """The result of ``verify(values=True)``.

    ``outputs`` compares the outputs of ``a`` and ``b``, ``steps`` the values inside ``b`` in
    execution order. ``captured`` compares the outputs of ``a`` and of the captured graph, both in
    PyTorch. ``not_comparable`` has the values that cannot be compared, by reason; ``random`` the
    operators that draw new numbers on every call, with their lines.
    """

    outputs: Agreement
    captured: Agreement
    steps: tuple[Step, ...]
    not_comparable: Mapping[str, tuple[str, ...]]
    random: Mapping[str, Line | None]

    def __bool__(self) -> bool:
        return bool(self.outputs)

    @property
    def first(self) -> Step | None:
        """The first wrong value whose inputs agree and whose error is not rounding."""
        return next(iter(self.blamed), None)

    @cached_property
    def rounding(self) -> tuple[Step, ...]:
        """The values beyond tolerance that ONNX Runtime computes as accurately as PyTorch."""
        return tuple(step for step in self.steps if step.rounding)

    @cached_property
    def blamed(self) -> tuple[Step, ...]:
        """Every wrong value whose inputs agree: one for each fault that no other fault hides."""
        return tuple(step for step in self.steps if step.blamed)

    @property
    def largest(self) -> Step | None:
        """The value with the largest error, which is rarely at the fault."""
        return max(self.steps, key=lambda step: step.error, default=None)

    def plot(self, ax: plots.Axes | None = None) -> plots.Axes:
        """The error and the tolerance of each value, in the order of the graph."""
        return plots.growth(
            [step.error for step in self.steps],
            [step.tolerance for step in self.steps],
            marked={i: step.place for i, step in enumerate(self.steps) if step.blamed},
            title=self._headline(),
            note=self._count(),
            ax=ax,
        )

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        yield from map(repr, self.blamed[:3])
        yield from self._table()
        yield from self._notes()

    def _headline(self) -> str:
        count = plural(len(self.steps), "value")
        if first := self.first:
            wrong = sum(step.wrong for step in self.steps)
            where = f"first at {first.place}, {first.operator}; {wrong:,} of {count}"
            inside = "AGREE: the outputs agree; values inside differ" if self else "DIFFERENT:"
            return f"{inside}{',' if self else ''} {where} beyond tolerance"
        if self.random and not self:
            drawn = [f"{op} ({line.place})" if line else op for op, line in self.random.items()]
            return f"RANDOM: {', '.join(drawn)} gives new numbers on every call"
        if self and self.rounding:
            return f"AGREE: {count} and the outputs, {len(self.rounding):,} of them up to rounding"
        if self:
            return f"AGREE: {count} and the outputs within tolerance"
        other_kind = [leaf.reason for leaf in self.outputs.leaves if leaf.worst is None]
        if not self.captured:
            why = "the captured graph differs from the model"
        else:
            why = next(filter(None, other_kind), "ONNX Runtime's optimizer changed them")
        return f"DIFFERENT: the outputs differ although all {count} agree: {why}"

    def _count(self) -> str:
        missing = sum(map(len, self.not_comparable.values()))
        return f"{plural(len(self.steps), 'value')} compared, {missing:,} not comparable"

    def _table(self) -> Iterator[Part]:
        steps = (*self.blamed[:8], *self.rounding[:4], self.largest)
        shown = list(dict.fromkeys(filter(None, steps)))
        rows = [
            (
                step.node,
                step.line.place if step.line else "",
                step.value,
                f"{step.error:.1e}",
                f"{step.inherited:.1e}",
                f"{step.tolerance:.0e}",
                _verdict(step) + ", the largest" * (step is self.largest),
            )
            for step in shown
        ]
        if rows:
            header = ("node", "line", "value", "error", "input error", "tolerance", "verdict")
            yield Table(rows, header, right=(3, 4, 5))

    def _notes(self) -> Iterator[Part]:
        yield self._count()
        missing = self.not_comparable.items()
        rows = [
            (f"{len(names):,}", reason, f"{'such as ' * (len(names) > 1)}{names[0]}")
            for reason, names in missing
        ]
        rows += [("random", op, line.place if line else "") for op, line in self.random.items()]
        if rows:
            yield Table(rows)
        if not self.outputs or any(leaf.note for leaf in self.outputs.leaves):
            yield self.outputs


def _verdict(step: Step) -> str:
    if step.cause:
        return "rounding" if step.rounding else "wrong, inputs agree"
    return "wrong" if step.wrong else "agrees"


def check_graph(b: object) -> None:
    """Raise InputError unless ``b`` has values inside that can be compared."""
    if not isinstance(b, Artifact):
        raise InputError(
            f"verify(values=True) was given {kind_of(b)} as 'b', but it compares the values inside "
            "an Artifact.",
            "Pass the result of export(): verify(model, artifact, x, values=True).",
        )
    if b.exported_program is None:
        raise InputError(
            f"{b.path.name} has no captured graph to compare its values with: it was loaded from "
            "a file, or made with dynamo=False.",
            "Pass the result of export(). If a tool made this file from that one, pass load(path, "
            "like=artifact). Or leave values=True out and compare the outputs.",
        )


def compare_values(
    artifact: Any,
    args: tuple,
    kwargs: Mapping[str, Any],
    reference: Any,
    other: Any,
    tolerance: Tolerance | None,
) -> Divergence:
    """Compare the values of a file with those of the graph that it was translated from. The outputs
    of the model and of the file are ``reference`` and ``other``."""
    comparison = _Comparison(join(artifact), artifact.feeds(*args, **kwargs), tolerance)
    leaves = artifact.signature.flatten(args, dict(kwargs))
    result = artifact.signature.unflatten(comparison.run(leaves))
    grains = [comparison.grains.of(leaf) for leaf in pytree.tree_leaves(result)]
    outputs = compare(reference, other, tolerance, grains)
    captured = compare(reference, result, tolerance, grains)
    steps = comparison.judged(leaves)
    if captured and any(s.wrong for s in steps) and not any(s.blamed for s in steps):
        outputs = Agreement(tuple(leaf.excused() for leaf in outputs.leaves))
    random = {str(node.target): call_site(node).line for node in comparison.random}
    trim_memory()
    return Divergence(outputs, captured, steps, comparison.left_out(), random)


def summaries(lineage: Lineage, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Summary]:
    """Summarize every value of a file for one call, with its error where PyTorch has it, too.

    The values are those of the graph as exported, without the optimizer; a chunk is held at a time.
    """
    found: dict[str, Summary] = {}
    artifact: Any = lineage.artifact
    feeds = artifact.feeds(*args, **kwargs)
    side = SIDE if len(artifact.proto.graph.node) < _LARGE_GRAPH else SIDE // 4

    def look(values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and name not in found:
                found[name] = summary(value, side)

    if artifact.exported_program is None:
        file = Intermediates(artifact.unchanged, artifact.proto, artifact.provider, feeds)
        _look_at_rest(file, look)
        return found
    comparison = _Comparison(lineage, feeds, None, look)
    comparison.run(artifact.signature.flatten(args, dict(kwargs)))
    _look_at_rest(comparison.file, look)
    for step in comparison.steps.values():
        if step.name in found:
            value = found[step.name]
            found[step.name] = replace(value, error=step.error, tolerance=step.tolerance)
    return found


def _look_at_rest(file: Intermediates, look: Look) -> None:
    while rest := file.rest():
        look(file.run(rest[:_BATCH], every=True))


class _Comparison:
    """Runs the translated graph and compares the values of its nodes, a chunk at a time."""

    def __init__(
        self,
        lineage: Lineage,
        feeds: Mapping[str, Any],
        tolerance: Tolerance | None,
        look: Look | None = None,
    ) -> None:
        self.look = look
        artifact: Any = lineage.artifact
        self.program: ExportedProgram = artifact.exported_program
        self.tolerance, self.grains = tolerance, Grains()
        self.file = Intermediates(artifact.unchanged, artifact.proto, artifact.provider, feeds)
        self.origins = {
            value: lineage.of(ref.name)
            for ref in node_refs(artifact.proto)
            if not ref.inside
            for value in ref.outputs
        }
        self.pending: dict[fx.Node, tuple[torch.Tensor, bool]] = {}
        self.bytes = 0
        self.steps: dict[fx.Node, Step] = {}
        self.names: dict[fx.Node, str] = {}
        self.random: list[fx.Node] = []
        self.tainted: set[fx.Node] = set()  # depends on a random operator
        self.not_comparable: dict[str, list[str]] = {}

    def run(self, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the whole graph, compare its values and return its outputs. The state of the random
        number generator is restored."""
        run = ProgramRun(self.program, self.grains)
        total = len(self.program.graph.nodes)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            progress.bar("values", total) as step,
        ):
            for node, value in run.steps(leaves):
                step()
                if node.op == "call_function":
                    self._take(run, node, value)
            self._flush()
        specs = self.program.graph_signature.output_specs
        return [
            one if isinstance(one, torch.Tensor) else torch.tensor(one)
            for one, spec in zip(value, specs, strict=True)  # value: of the output node, the last
            if spec.kind is OutputKind.USER_OUTPUT and not isinstance(spec.arg, ConstantArgument)
        ]

    def _take(self, run: ProgramRun, node: fx.Node, value: Any) -> None:
        """Keep a value for the next comparison, or record why it is not comparable."""
        draws = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if self.tainted.intersection(node.all_input_nodes):
            self.tainted.add(node)
        elif draws and not compare(value, run.run_node(node), (0.0, 0.0)):
            self.tainted.add(node)
            self.random.append(node)
        is_size = isinstance(value, (bool, int))
        if not isinstance(value, torch.Tensor) and not is_size:
            return  # each item of a tuple has its own node
        tensor = torch.tensor(value) if is_size else value
        name = next((name for name in _names(node) if name in self.file.names), "")
        if node not in self.tainted and not name:  # it may be computed at export, as a weight
            weight = self.file.weight(node.name)
            self._compare(node, tensor, weight, node.name, must_match=False)
            if node in self.steps:
                return
        if name:
            self.names[node] = name
        if not name or node in self.tainted:
            reason = RANDOM if node in self.tainted else GONE
            self.not_comparable.setdefault(reason, []).append(name or node.name)
            return
        self.pending[node] = tensor, is_size
        self.bytes += tensor.nbytes
        if self.bytes > CHUNK:
            self._flush()

    def _flush(self) -> None:
        names = list(dict.fromkeys(self.names[node] for node in self.pending))
        values = self.file.run(names, every=self.look is not None)
        if self.look:
            self.look(values)
        for node, (reference, is_size) in self.pending.items():
            name = self.names[node]
            self._compare(node, reference, values[name], name, must_match=not is_size)
            if node not in self.steps:
                self.not_comparable.setdefault(KIND, []).append(name)
        self.pending.clear()
        self.bytes = 0

    def _compare(
        self, node: fx.Node, reference: torch.Tensor, value: Any, name: str, *, must_match: bool
    ) -> None:
        """Record the error of a value. One of another shape or dtype is wrong if it ``must_match``;
        if not, it is not compared."""
        if not isinstance(value, torch.Tensor):
            return
        expected = reference if value.is_complex() else _in_file(reference)
        fits = expected.shape == value.shape and expected.dtype == value.dtype
        if not (fits or must_match):
            return
        site = call_site(node)
        origin = self.origins.get(name.removesuffix(_INT8), self.origins.get(name, _WEIGHT))
        leaf = compare_leaf(name, expected, value, self.tolerance, self.grains.of(reference))
        self.names[node] = name
        self.steps[node] = Step(
            name=name,
            node=origin.node,
            operator=origin.operator,
            fx=node.name,
            module=site.module or origin.module,
            line=site.line or origin.line,
            value=shaped(reference.dtype, reference.shape),
            error=leaf.relative if fits else math.inf,
            bounds=leaf.tolerance,
            wrong=bool(leaf.reason),
            cause=None if fits else causes.of_kind(reference, value),
        )

    @cached_property
    def before(self) -> dict[fx.Node, frozenset[fx.Node]]:
        """Each compared node -> the nearest compared nodes and inputs that it depends on."""
        near: dict[fx.Node, frozenset[fx.Node]] = {}
        before = {}
        for node in self.program.graph.nodes:
            near[node] = frozenset().union(*(near[m] for m in node.all_input_nodes))
            if node in self.steps:
                before[node] = near[node]
            if node.op == "placeholder" or node in self.steps:
                near[node] = frozenset([node])
        return before

    def judged(self, leaves: Sequence[torch.Tensor]) -> tuple[Step, ...]:
        """The steps in execution order, with the causes of those that no fault precedes."""
        known = self._causes(leaves) if any(s.wrong for s in self.steps.values()) else {}
        steps = []
        for node, before in self.before.items():
            errors = (self.steps[m].error for m in before if m in self.steps)
            inherited, cause = max(errors, default=0.0), known.get(node)
            step = replace(self.steps[node], inherited=inherited, cause=cause)
            weights = tuple(self._changed_weights(before)) if step.blamed else ()
            steps.append(replace(step, weights=weights))
        return tuple(steps)

    def _causes(self, leaves: Sequence[torch.Tensor]) -> dict[fx.Node, Cause]:
        """Run the graph again, for the inputs of the wrong values."""
        wrong = {node for node, step in self.steps.items() if step.wrong}
        readers = Counter(m for node in wrong for m in self.before[node])
        values: dict[fx.Node, Any] = {}
        run = ProgramRun(self.program)
        judge = _Judge(self, run)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for node, value in run.steps(leaves):
                if node in wrong:
                    judge.take(node, value, {m: values[m] for m in self.before[node]})
                    for m in self.before[node]:
                        readers[m] -= 1
                        if not readers[m]:
                            del values[m]
                if readers[node]:
                    values[node] = value
            judge.flush()
        return judge.judged

    def _changed_weights(self, before: frozenset[fx.Node]) -> Iterator[str]:
        """The weights among these inputs that differ in the file."""
        names = {node.name for node in before if node.op == "placeholder"}
        for spec in self.program.graph_signature.input_specs:
            if spec.arg.name in names and spec.kind is not InputKind.USER_INPUT:
                weight = stored(self.program, spec.target)
                in_file = self.file.weight(str(spec.target))
                if not (
                    in_file is None or in_file.shape != weight.shape or torch.equal(weight, in_file)
                ):
                    yield str(spec.target)

    def left_out(self) -> dict[str, tuple[str, ...]]:
        """Reason -> the values that were not compared."""
        inner = sorted(self.file.names - set(self.names.values()))
        found = self.not_comparable | {INNER: inner, BODY: self.file.hidden}
        return {reason: tuple(names) for reason, names in found.items() if names}


class _Judge:
    """Recomputes each wrong value that no fault precedes from PyTorch's inputs, a chunk at a time.

    After a value that is only rounding, the next wrong one may be a fault or rounding again.
    """

    def __init__(self, comparison: _Comparison, run: ProgramRun) -> None:
        self.steps, self.names, self.file = comparison.steps, comparison.names, comparison.file
        self.run = run
        self.judged: dict[fx.Node, Cause] = {}
        self.pending: dict[fx.Node, tuple[torch.Tensor, Mapping[fx.Node, Any]]] = {}
        self.bytes = 0

    def take(self, node: fx.Node, value: Any, given: Mapping[fx.Node, Any]) -> None:
        """Keep a wrong value, and those that it depends on, unless a fault precedes it."""
        if all(m in self.pending or self._is_rounding(m) for m in self._wrong(given)):
            self.pending[node] = _in_file(value), given
            self.bytes += sum(getattr(one, "nbytes", 0) for one in (value, *given.values()))
            if self.bytes > CHUNK:
                self.flush()

    def flush(self) -> None:
        alone = self._alone([*self.pending])
        for node, (value, given) in self.pending.items():
            if all(map(self._is_rounding, self._wrong(given))):
                self.judged[node] = self._cause(node, value, given, alone.get(node))
        self.pending.clear()
        self.bytes = 0

    def _wrong(self, given: Mapping[fx.Node, Any]) -> Iterator[fx.Node]:
        return (node for node in given if node in self.steps and self.steps[node].wrong)

    def _is_rounding(self, node: fx.Node) -> bool:
        return node in self.judged and self.judged[node].rounding

    def _alone(self, nodes: Sequence[fx.Node]) -> dict[fx.Node, Any]:
        """What ONNX Runtime makes of these nodes, without those that it refuses."""
        names, known = self.names, self.file.names
        nodes = [n for n in nodes if names[n] in known and not self.steps[n].cause]
        given = {
            names[node]: {
                names[m]: _in_file(value)
                for m, value in self.pending[node][1].items()
                if names.get(m) in known
            }
            for node in nodes
        }
        try:
            made = self.file.recomputed(given)
        except WorkbenchError:
            half = len(nodes) // 2
            return self._alone(nodes[:half]) | self._alone(nodes[half:]) if half else {}
        return {node: made[names[node]] for node in nodes}

    def _cause(
        self, node: fx.Node, value: torch.Tensor, given: Mapping[fx.Node, Any], alone: Any
    ) -> Cause:
        step = self.steps[node]
        if step.cause:
            return step.cause
        known = {self.names.get(m, "") for m in given}
        operators = self.file.operators(self.names[node], known)
        if any(map(_QUANTIZED.search, operators)) or any(name.endswith(_INT8) for name in known):
            return causes.INT8
        if not isinstance(alone, torch.Tensor) or alone.shape != value.shape:
            return causes.UNKNOWN
        return causes.of_numbers(node, given, self.run.fetch_attr, value, alone, step.bounds)


def _names(node: fx.Node) -> list[str]:
    """The possible names for the value of a node, the best first: what the next nodes read in a
    quantized file, else the exporter's. That numbers the items of a tuple; onnxscript's optimizer
    renames them if it turns a sequence into a Split (``_constant_folding.py``)."""
    names = [node.name]
    if is_getitem(node):
        whole, item = node.args
        names = [f"{whole}__{item}", f"{whole}_split_{item}", node.name]
    return [*(f"{name}{_INT8}" for name in names), *names]


def _in_file(value: Any) -> torch.Tensor:
    """The value as a file represents it: a size as a tensor, a complex number as a pair."""
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
