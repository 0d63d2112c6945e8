"""The first value in a file that differs from the model's: its node, its module, its line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import fx
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
Values = dict[fx.Node, Any]
"""The nearest compared values and inputs that a value depends on."""

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
            head = "AGREE: the outputs agree; values inside differ," if self else "DIFFERENT:"
            where = f"first at {first.place}, {first.operator}"
            return f"{head} {where}; {wrong:,} of {count} beyond tolerance"
        if self.random and not self:
            drawn = [f"{op} ({line.place})" if line else op for op, line in self.random.items()]
            return f"RANDOM: {', '.join(drawn)} gives new numbers on every call"
        if self and self.rounding:
            return f"AGREE: {count} and the outputs, {len(self.rounding):,} of them up to rounding"
        if self:
            return f"AGREE: {count} and the outputs within tolerance"
        if not self.captured:
            why = "the captured graph differs from the model"
        else:
            other_kind = (leaf.reason for leaf in self.outputs.leaves if leaf.worst is None)
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
                _verdict(step) + ", largest error" * (step is self.largest),
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
            yield self.outputs.count
            yield self.outputs.table


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
    leaves = comparison.run(artifact.signature.flatten(args, dict(kwargs)))
    result = artifact.signature.unflatten(leaves)
    grains = [comparison.grains.of(leaf) for leaf in pytree.tree_leaves(result)]
    outputs = compare(reference, other, tolerance, grains)
    captured = compare(reference, result, tolerance, grains)
    steps = tuple(comparison.steps.values())
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

    steps: dict[fx.Node, Step] = {}
    if artifact.exported_program is None:
        file = Intermediates(artifact.unchanged, artifact.proto, artifact.provider, feeds)
    else:
        comparison = _Comparison(lineage, feeds, None, look)
        comparison.run(artifact.signature.flatten(args, dict(kwargs)))
        file, steps = comparison.file, comparison.steps
    while rest := file.rest():
        look(file.run(rest[:_BATCH], every=True))
    for step in steps.values():
        if step.name in found:
            value = found[step.name]
            found[step.name] = replace(value, error=step.error, tolerance=step.tolerance)
    return found


class _Pending(NamedTuple):
    """A value to compare: its name in the file, PyTorch's value, and those that it depends on."""

    name: str
    value: Any
    given: Values


class _Comparison:
    """Runs the translated graph once and compares the values of its nodes, a chunk at a time."""

    def __init__(
        self,
        lineage: Lineage,
        feeds: Mapping[str, Any],
        tolerance: Tolerance | None,
        look: Look | None = None,
    ) -> None:
        """``look`` gets all values of the file; then nobody asks for the causes of errors."""
        self.look = look
        artifact: Any = lineage.artifact
        self.tolerance, self.grains = tolerance, Grains()
        self.interpreter = ProgramRun(artifact.exported_program, self.grains)
        self.file = Intermediates(artifact.unchanged, artifact.proto, artifact.provider, feeds)
        self.origins = {
            value: lineage.of(ref.name)
            for ref in node_refs(artifact.proto)
            if not ref.inside
            for value in ref.outputs
        }
        self.pending: dict[fx.Node, _Pending] = {}
        self.bytes = 0
        # of each node that a later one reads: itself, if it is compared, else those before it
        self.near: dict[fx.Node, Values] = {}
        self.steps: dict[fx.Node, Step] = {}
        self.misfits: set[fx.Node] = set()  # of another shape or dtype in the file
        self.random: list[fx.Node] = []
        self.tainted: set[fx.Node] = set()  # depends on a random operator
        self.not_comparable: dict[str, list[str]] = {}

    def run(self, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the whole graph, compare its values and return its outputs. The state of the random
        number generator is restored."""
        program = self.interpreter.program
        total = len(program.graph.nodes)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            progress.bar("values", total) as tick,
        ):
            for node, value in self.interpreter.values(leaves):
                tick()
                self._take(node, value)
                for unused in self.interpreter.user_to_last_uses.get(node, ()):
                    del self.near[unused]
            self._flush()
        return [
            one if isinstance(one, torch.Tensor) else torch.tensor(one)
            for one, spec in zip(value, program.graph_signature.output_specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT and not isinstance(spec.arg, ConstantArgument)
        ]  # value: of the output node, the last

    def _take(self, node: fx.Node, value: Any) -> None:
        """Keep a value for the next comparison, or record why it is not comparable."""
        given = {m: x for read in node.all_input_nodes for m, x in self.near[read].items()}
        self.near[node] = {node: value} if node.op == "placeholder" else given
        if node.op != "call_function":
            return
        draws = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if self.tainted.intersection(node.all_input_nodes):
            self.tainted.add(node)
        elif draws and not compare(value, self.interpreter.run_node(node), (0.0, 0.0)):
            self.tainted.add(node)
            self.random.append(node)
        is_size = isinstance(value, (bool, int))
        if not isinstance(value, torch.Tensor) and not is_size:
            return  # each item of a tuple has its own node
        name = next((name for name in _names(node) if name in self.file.names), "")
        if node in self.tainted:
            self._leave_out(RANDOM, name or node.name)
        elif not name and not _fits(value, self.file.weight(node.name)):
            self._leave_out(GONE, node.name)
        else:  # without a name, it was computed at export and is a weight
            self.pending[node] = _Pending(name or node.name, value, given)
            # a size may be of another kind in the file
            self.near[node] = {**(given if is_size else {}), node: value}
            self.bytes += getattr(value, "nbytes", 0)
            if self.bytes > CHUNK:
                self._flush()

    def _leave_out(self, reason: str, name: str) -> None:
        self.not_comparable.setdefault(reason, []).append(name)

    def _flush(self) -> None:
        self._compare()
        trim_memory()
        if not self.look:
            self._judge()
        self.pending.clear()
        self.bytes = 0

    def _compare(self) -> None:
        """Compare what waits with the values of the file, and free those before others are made."""
        names = dict.fromkeys(one.name for one in self.pending.values())
        in_file = [name for name in names if name in self.file.names]
        values = self.file.run(in_file, every=self.look is not None)
        if self.look:
            self.look(values)
        for node, one in self.pending.items():
            made = values[one.name] if one.name in values else self.file.weight(one.name)
            if not _fits(one.value, made):
                self.misfits.add(node)
            has_kind = isinstance(one.value, torch.Tensor) or node not in self.misfits
            if isinstance(made, torch.Tensor) and has_kind:
                self.steps[node] = self._step(node, one, made)
            else:
                self._leave_out(KIND, one.name)

    def _step(self, node: fx.Node, one: _Pending, made: torch.Tensor) -> Step:
        """A value of the file beside PyTorch's."""
        site, reference = call_site(node), torch.as_tensor(one.value)
        origin = self.origins.get(one.name, _WEIGHT)
        origin = self.origins.get(one.name.removesuffix(_INT8), origin)
        grain = self.grains.of(one.value)
        leaf = compare_leaf(one.name, _in_file(reference, made), made, self.tolerance, grain)
        errors = (self.steps[m].error for m in one.given if m in self.steps)
        return Step(
            name=one.name,
            node=origin.node,
            operator=origin.operator,
            fx=node.name,
            module=site.module or origin.module,
            line=site.line or origin.line,
            value=shaped(reference.dtype, reference.shape),
            error=math.inf if node in self.misfits else leaf.relative,
            bounds=leaf.tolerance,
            wrong=bool(leaf.reason),
            inherited=max(errors, default=0.0),
        )

    def _judge(self) -> None:
        """Find the causes of the wrong values that no fault precedes: compute each again, from
        PyTorch's inputs. After one that is only rounding, the next may be a fault or rounding; one
        that does not fit is no rounding."""
        asked: dict[fx.Node, _Pending] = {}
        held = 0
        for node, one in self.pending.items():
            suspect = node in self.steps and self.steps[node].wrong
            before = [m for m in self._wrong(one) if not self.steps[m].rounding]
            if suspect and all(m in asked and m not in self.misfits for m in before):
                asked[node] = one
                held += sum(getattr(x, "nbytes", 0) for x in (one.value, *one.given.values()))
            if held > CHUNK // 8:  # the chunk itself is in memory, too
                self._ask(asked)
                asked, held = {}, 0
        self._ask(asked)

    def _ask(self, asked: Mapping[fx.Node, _Pending]) -> None:
        in_file = (one for one in asked.values() if one.name in self.file.names)
        alone = self._recomputed({one.name: self._inputs(one) for one in in_file})
        for node, one in asked.items():
            if all(self.steps[m].rounding for m in self._wrong(one)):
                step = self.steps[node]
                cause = self._cause(node, one, alone.get(one.name), step.bounds)
                weights = () if cause.rounding else tuple(self._changed_weights(one.given))
                self.steps[node] = replace(step, cause=cause, weights=weights)

    def _wrong(self, one: _Pending) -> Iterator[fx.Node]:
        return (m for m in one.given if m in self.steps and self.steps[m].wrong)

    def _inputs(self, one: _Pending) -> dict[str, torch.Tensor]:
        """PyTorch's values that this one depends on, by their names in the file."""
        named = ((self.steps[m].name, x) for m, x in one.given.items() if m in self.steps)
        return {name: _in_file(x) for name, x in named if name in self.file.names}

    def _recomputed(self, inputs: dict[str, dict[str, torch.Tensor]]) -> dict[str, Any]:
        """Each value as ONNX Runtime computes it from its ``inputs``. One that it refuses is left
        out: the others are tried again in halves."""
        try:
            return self.file.recomputed(inputs)
        except WorkbenchError:
            items, half = [*inputs.items()], len(inputs) // 2
            if not half:
                return {}
            return self._recomputed(dict(items[:half])) | self._recomputed(dict(items[half:]))

    def _cause(self, node: fx.Node, one: _Pending, alone: Any, bounds: Tolerance) -> Cause:
        inputs = self._inputs(one).keys()
        operators = self.file.operators(one.name, inputs)
        if any(map(_QUANTIZED.search, operators)) or any(name.endswith(_INT8) for name in inputs):
            return causes.INT8
        fetch = self.interpreter.fetch_attr
        return causes.of(node, one.given, fetch, _in_file(one.value), alone, bounds)

    def _changed_weights(self, given: Values) -> Iterator[str]:
        """The weights among these inputs that differ in the file."""
        names = {node.name for node in given if node.op == "placeholder"}
        program = self.interpreter.program
        for spec in program.graph_signature.input_specs:
            if spec.arg.name in names and spec.kind is not InputKind.USER_INPUT:
                weight = stored(program, spec.target)
                in_file = self.file.weight(str(spec.target))
                if not (
                    in_file is None or in_file.shape != weight.shape or torch.equal(weight, in_file)
                ):
                    yield str(spec.target)

    def left_out(self) -> dict[str, tuple[str, ...]]:
        """Reason -> the values that were not compared."""
        seen = {step.name for step in self.steps.values()}.union(*self.not_comparable.values())
        inner = sorted(self.file.names - seen)
        found = self.not_comparable | {INNER: inner, BODY: self.file.hidden}
        return {reason: tuple(names) for reason, names in found.items() if names}


def _names(node: fx.Node) -> list[str]:
    """The possible names for the value of a node, the best first: what the next nodes read in a
    quantized file, else the exporter's. That numbers the items of a tuple; onnxscript's optimizer
    renames them if it turns a sequence into a Split (``_constant_folding.py``)."""
    names = [node.name]
    if is_getitem(node):
        whole, item = node.args
        names = [f"{whole}__{item}", f"{whole}_split_{item}", node.name]
    return [*(f"{name}{_INT8}" for name in names), *names]


def _in_file(value: Any, made: torch.Tensor | None = None) -> torch.Tensor:
    """The value as a file represents it: a size as a tensor, a complex number as a pair, unless it
    is complex where it is ``made``."""
    tensor = torch.as_tensor(value)
    pair = tensor.is_complex() and not (made is not None and made.is_complex())
    return torch.view_as_real(tensor) if pair else tensor


def _fits(value: Any, made: Any) -> bool:
    """Whether what the file made has the shape and the dtype of PyTorch's value."""
    if not isinstance(made, torch.Tensor):
        return False
    expected = _in_file(value, made)
    return expected.shape == made.shape and expected.dtype == made.dtype
