"""nn.Module -> FX graph: what torch.export captures, as a readable table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

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
from .dims import Axes, dynamic_dims, for_torch, must_stay_dynamic, name_of, parse_shapes, relaxed
from .exporter import is_dynamic
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
            An argument that is no tensor is baked into the graph.
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
    axes = tuple(signature.axes(parsed))
    graph = Graph(type(model).__name__, program, signature, axes, model, was_strict)
    _check_names_apart(graph, shapes)
    _check_sizes_free(graph, shapes)
    return graph


def axes_of(
    graph: Graph, args: tuple, kwargs: Mapping[str, Any], dynamic_shapes: Any
) -> tuple[Axes | None, ...]:
    """The axes that ``dynamic_shapes`` names, for each tensor input of a graph."""
    arguments = named_arguments(graph.model, args, kwargs)
    shapes = parse_shapes(dynamic_shapes, arguments, kwargs_name(graph.model))
    return tuple(graph.signature.axes(shapes))


def module_and_call(
    model: Any, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any
) -> tuple[Any, tuple, dict[str, Any], Any]:
    """Unpack a Graph or ExportedProgram into its module and, without a call, its example."""
    if not isinstance(model, (ExportedProgram, Graph)):
        return model, args, kwargs, dynamic_shapes
    graph = _captured(model, args, kwargs, dynamic_shapes)
    if dynamic_shapes is None:
        dynamic_shapes = graph.signature.dynamic_shapes(graph.axes)
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
    for mode in (False, True) if strict is None else (strict,):
        try:
            return exporter.capture_program(model, args, kwargs, shapes, mode), mode
        except Exception as error:
            errors.append(error)
            if _reason(error).code == SPECIALIZED:  # strict mode specializes the dimension, too
                break
    raise _explained(model, args, kwargs, shapes, errors) from errors[0]


def _captured(
    model: ExportedProgram | Graph, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any
) -> Graph:
    """A Graph of a captured model; its axes get the names of ``dynamic_shapes``."""
    graph = model if isinstance(model, Graph) else _of_program(model)
    if args or kwargs:
        graph.signature.flatten(args, kwargs)
    if dynamic_shapes is None:
        return graph
    axes = axes_of(graph, *graph.example, dynamic_shapes)
    inputs = zip(graph.signature.tensor_inputs, axes, graph.symbolic, strict=True)
    for name, requested, kept in inputs:
        labels = dynamic_dims(requested).items()
        fixed = [axis for axis, label in labels if must_stay_dynamic(label) and axis not in kept]
        if fixed:
            raise InputError(
                f"`dynamic_shapes` names axis {fixed[0]} of {name!r}, which was captured with "
                "a fixed size.",
                "Name it when you capture the model.",
            )
    return replace(graph, axes=axes)


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
    axes = tuple(dict.fromkeys(sizes, Dim.DYNAMIC) or None for sizes in graph.symbolic)
    return replace(graph, axes=axes)


def _check_names_apart(graph: Graph, shapes: Any) -> None:
    """Raises CaptureError if one size of the graph has two names."""
    known: dict[str, str] = {}
    for axes, sizes in zip(graph.axes, graph.symbolic, strict=True):
        for axis, label in (axes or {}).items():
            name = name_of(label) if axis in sizes else ""
            other = known.setdefault(str(sizes[axis]), name) if name else ""
            if other != name:
                guards = _guards(graph.model, *graph.example, shapes)
                guard = next((guard for guard in guards if guard.equates), None)
                raise _not_kept(
                    graph,
                    f"{graph.name} needs {other!r} and {name!r} to be one size",
                    f"torch.export gave them one symbol{f': {guard.words}' if guard else ''}",
                    "Give both one name in `dynamic_shapes`, or change the line that needs it.",
                    guard,
                )


def _check_sizes_free(graph: Graph, shapes: Any) -> None:
    """Raises CaptureError if a dimension that must stay dynamic fits at one size only.

    torch.export reports that of ``x.shape[0] == 6``, but not of ``x.shape[0] // 2 == 3``.
    """
    names = graph.signature.tensor_inputs
    for name, axes, shape in zip(names, graph.axes, graph._shapes, strict=True):
        for axis, label in dynamic_dims(axes).items():
            kept = must_stay_dynamic(label) and is_dynamic(shape[axis])
            if guilty := only_fit(shape[axis]) if kept else "":
                guards = _guards(graph.model, *graph.example, shapes)
                guard = next((guard for guard in guards if guard.form == guilty), None)
                raise _not_kept(
                    graph,
                    f"{graph.name} fixes {name}.shape[{axis}] to {shape[axis].node.hint}",
                    f"It assumes {guard.words if guard else guilty}, and no other size fits",
                    f"{guard.repair if guard else ''} Or leave that dimension out of "
                    "`dynamic_shapes`.".strip(),
                    guard,
                )


def _not_kept(
    graph: Graph, message: str, reason: str, hint: str, guard: Guard | None
) -> CaptureError:
    """The error for a dimension that torch.export captured otherwise than asked."""
    line = guard.line if guard else None
    error = CaptureError(message, hint, line, reason=reason, code=SPECIALIZED)
    error.partial_graph = lambda: (graph.program, "torch.export")
    return error


@dataclass(frozen=True)
class Node:
    """One FX node: ``value`` is the dtype and shape of its result, ``line`` the source line."""

    name: str
    op: str
    target: str
    value: str
    line: Line | None


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
    axes: tuple[Axes | None, ...]
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
    def specialized(self) -> list[str]:
        """The ``Dim.AUTO`` dimensions that torch.export fixed to a number:
        ``x.shape[1] = 16``."""
        names = self.signature.tensor_inputs
        return [
            f"{name}.shape[{axis}] = {shape[axis]}"
            for name, axes, shape in zip(names, self.axes, self._shapes, strict=True)
            for axis in dynamic_dims(axes)
            if not is_dynamic(shape[axis])
        ]

    @property
    def _named_sizes(self) -> dict[str, str]:
        """torch's symbol of a dynamic dimension -> the name that the user gave it."""
        return {
            str(sizes[axis]): name_of(label)
            for axes, sizes in zip(self.axes, self.symbolic, strict=True)
            for axis, label in (axes or {}).items()
            if axis in sizes and name_of(label)
        }

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
    for node in module.graph.nodes:
        if node.name in left_out:
            continue
        name, branch = f"{indent}{node.name}", getattr(module, str(node.target), None)
        if node.op == "get_attr" and isinstance(branch, fx.GraphModule):
            yield Node(name, "subgraph", "", "", None)
            yield from _rows(branch, sizes, indent=indent + "  ")
            continue
        target = node.target
        if callable(target) and not hasattr(target, "overloadpacket"):
            target = target.__name__
        results = f"({', '.join(map(str, pytree.tree_leaves(node.args)))})"
        value = results if node.op == "output" else _described(node.meta.get("val"), sizes)
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
    model: nn.Module, args: tuple, kwargs: dict[str, Any], shapes: Any, errors: list[Exception]
) -> CaptureError:
    """The CaptureError that explains torch.export's errors, one for each mode that was tried."""
    first, *others = (_reason(error) for error in errors)
    (reason, repair, code), line = first, user_line(errors[0].__traceback__)
    if "flatten" in reason:
        words = set(re.findall(r"\w+", reason))
        for name, value in named_arguments(model, args, kwargs).items():
            for kind in {type(leaf).__name__ for leaf in pytree.tree_leaves(value)} & words:
                reason += f" The argument {name!r} is or contains a {kind}."
    guards = _guards(model, args, kwargs, shapes) if code == SPECIALIZED else []
    # a tensor that is passed twice also has guards on how its own memory overlaps
    if guard := min(guards, key=lambda one: (not one.freezes, not one.equates), default=None):
        line, where = guard.line, ", ".join(f"{n} = {v}" for n, v in guard.locals.items())
        reason = f"{reason} That line assumes {guard.words}{f'; here {where}' * bool(where)}."
        fixed = _inputs_of_size(guard, named_arguments(model, args, kwargs))
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
    if not (size := re.search(r"^Eq\(\w+, (\d+)\)$", guard.expression)):
        return []
    sources = str(guard.sources)
    others = {
        n: x for n, x in arguments.items() if n in guard.locals and f"L['{n}']" not in sources
    }
    return [n for n, x in others.items() if int(size[1]) in getattr(x, "shape", ())]


def _reason(error: Exception) -> Reason:
    return explain(error) or Reason(
        first_words(error),
        "Run the model itself with these arguments. If it fails too, fix that first; if not, "
        "torch.export cannot follow that line: write it with other operations.",
    )
