"""The first value of a file that is not the model's: its node, its module, its line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
import torch.utils._pytree as pytree
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

from . import figures, progress
from .agreement import Agreement, agree, errors, tolerance_of
from .artifact import Artifact
from .errors import InputError
from .exposed import Exposed
from .lines import lineage
from .lines.folding import key_of
from .lines.lineage import Lineage
from .proto import sites
from .source import Line
from .text import plural, shaped, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHUNK = 256_000_000
"""Bytes of values that are held at a time, in PyTorch and again in ONNX Runtime."""

_SLICE = 1 << 15
"""Elements compared at a time: what is computed of them in double stays in a core's cache."""

_JUMP = 10.0
"""A node whose error is this many times that of its inputs made it; one below passed it on."""
_LEAST = 1e-3
"""The smallest "largest magnitude" of a value: near zero there is nothing to be relative to."""

INNER = "a step inside one FX node, which PyTorch has no value for"
BODY = "in the body of a node or function, which cannot be an output"
GONE = "no value of that name in the file: folded, merged or a view"
RANDOM = "follows from a random operator"
KIND = "another shape, dtype or kind of value"


@overload
def verify(
    a: Callable[..., Any],
    b: Callable[..., Any],
    *args: Any,
    values: Literal[False] = False,
    tolerance: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Agreement: ...
@overload
def verify(
    a: Callable[..., Any],
    b: Callable[..., Any],
    *args: Any,
    values: Literal[True],
    tolerance: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Divergence: ...
def verify(
    a: Callable[..., Any],
    b: Callable[..., Any],
    *args: Any,
    values: bool = False,
    tolerance: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Agreement | Divergence:
    """Call ``a`` and ``b`` with the same arguments and compare what they return.

    Structure, shapes and dtypes come first, and nothing is ever broadcast: (2, 3) and (1, 3) do not
    agree. A number agrees where ``|a - b| <= absolute + relative * |a|`` (the rule of numpy.isclose
    and torch.testing, with ``a`` as the reference), NaN with NaN, and an infinity with itself.

    With ``values=True``, ``b`` is an artifact, and every value inside it is compared too: the graph
    that was translated runs in PyTorch, node by node, beside one session of ONNX Runtime in which
    the values of the file are outputs (more than one where they take over 256 MB). They are joined
    by name, and lead back to node, module and line by :func:`~onnx_workbench.trace`. The error of a
    value is ``max |a - b| / (|a| + f * max |a|)``, ``f`` being absolute / relative; it is wrong
    above ``relative``. That is the rule above with ``absolute`` in units of the largest number, so
    that a number that is small beside its neighbours is not blamed for their rounding.

    The first divergence is a wrong value all of whose inputs agree. Its error against theirs tells
    its kind: ten times theirs or more is a *jump*, made at this node; less is *drift*, which came
    along and grew. (Two numbers that nearly cancel make a jump too, of a node that is right.)

    Args:
        a: the reference. Both run without gradients, modules in eval mode.
        values: compare what is inside ``b``, not its outputs alone.
        tolerance: (relative, absolute) for every dtype of floating point; the default goes by
            dtype and is printed. Whole numbers and booleans must be equal.

    Returns:
        an Agreement, or a Divergence; it is true where everything agrees.

    Raises:
        InputError: what was passed cannot be called, or ``b`` has no graph to look into.

    >>> verify(torch.exp, lambda x: 1 + x, torch.tensor([0.0, 1.0]))
    DIFFERENT: 1 of 1 output differs
    output  value       worst |a - b|  at   relative  tolerance    verdict
    ------  ----------  -------------  ---  --------  -----------  -------------
    result  float32[2]  7.18e-01       [1]  2.64e-01  1e-04,1e-05  1 of 2 differ
    """
    program = _program(b) if values else None
    outputs = agree(a, b, *args, tolerance=tolerance, **kwargs)
    if program is None:
        return outputs
    assert isinstance(b, Artifact)
    run = _Beside(program, b, b.feeds(*args, **kwargs), tolerance)
    run.along(b.signature.flatten(args, kwargs) if b.signature else [])
    return run.divergence(outputs, lineage.trace(b))


@dataclass(frozen=True)
class Step:
    """One value, in PyTorch and in ONNX Runtime.

    ``node`` makes it in the file, ``fx`` in the graph. ``error`` is relative as :func:`verify` says
    it, ``inherited`` the largest error among the nearest compared values that it was computed from.
    ``weights`` are weights of a wrong value that are not the model's.
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
        )


@dataclass(frozen=True, repr=False, eq=False)
class Divergence:
    """The verdict of ``verify(values=True)``.

    ``outputs`` compares what ``a`` and ``b`` return, ``steps`` the values inside ``b`` in the order
    in which they are computed. ``apart`` has those that cannot be compared, by reason, and
    ``random`` the operators that draw new numbers on every call, with their lines.
    """

    outputs: Agreement
    steps: tuple[Step, ...]
    apart: Mapping[str, tuple[str, ...]]
    random: Mapping[str, Line | None]

    def __bool__(self) -> bool:
        return bool(self.outputs) and self.first is None

    @cached_property
    def first(self) -> Step | None:
        """The first wrong value whose inputs agree, None where every value agrees."""
        return next((step for step in self.steps if step.blamed), None)

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
        return figures.growth(
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
        if self.first:
            place = self.first.line.place if self.first.line else self.first.node
            wrong = sum(step.wrong for step in self.steps)
            return (
                f"DIFFERENT: first at {place}, {self.first.operator}; {wrong:,} of "
                f"{plural(len(self.steps), 'value')} beyond tolerance"
            )
        if self.random:
            where = [f"{name} ({line.place})" if line else name for name, line in self._drawn()]
            return f"RANDOM: {', '.join(where)} gives new numbers on every call"
        if self.outputs:
            return f"AGREE: {plural(len(self.steps), 'value')} and the outputs within tolerance"
        return (
            f"DIFFERENT: the outputs, while all {plural(len(self.steps), 'value')} agree: the "
            "captured graph is not the model, or ONNX Runtime's optimiser changed it"
        )

    def _drawn(self) -> list[tuple[str, Line | None]]:
        return list(self.random.items())

    def _count(self) -> str:
        missing = sum(map(len, self.apart.values()))
        return f"{plural(len(self.steps), 'value')} compared, {missing:,} not comparable"

    def _table(self) -> Iterator[str]:
        shown = list(dict.fromkeys(filter(None, (*self.blamed[:8], self.largest))))
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
        if not self.outputs:
            yield repr(self.outputs)


def _verdict(step: Step, largest: bool) -> str:
    words = ["wrong, inputs agree"] if step.blamed else ["wrong"] if step.wrong else ["agrees"]
    return ", ".join([*words, "the largest"] if largest else words)


def _program(b: object) -> ExportedProgram:
    if not isinstance(b, Artifact):
        raise InputError(
            f"verify(values=True) was given a {type(b).__name__} as 'b', and it looks into an "
            "artifact. Pass what export() returned: verify(model, artifact, x, values=True)."
        )
    if b.translated is None:
        raise InputError(
            f"{b.path.name} has no graph beside it to compare its values with: it was loaded from "
            "a file, or made with dynamo=False. Pass what export() returned, or leave values=True "
            "out and compare the outputs."
        )
    return b.translated


@dataclass(frozen=True)
class _Error:
    value: str
    error: float
    tolerance: float
    wrong: bool


class _Beside(fx.Interpreter):
    """Runs the graph that was translated, and compares what its nodes make, a chunk at a time."""

    def __init__(
        self,
        program: ExportedProgram,
        artifact: Artifact,
        feeds: Mapping[str, Any],
        tolerance: tuple[float, float] | None,
    ) -> None:
        super().__init__(program.graph_module, garbage_collect_values=True)
        self.program, self.tolerance = program, tolerance
        self.exposed = Exposed(artifact.path, artifact.proto, artifact.provider, feeds)
        self.held: dict[fx.Node, tuple[str, Any]] = {}
        self.bytes = 0
        self.errors: dict[fx.Node, _Error] = {}
        self.names: dict[fx.Node, str] = {}
        self.drawn: list[fx.Node] = []
        self.tainted: set[fx.Node] = set()
        self.apart: dict[str, list[str]] = {}

    def along(self, leaves: Sequence[torch.Tensor]) -> None:
        """Run the whole graph. The generator of random numbers is left as it was."""
        total = len(self.program.graph.nodes)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            progress.bar(total=total, desc="values", delay=2) as self.bar,
        ):
            self.run(*_lifted(self.program, leaves), enable_io_processing=False)
            self._flush()

    def run_node(self, n: fx.Node) -> Any:
        self.bar.update()
        if n.op == "output":
            return None
        result = super().run_node(n)
        if n.op == "call_function":
            self._hear(n, result)
        return result

    def _hear(self, node: fx.Node, result: Any) -> None:
        if isinstance(result, (bool, int)):
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
        found = None if folded is None else _error(result, folded, self.tolerance)
        if found:  # computed at export, and a weight of the file
            self.names[node], self.errors[node] = node.name, found
            return
        if name:
            self.names[node] = name
        if not name or node in self.tainted:
            self.apart.setdefault(RANDOM if name else GONE, []).append(name or node.name)
            return
        self.held[node] = (name, result)
        self.bytes += result.nbytes
        if self.bytes > CHUNK:
            self._flush()

    def _flush(self) -> None:
        if not self.held:
            return
        wanted = list(dict.fromkeys(name for name, _ in self.held.values()))
        made = self.exposed.run(wanted)
        for node, (name, reference) in self.held.items():
            found = _error(reference, made[name], self.tolerance)
            if found is None:
                self.apart.setdefault(KIND, []).append(name)
            else:
                self.errors[node] = found
        self.held, self.bytes = {}, 0

    def divergence(self, outputs: Agreement, origins: Lineage) -> Divergence:
        """What was heard, joined to the lines."""
        by_value = _makers(origins)
        near: dict[fx.Node, frozenset[fx.Node]] = {}
        steps = []
        for node in self.program.graph.nodes:
            before = frozenset().union(*(near[m] for m in node.all_input_nodes))
            near[node] = before
            if node.op == "placeholder" or node in self.errors:
                near[node] = frozenset([node])
            if node in self.errors:
                steps.append(self._step(node, before, by_value.get(self.names[node], _WEIGHT)))
        known = {step.name for step in steps} | set(self.names.values())
        inner = sorted(self.exposed.names - known)
        apart = {name: tuple(values) for name, values in self.apart.items()}
        apart |= {INNER: tuple(inner)} if inner else {}
        apart |= {BODY: self.exposed.hidden} if self.exposed.hidden else {}
        drawn = {str(node.target): lineage.line_of(key_of(node).trace) for node in self.drawn}
        return Divergence(outputs, tuple(steps), apart, drawn)

    def _step(self, node: fx.Node, before: frozenset[fx.Node], origin: lineage.Origin) -> Step:
        mine, key = self.errors[node], key_of(node)
        compared = [self.errors[m] for m in before if m in self.errors]
        blamed = mine.wrong and not any(error.wrong for error in compared)
        return Step(
            self.names[node],
            origin.node,
            origin.operator,
            node.name,
            key.module or origin.module,
            lineage.line_of(key.trace) or origin.line,
            mine.value,
            mine.error,
            max((error.error for error in compared), default=0.0),
            mine.tolerance,
            mine.wrong,
            blamed,
            tuple(self._changed(before)) if blamed else (),
        )

    def _changed(self, before: frozenset[fx.Node]) -> Iterator[str]:
        """The weights among these inputs that are others in the file."""
        names = {node.name for node in before if node.op == "placeholder"}
        for spec in self.program.graph_signature.input_specs:
            if spec.arg.name in names and spec.kind is not InputKind.USER_INPUT:
                ours = _lifted_one(self.program, spec)
                theirs = self.exposed.weight(str(spec.target))
                if theirs is None or theirs.shape != ours.shape:
                    continue
                if not torch.equal(ours, theirs):
                    yield str(spec.target)


_WEIGHT = lineage.Origin("", "Initializer", "", "", None, lineage.NONE)


def _makers(origins: Lineage) -> dict[str, lineage.Origin]:
    """Value of the main graph -> the origin of the node that makes it."""
    return {
        value: origins.of(site.name)
        for site in sites(origins.artifact.proto)
        if not site.inside
        for value in site.outputs
    }


def _names(node: fx.Node) -> list[str]:
    """What the exporter calls the value of a node; an item of a tuple it numbers, and onnxscript's
    optimiser once more where it makes a Split of a sequence (``_constant_folding.py``)."""
    if getattr(node.target, "__name__", "") == "getitem":
        whole, item = node.args
        return [f"{whole}__{item}", f"{whole}_split_{item}", node.name]
    return [node.name]


def _lifted(program: ExportedProgram, leaves: Sequence[torch.Tensor]) -> list[Any]:
    """The inputs of the graph itself, which takes its weights as inputs too. Run like this, it
    changes none of them."""
    rest = iter(leaves)

    def of(spec: Any) -> Any:
        if spec.kind is not InputKind.USER_INPUT:
            return _lifted_one(program, spec)
        if isinstance(spec.arg, ConstantArgument):
            return spec.arg.value
        leaf = next(rest)
        return leaf.detach() if isinstance(spec.arg, TensorArgument) else leaf.item()

    return [of(spec) for spec in program.graph_signature.input_specs]


def _lifted_one(program: ExportedProgram, spec: Any) -> Any:
    stored = program.state_dict if spec.target in program.state_dict else program.constants
    value = stored[spec.target]
    return value.detach() if isinstance(value, torch.Tensor) else value


def _seeded(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _same(one: Any, other: Any) -> bool:
    """Equal tensors wherever they stand, NaN and NaN too."""
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True)
    return all(
        torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs if isinstance(x, torch.Tensor)
    )


def _error(
    reference: torch.Tensor, value: Any, tolerance: tuple[float, float] | None
) -> _Error | None:
    """None where the two are no values of one kind."""
    if not isinstance(value, torch.Tensor):
        return None
    if reference.shape != value.shape or reference.dtype != value.dtype:
        return None
    relative, absolute = tolerance_of(reference.dtype, tolerance)
    word = shaped(reference.dtype, reference.shape)
    if not reference.numel():
        return _Error(word, 0.0, relative, wrong=False)
    one, other = reference.cpu().flatten(), value.flatten()
    peak = max(_LEAST, *(_magnitude(part) for part in one.split(_SLICE)))
    floor = peak * (absolute / relative if relative else 1.0)
    found = [
        _worst(*parts, floor) for parts in zip(one.split(_SLICE), other.split(_SLICE), strict=True)
    ]
    worst = max(error for error, _ in found)
    exact = not (reference.is_floating_point() or reference.is_complex())
    return _Error(word, worst, relative, any(w for _, w in found) if exact else worst > relative)


def _magnitude(part: torch.Tensor) -> float:
    """The largest that is finite."""
    finite = part.abs() if part.is_complex() else part.double().abs()
    return float(finite.nan_to_num(nan=0.0, posinf=0.0).max())


def _worst(a: torch.Tensor, b: torch.Tensor, floor: float) -> tuple[float, bool]:
    distance, scale, wrong = errors(a, b, 0.0, 0.0)
    ratio = (distance / (scale + floor)).nan_to_num(nan=math.inf)
    return float(torch.where(distance == 0, 0.0, ratio).max()), bool(wrong.any())
