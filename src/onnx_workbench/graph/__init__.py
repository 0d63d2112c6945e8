"""nn.Module -> FX graph: what torch.export captures, as a readable table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from ..brief import first_words
from ..calls import check_initialized, normalize_call
from ..errors import CaptureError, InputError
from ..formatting import Code, Part, Report, Table, kind_of, plural, shaped
from ..source import Line, node_line, unless_internal, user_line
from ..torch_state import evaluating
from . import exporter
from .dims import (
    DynamicAxes,
    by_argument,
    for_torch,
    is_dynamic,
    must_stay_dynamic,
    name_of,
    parse_shapes,
    relaxed,
)
from .guards import Guard, recorded_guards
from .reasons import SPECIALIZED, Reason, explain
from .signature import Signature, kwargs_name, weight_inputs
from .signature import arguments as named_arguments
from .torch_private import only_fit

_SHOWN = 60
"""Rows of a graph that its repr shows."""
_HEADER = ("node", "op", "target", "value", "line")


@normalize_call
def capture(
    model: nn.Module | ExportedProgram | Graph,
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    strict: bool | None = None,
) -> Graph:
    """Capture the computation graph of ``model`` for one call ``model(*args, **kwargs)``.

    Args:
        model: captured in eval mode, then put back as it was. An ExportedProgram or a Graph is
            captured already: it is returned as a Graph.
        args, kwargs: tensors of the shapes and dtypes that the model takes, on its device.
            An argument that is no tensor is baked into the graph, except an int for which
            ``dynamic_shapes`` has ``Dim.DYNAMIC`` or ``Dim.AUTO``.
        dynamic_shapes: the dimensions that may change, as ``torch.export`` takes them:
            ``{"x": {0: "batch"}}``, or a tuple in the order of the arguments, with names, Dims or
            hints. A dimension with a name, a Dim or ``Dim.DYNAMIC`` must stay dynamic;
            ``Dim.AUTO`` may be specialized, and the repr says so. Equal names mean one size.
        strict: False runs the Python code of ``forward`` with fake tensors, True lets TorchDynamo
            read its bytecode. None tries the first, then the second, as torch.onnx does.

    Raises:
        InputError: the arguments do not fit ``forward``, or are on another device; ``strict`` is
            none of the three.
        CaptureError: torch.export refused; the message has the line, the reason and a repair.

    >>> class Double(nn.Module):
    ...     def forward(self, x):
    ...         return x + x
    >>> capture(Double().eval(), torch.ones(4, 3), dynamic_shapes={"x": {0: "batch"}})
    Double: 1 operation, 0 parameters (0 numbers)
    node    op             target           value              line
    ------  -------------  ---------------  -----------------  ------
    x       placeholder    x                float32[batch, 3]
    add     call_function  aten.add.Tensor  float32[batch, 3]  cell:3
    output  output         output           (add)
    """
    kwargs = kwargs or {}
    if isinstance(model, (ExportedProgram, Graph)):
        return _captured(model, args, kwargs, dynamic_shapes)
    check_module("capture", model)
    if strict is not None and not isinstance(strict, bool):
        raise InputError(f"strict is {strict!r:.80}.", "Pass True, False or None.")
    arguments = named_arguments(model, args, kwargs)
    parsed = parse_shapes(dynamic_shapes, arguments, kwargs_name(model))
    _check_devices(model, (args, kwargs))
    shapes = for_torch(parsed, arguments)
    with evaluating(model):
        program, was_strict = _program(model, args, kwargs, shapes, strict)
    signature = Signature.of_program(program, model, args, kwargs)
    axes = signature.axes(parsed)
    graph = Graph(type(model).__name__, program, signature, axes, model, was_strict)
    _check_kept(graph)
    return graph


def with_axes(graph: Graph, args: tuple, kwargs: Mapping[str, Any], dynamic_shapes: Any) -> Graph:
    """The graph with the axes that ``dynamic_shapes`` names."""
    arguments = named_arguments(graph.model, args, kwargs)
    shapes = parse_shapes(dynamic_shapes, arguments, kwargs_name(graph.model))
    return replace(graph, axes=graph.signature.axes(shapes))


def module_and_call(
    model: Any, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any
) -> tuple[Any, tuple, dict[str, Any], Any]:
    """Unpack a Graph or ExportedProgram into its module and, without a call, its example."""
    if not isinstance(model, (ExportedProgram, Graph)):
        return model, args, kwargs, dynamic_shapes
    graph = _captured(model, args, kwargs, dynamic_shapes)
    if dynamic_shapes is None:
        dynamic_shapes = graph.dynamic_shapes
    return graph.model, *((args, kwargs) if args or kwargs else graph.example), dynamic_shapes


def check_module(name: str, model: object) -> None:
    """Raises InputError unless torch.export could capture ``model``."""
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InputError(
            f"{name}() was given {kind_of(model)}, a ScriptModule or ScriptFunction, which has no "
            "Python code.",
            "Pass the eager module that it was made from.",
        )
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{name}() was given {kind_of(model)}, but it takes a torch.nn.Module.",
            "Put the function into the forward() of a module, or pass the module itself.",
        )
    check_initialized(name, model)


def _program(
    model: nn.Module, args: tuple, kwargs: dict[str, Any], shapes: Any, strict: bool | None
) -> tuple[ExportedProgram, bool]:
    """What torch.export returns, and whether that took strict mode."""
    errors: list[Exception] = []
    reasons: list[Reason] = []
    for mode in (False, True) if strict is None else (strict,):
        try:
            return exporter.capture_program(model, args, kwargs, shapes, mode), mode
        except Exception as error:
            errors.append(error)
            reasons.append(_reason(error))
            if reasons[-1].code == SPECIALIZED:  # strict mode specializes the dimension, too
                break
    line = user_line(errors[0].__traceback__)
    raise _explained(model, args, kwargs, shapes, line, reasons) from errors[0]


def _captured(
    model: ExportedProgram | Graph, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any
) -> Graph:
    """A Graph of a captured model; its axes get the names of ``dynamic_shapes``."""
    graph = model if isinstance(model, Graph) else _of_program(model)
    if args or kwargs:
        graph.signature.flatten(args, kwargs)
    if dynamic_shapes is None:
        return graph
    graph = with_axes(graph, *graph.example, dynamic_shapes)
    for one in graph.requested:
        if must_stay_dynamic(one.label) and not one.dynamic:
            raise InputError(
                f"`dynamic_shapes` names axis {one.axis} of {one.input!r}, which was captured with "
                "a fixed size.",
                "Name it when you capture the model.",
            )
    return graph


def _of_program(program: ExportedProgram) -> Graph:
    if program.example_inputs is None:
        raise InputError(
            "The ExportedProgram has no example inputs, so its call is unknown.",
            "Capture the model again, or save the program with its inputs.",
        )
    args, kwargs = program.example_inputs
    model = program.module()
    signature = Signature.of_program(program, model, args, kwargs)
    graph = Graph("ExportedProgram", program, signature, (), model)
    return replace(graph, axes=tuple(dict.fromkeys(axes, Dim.DYNAMIC) for axes in graph.symbolic))


def _check_kept(graph: Graph) -> None:
    """Raises CaptureError if two names are one size, or a dimension that must stay dynamic fits at
    one size only.

    torch.export itself reports ``x.shape[0] == 6``, but not ``x.shape[0] // 2 == 3``.
    """
    known: dict[str, str] = {}
    for one in filter(lambda one: one.dynamic, graph.requested):
        name = name_of(one.label)
        other = known.setdefault(str(one.size.node.expr), name) if name else ""
        only = only_fit(one.size) if must_stay_dynamic(one.label) else ""
        if other != name:
            guard = next((guard for guard in graph.guards if guard.equates), None)
            message = f"{graph.name} needs {other!r} and {name!r} to be one size"
            reason = f"torch.export gave them one symbol{f': {guard.words}' if guard else ''}"
            hint = "Give both one name in `dynamic_shapes`, or change the line that needs it."
        elif only:
            guard = next((guard for guard in graph.guards if guard.form == only), None)
            message = f"{graph.name} fixes {one.place} to {one.size.node.hint}"
            reason = f"It assumes {guard.words if guard else only}, and no other size fits"
            hint = f"{guard.repair} Or leave" if guard else "Leave"
            hint += " that dimension out of `dynamic_shapes`."
        else:
            continue
        line = guard.line if guard else None
        error = CaptureError(message, hint, line, reason=reason, code=SPECIALIZED)
        error.partial_graph = lambda: (graph.program, "torch.export")
        raise error


@dataclass(frozen=True)
class Node:
    """One FX node: ``value`` is the dtype and shape of its result, ``line`` the source line."""

    name: str
    op: str
    target: str
    value: str
    line: Line | None


class Requested(NamedTuple):
    """A dimension of a tensor input that the user asked to be dynamic: its label, and the size that
    torch.export gave it."""

    input: str
    tensor: int
    axis: int
    label: Any
    size: Any

    @property
    def dynamic(self) -> bool:
        return is_dynamic(self.size)

    @property
    def place(self) -> str:
        """``x.shape[1]``"""
        return f"{self.input}.shape[{self.axis}]"


@dataclass(frozen=True, repr=False, eq=False)
class Graph(Report):
    """An FX graph with the call that it was captured from. Made by :func:`capture`.

    ``program`` is the ``torch.export.ExportedProgram``; ``axes`` has the names of the dynamic
    dimensions of each tensor input; ``model`` is the module itself; ``strict`` says which mode
    torch.export used; ``before`` is the graph that :meth:`polish` was called on.
    """

    name: str
    program: ExportedProgram
    signature: Signature
    axes: tuple[DynamicAxes, ...]
    model: nn.Module
    strict: bool = False
    before: Graph | None = field(default=None)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes except parameters; those in a branch of ``torch.cond`` are indented."""
        left_out = weight_inputs(self.program)
        return tuple(_rows(self.program.graph_module, self._named_sizes, left_out))

    @property
    def operations(self) -> Counter[str]:
        """How many nodes call each operator, including the nodes in branches."""
        return Counter(node.target for node in self.nodes if node.op == "call_function")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        return self.model(*args, **kwargs)

    @property
    def example(self) -> tuple[tuple, dict[str, Any]]:
        """The ``args`` and ``kwargs`` of the capture."""
        args, kwargs = self.program.example_inputs
        return args, kwargs

    @property
    def dynamic_shapes(self) -> dict[str, Any]:
        """The axes by argument of ``forward``, as :func:`capture` takes them."""
        arguments = named_arguments(self.model, *self.example)
        return by_argument(self.signature.shapes(self.axes), arguments)

    @cached_property
    def guards(self) -> list[Guard]:
        """What torch.export assumes about sizes if any of them may be specialized."""
        return _guards(self.model, *self.example, self.dynamic_shapes)

    @property
    def symbolic(self) -> list[dict[int, Any]]:
        """The dynamic dimensions of each tensor input, as torch.export's expressions. Dimensions
        that torch.export fixed to a number are left out."""
        return [
            {axis: size.node.expr for axis, size in enumerate(shape) if is_dynamic(size)}
            for shape in self._shapes
        ]

    @property
    def _shapes(self) -> list[Sequence[Any]]:
        nodes = self.program.graph.find_nodes(op="placeholder")
        values = {node.name: node.meta.get("val") for node in nodes}
        return [getattr(values[name], "shape", ()) for name in self.signature.tensor_inputs]

    @property
    def requested(self) -> list[Requested]:
        """The dimensions that ``axes`` names."""
        inputs = zip(self.signature.tensor_inputs, self.axes, self._shapes, strict=True)
        return [
            Requested(name, tensor, axis, label, shape[axis])
            for tensor, (name, axes, shape) in enumerate(inputs)
            for axis, label in axes.items()
        ]

    @property
    def specialized(self) -> list[str]:
        """The ``Dim.AUTO`` dimensions that torch.export fixed to a number:
        ``x.shape[1] = 16``."""
        return [f"{one.place} = {one.size}" for one in self.requested if not one.dynamic]

    @property
    def _named_sizes(self) -> dict[str, str]:
        """torch's symbol of a dynamic dimension -> the name that the user gave it."""
        named = ((one.size, name_of(one.label)) for one in self.requested if one.dynamic)
        return {str(size.node.expr): name for size, name in named if name}

    @property
    def labels(self) -> list[dict[int, str]]:
        """The names of each tensor input's dynamic dimensions in a file: the user's name for that
        size, else the input and the axis, ``x_1``."""
        known = self._named_sizes
        inputs = zip(self.signature.tensor_inputs, self.symbolic, strict=True)
        return [
            {axis: known.setdefault(str(size), f"{name}_{axis}") for axis, size in sizes.items()}
            for name, sizes in inputs
        ]

    def polish(self) -> Graph:
        """The graph that the exporter translates: decomposed into operators that it can translate,
        with explicit dtype promotion and without assertions.

        It comes from a real translation, so it is the graph that ``torch.onnx.export`` uses.
        """
        program = exporter.translate(self.program, optimize=False).exported_program
        assert program is not None
        return replace(self, program=program, before=self)

    def changes(self) -> list[tuple[str, int, int]]:
        """Each operator whose count polishing changed: (target, before, after)."""
        was, now = self.before.operations if self.before else self.operations, self.operations
        return [(op, was[op], now[op]) for op in sorted(was | now) if was[op] != now[op]]

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        yield Table(self._cells(), _HEADER)
        if self.before and not self.changes():
            yield "polished: no operator changed"
        elif self.before:
            yield "polished:"
            yield Table(self.changes(), ("target", "was", "is"), right=(1, 2))

    def _cells(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            (Code(n.name), n.op, Code(n.target), Code(n.value), _place(n.line)) for n in self.nodes
        ]
        if len(rows) <= _SHOWN:
            return rows
        half = _SHOWN // 2
        gap = f"... {plural(len(rows) - 2 * half, 'more node')}: see .nodes"
        return [*rows[:half], (gap, "", "", "", ""), *rows[-half:]]

    def _headline(self) -> str:
        weights = list(self.program.parameters())
        values = sum(p.numel() for p in weights)
        mode = ", captured with strict=True" if self.strict else ""
        lost = f", specialized: {', '.join(self.specialized)}" if self.specialized else ""
        return (
            f"{self.name}: {plural(self.operations.total(), 'operation')}, "
            f"{plural(len(weights), 'parameter')} ({plural(values, 'number')}){mode}{lost}"
        )


def _place(line: Line | None) -> Code:
    return Code(line, short=line.place) if line else Code("")


def _rows(
    module: fx.GraphModule,
    sizes: Mapping[str, str],
    left_out: Collection[str] = (),
    indent: str = "",
) -> Iterator[Node]:
    """The nodes of a graph, and indented those of its branches; ``sizes`` has the user's names."""
    for node in module.graph.nodes:
        if node.name in left_out:
            continue
        name, target = f"{indent}{node.name}", node.target
        branch = getattr(module, str(target), None)
        if node.op == "get_attr" and isinstance(branch, fx.GraphModule):
            yield Node(name, "subgraph", "", "", None)
            yield from _rows(branch, sizes, indent=indent + "  ")
            continue
        if callable(target) and not hasattr(target, "overloadpacket"):
            target = target.__name__
        if node.op == "output":
            value = f"({', '.join(map(str, pytree.tree_leaves(node.args)))})"
        else:
            value = _described(node.meta.get("val"), sizes)
        yield Node(name, node.op, str(target), value, node_line(node))


def _described(value: object, sizes: Mapping[str, str]) -> str:
    """Dtype and shape, with the user's names for sizes."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(_described(item, sizes) for item in value)})"
    if isinstance(value, torch.Tensor):
        return shaped(value.dtype, (_described(str(size), sizes) for size in value.shape))
    return re.sub(r"\w+", lambda word: sizes.get(word[0], word[0]), str(value))


def _check_devices(model: nn.Module, arguments: object) -> None:
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    for tensor in pytree.tree_leaves(arguments):
        if devices and isinstance(tensor, torch.Tensor) and tensor.device not in devices:
            device = ", ".join(sorted(map(str, devices)))
            raise InputError(
                f"An input is on {tensor.device} and the model on {device}; both must be on one "
                "device.",
                f"Pass the input with .to('{device}'), or move the model.",
            )


def _guards(model: nn.Module, args: tuple, kwargs: dict[str, Any], shapes: Any) -> list[Guard]:
    """What torch.export assumes about sizes, from a capture in which any may be specialized.

    In strict mode only if the other one says nothing: there sizes have Dynamo's names.
    """
    for strict in (False, True):
        with recorded_guards() as guards, suppress(Exception), evaluating(model, warn=False):
            exporter.capture_program(model, args, kwargs, relaxed(shapes), strict)
        if guards:
            return guards
    return []


def _explained(
    model: nn.Module,
    args: tuple,
    kwargs: dict[str, Any],
    shapes: Any,
    line: Line | None,
    reasons: Sequence[Reason],
) -> CaptureError:
    """The CaptureError for torch.export's reasons, one for each mode that was tried. ``line`` is
    that of the first error."""
    first, *others = reasons
    reason, repair, code = first
    arguments = named_arguments(model, args, kwargs)
    if "flatten" in reason:
        words = set(re.findall(r"\w+", reason))
        for name, value in arguments.items():
            for kind in {type(leaf).__name__ for leaf in pytree.tree_leaves(value)} & words:
                reason += f" The argument {name!r} is or contains a {kind}."
    guards = _guards(model, args, kwargs, shapes) if code == SPECIALIZED else []
    if guard := min(guards, key=lambda one: (not one.freezes, not one.equates), default=None):
        line, where = guard.line, ", ".join(f"{n} = {v}" for n, v in guard.locals.items())
        reason = f"{reason} That line assumes {guard.words}{f'; here {where}' * bool(where)}."
        fixed = _inputs_of_size(guard, arguments)
        name_it = f"Give that dimension of {' and '.join(map(repr, fixed))} the same name."
        repair = name_it if fixed else guard.repair
        repair += " Or leave that dimension out of `dynamic_shapes`."
    reason += "".join(f" With strict=True: {other[0]}" for other in others if other != first)
    refused = CaptureError(
        f"{type(model).__name__} could not be captured",
        hint=repair,
        line=unless_internal(line),
        reason=reason,
        code=code,
    )
    relax = relaxed(shapes)
    refused.partial_graph = lambda: exporter.partial_program(model, args, kwargs, relax)
    return refused


def _inputs_of_size(guard: Guard, arguments: Mapping[str, Any]) -> list[str]:
    """The other inputs on the line that have the size which the guard demands."""
    size = re.search(r"^Eq\(\w+, (\d+)\)$", guard.expression)
    if not size or ".shape[" not in str(guard.sources):
        return []
    frozen = {source.partition(".shape")[0] for source in guard.sources.values()}
    others = {n: x for n, x in arguments.items() if n in guard.locals and n not in frozen}
    return [n for n, x in others.items() if int(size[1]) in getattr(x, "shape", ())]


def _reason(error: Exception) -> Reason:
    return explain(error) or Reason(
        first_words(error),
        "Run the model itself with these arguments. If it fails too, fix that first; if not, "
        "torch.export cannot follow that line: write it with other operations.",
    )
