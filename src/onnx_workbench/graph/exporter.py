"""The one room that calls torch.export and torch.onnx: quietly, and with every default stated.

``torch.onnx`` has two flavours of exporter. ``dynamo=True``, the default since torch 2.9, captures
the model with ``torch.export`` and translates the FX graph node by node; :func:`capture_program`
and :func:`translate` are its two halves. ``dynamo=False`` runs the model once, records what the
TorchScript tracer saw, and translates that; it is :func:`trace`.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as fx_config
import torch.utils._pytree as pytree
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.onnx import ONNXProgram

from ..torch_state import quiet
from .reasons import untranslated
from .traces import recurrent_lengths, through_helpers
from .translations import shared_table

Axes = dict[int, str]
"""The names of an input's dynamic dimensions: ``{0: "batch"}``."""

_NOTES = tuple(
    f"pkg.torch.onnx.{name}"
    for name in ("stack_trace", "fx_node", "name_scopes", "class_hierarchy")
)

Translations = Mapping[Any, Callable[..., Any]]
"""torch operator -> the onnxscript function that translates it."""


def capture_program(
    model: nn.Module, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any, strict: bool
) -> ExportedProgram:
    """torch.export, with the settings under which torch.onnx calls it.

    ``backed_size_oblivious`` keeps a dynamic dimension of size 1 dynamic, which torch.export alone
    would freeze, and an LSTM or GRU of dynamic length becomes a loop in the graph
    (``torch/onnx/_internal/exporter/_capture_strategies.py``). Nothing needs a gradient: with them,
    torch refuses to write into views and to decompose some graphs.
    torch.export leaves its marks of dynamic dimensions on the tensors when it fails (torch 2.13),
    and would refuse them forever: it is handed views.
    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
    oblivious = fx_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with (
        quiet(),
        oblivious,
        through_helpers(),
        recurrent_lengths(dynamic_shapes),
        without_gradients(model),
        named_keywords(model, kwargs if dynamic_shapes else {}),
    ):
        program = torch.export.export(
            model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=strict
        )
    for name, weight in program.state_dict.items():
        if weight.requires_grad:  # the model's own, which needs it again by now
            program.state_dict[name] = nn.Parameter(weight.detach(), requires_grad=False)
    _bake_enums(program)
    return program


@contextlib.contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """The model in no_grad mode, its weights without gradients; afterwards they are as before."""
    weights = [
        tensor
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.requires_grad and tensor.is_leaf
    ]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        with torch.no_grad():
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


@contextlib.contextmanager
def named_keywords(model: nn.Module, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """While this lasts, ``forward`` takes by their own names those of ``kwargs`` that go into its
    ``**kwargs``: torch.export makes no dimension dynamic of what has no name."""
    forward = model.forward
    takes = inspect.signature(forward)
    named = [p for p in takes.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in kwargs]
    more = [parameter for parameter in more if parameter.name not in takes.parameters]
    if not more:
        yield
        return

    def by_name(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    by_name.__signature__ = takes.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
    own = vars(model).get("forward")
    model.forward = by_name
    try:
        yield
    finally:
        del model.forward
        if own is not None:
            model.forward = own


def _bake_enums(program: ExportedProgram) -> None:
    """Make an Enum argument a constant of the graph, as a number or a string is.

    torch.export takes it for a custom object, of which torch.onnx makes an input without a type,
    or it stops at the IntEnum that is no ``int`` (torch 2.13).
    """
    values = pytree.tree_leaves(program.example_inputs)
    inputs = [
        spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT
    ]
    baked = {
        spec.arg.name: value
        for spec, value in zip(inputs, values, strict=True)
        if isinstance(value, enum.Enum)
    }
    for spec in inputs:
        if spec.arg.name in baked:
            spec.arg = ConstantArgument(name=spec.arg.name, value=baked[spec.arg.name])  # type: ignore
    for node in program.graph.find_nodes(op="placeholder"):
        if node.name in baked:
            node.meta["val"] = None


@contextlib.contextmanager
def sizes_unchanged(program: ExportedProgram) -> Iterator[None]:
    """What a decomposition finds out about sizes ends with it.

    All decompositions of a program share its shape environment (torch 2.13). That of an LSTM fixes
    its length there, and sizes that depend on data stay pending: the next one would refuse them.
    """
    values = (node.meta.get("val") for node in program.graph.nodes)
    environments = {
        value.fake_mode.shape_env
        for value in values
        if isinstance(value, FakeTensor) and value.fake_mode.shape_env
    }
    for environment in environments:
        environment.pending_fresh_unbacked_symbols.clear()
    kept = [
        (environment, name, copy.copy(held))
        for environment in environments
        for name, held in vars(environment).items()
        if isinstance(held, (dict, list, set))
    ]
    try:
        yield
    finally:
        for environment, name, held in kept:
            setattr(environment, name, held)
        for environment in environments:
            for counter in ("_version_counter", "_replacements_version_counter"):  # of its caches
                setattr(environment, counter, getattr(environment, counter, 0) + 1)


def decomposed(program: ExportedProgram, *table: Any) -> ExportedProgram:
    """``program.run_decompositions(*table)``, as often as one likes."""
    with quiet(), through_helpers(), torch.no_grad(), sizes_unchanged(program):
        return program.run_decompositions(*table)


def translate(
    program: ExportedProgram,
    *,
    opset: int | None = None,
    axes: Sequence[Axes | None] = (),
    optimize: bool = True,
    translations: Translations | None = None,
    names: tuple[Sequence[str] | None, Sequence[str] | None] = (None, None),
    verbose: bool | None = False,
) -> ONNXProgram:
    """The translating half of ``torch.onnx.export(dynamo=True)``.

    ``axes`` names the dynamic dimensions of the graph's tensor inputs, one entry an input;
    ``translations`` has an onnxscript function for an operator, before torch.onnx's own; ``names``
    are those of the inputs and the outputs. The graph that was translated, decomposed, is the
    ``exported_program`` of what comes back.
    """
    named = [axis or None for axis in axes] if any(axes) else None
    try:
        with quiet(), through_helpers(), shared_table(), torch.no_grad(), sizes_unchanged(program):
            onnx_program = torch.onnx.export(
                _without_constants(program),
                dynamo=True,
                verbose=verbose,
                input_names=names[0],
                output_names=names[1],
                opset_version=opset,
                dynamic_shapes=named,
                optimize=optimize,
                custom_translation_table=dict(translations or {}),
            )
    except Exception as error:
        raise untranslated(error, program) from error
    assert onnx_program is not None  # only dynamo=False returns None
    _settle(onnx_program)
    _reopen(onnx_program, program)
    _note_results(onnx_program)
    return onnx_program


def _settle(program: ONNXProgram) -> None:
    """A size that became a number is written as one.

    torch.export leaves it a symbolic integer whose expression is 16, and torch.onnx writes the text
    of all that is no ``int``: an open dimension by the name of "16" (torch 2.13,
    ``_set_shape_type`` in ``torch/onnx/_internal/exporter/_core.py``).
    """
    graph = program.model.graph
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        shape = value.shape
        if shape and any(str(size).isdigit() and not isinstance(size, int) for size in shape):
            settled = [int(str(size)) if str(size).isdigit() else size for size in shape]
            value.shape = type(shape)(settled)


def _reopen(onnx_program: ONNXProgram, program: ExportedProgram) -> None:
    """A size of an output that is dynamic in the captured graph is no number in the file.

    The loop that a recurrent layer decomposes into loses it (torch 2.13): the file would declare
    the example's length, and answer with another.
    """
    specs = program.graph_signature.output_specs
    made = [spec.arg.name for spec in specs if spec.kind is OutputKind.USER_OUTPUT]
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    tensors = [nodes[name] for name in made if isinstance(nodes.get(name), torch.Tensor)]
    outputs = onnx_program.model.graph.outputs
    for value, tensor in zip(outputs, tensors, strict=False):
        if len(outputs) != len(tensors) or value.shape is None or len(value.shape) != tensor.dim():
            continue
        value.shape = type(value.shape)(
            None if isinstance(size, int) and _is_dynamic(captured) else size
            for size, captured in zip(value.shape, tensor.shape, strict=True)
        )


def _is_dynamic(size: int | torch.SymInt) -> bool:
    return isinstance(size, torch.SymInt) and not size.node.expr.is_Integer


def _note_results(program: ONNXProgram) -> None:
    """What a node with weights makes has the node's metadata too.

    A quantizer replaces such a node by others that have none, and keeps the value.
    """
    for node in program.model.graph:
        if any(
            v is not None and v.is_initializer() and len(v.shape or ()) > 1 for v in node.inputs
        ):
            notes = {key: text for key, text in node.metadata_props.items() if key in _NOTES}
            for value in node.outputs:
                value.metadata_props.update(notes)


def trace(
    model: nn.Module,
    path: Path,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    opset: int | None,
    inputs: Sequence[str],
    axes: Sequence[Axes | None],
    **rare: Any,
) -> None:
    """``torch.onnx.export(dynamo=False)``: the TorchScript tracer, kept for comparison."""
    named = {name: axis for name, axis in zip(inputs, axes, strict=True) if axis}
    try:
        with quiet():
            torch.onnx.export(
                model,
                args,
                path,
                kwargs=kwargs,
                dynamo=False,
                opset_version=opset,
                input_names=list(inputs),
                dynamic_axes=named,
                **rare,
            )
    except OSError:
        raise
    except Exception as error:
        raise untranslated(error) from error


def _without_constants(program: ExportedProgram) -> ExportedProgram:
    """The program without outputs that are constants: the translation stops at an ``int`` there."""
    specs = program.graph_signature.output_specs
    kept = [i for i, spec in enumerate(specs) if not isinstance(spec.arg, ConstantArgument)]
    if len(kept) == len(specs):
        return program
    program = decomposed(program, {})
    output = program.graph.output_node()
    results = output.args[0]
    assert isinstance(results, (tuple, list))
    output.args = (tuple(results[i] for i in kept),)
    program.graph_signature.output_specs = [specs[i] for i in kept]
    users = sum(specs[i].kind is OutputKind.USER_OUTPUT for i in kept)
    root = program.module_call_graph[0].signature
    assert root is not None
    root.out_spec = pytree.tree_structure((0,) * users)
    return program
