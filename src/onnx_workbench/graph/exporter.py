"""The only callers of torch.export and torch.onnx: quiet, and with explicit defaults.

``torch.onnx`` has two flavors of exporter. ``dynamo=True``, the default since torch 2.9, captures
the model with ``torch.export`` and translates the FX graph node by node; :func:`capture_program`
and :func:`translate` are its two halves. ``dynamo=False`` runs the model once, records it with the
TorchScript tracer, and translates that; it is :func:`export_torchscript`.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    OutputKind,
    SymIntArgument,
)
from torch.onnx import ONNXProgram

from ..errors import InputError
from ..source import depth_of_caller
from ..torch_state import attributes, evaluating, owners, quiet
from .dims import is_dynamic
from .reasons import translation_error
from .torch_private import (
    dynamic_recurrence,
    full_stack_traces,
    is_fake,
    operators_looked_up_once,
    shared_translations,
    size_one_stays_dynamic,
    sizes_unchanged,
)

Names = tuple[Sequence[str] | None, Sequence[str] | None]
"""The names of the inputs, and of the outputs."""

Translations = Mapping[Any, Callable[..., Any]]
"""torch operator -> the onnxscript function that translates it."""

_METADATA = tuple(
    f"pkg.torch.onnx.{name}"
    for name in ("stack_trace", "fx_node", "name_scopes", "class_hierarchy")
)


def capture_program(
    model: nn.Module, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any, strict: bool
) -> ExportedProgram:
    """Call torch.export with torch.onnx's settings.

    No tensor requires a gradient: torch would refuse to write into views and to decompose some
    graphs. The tensors are detached views, because a failed torch.export marks them as dynamic and
    refuses them from then on (torch 2.13).
    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
    with (
        quiet(),
        size_one_stays_dynamic(),
        full_stack_traces(),
        dynamic_recurrence(dynamic_shapes),
        _without_gradients(model),
        _attributes_restored(model),
        _named_keywords(model, kwargs if dynamic_shapes else {}),
    ):
        program = torch.export.export(
            model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=strict
        )
    for name, weight in program.state_dict.items():
        if weight.requires_grad:  # the model's own parameter, restored by now
            program.state_dict[name] = nn.Parameter(weight.detach(), requires_grad=False)
    _bake_constants(program)
    return program


@contextlib.contextmanager
def _attributes_restored(model: nn.Module) -> Iterator[None]:
    """Put back what the model's attributes held, and those of the user's objects in them, such as a
    cache: torch.export leaves its tensors without values there, and warns only about a module's."""
    same = partial(pytree.tree_map, lambda leaf: leaf)  # new lists and dicts
    held = {key: same(attributes(owner)) for key, owner in owners(model).items()}
    try:
        yield
    finally:
        for key, owner in owners(model).items():
            for name, value in attributes(owner).items():
                if not any(map(is_fake, pytree.tree_leaves(value))):
                    continue
                if name in held.get(key, {}):
                    vars(owner)[name] = held[key][name]  # a frozen dataclass refuses setattr
                else:
                    del vars(owner)[name]
                if isinstance(owner, nn.Module):  # torch has warned
                    continue
                warnings.warn(
                    f"forward() assigns tensors to {type(owner).__name__}.{name} in each call, and "
                    "the file does not. Return them as outputs; if a later call reads them, take "
                    "them as inputs, too.",
                    UserWarning,
                    stacklevel=depth_of_caller(),
                )


@contextlib.contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """Turn gradients off, in torch and in the model's weights, for a while."""
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
def _named_keywords(model: nn.Module, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Give ``forward`` a named parameter for each entry of its ``**kwargs``, for a while:
    torch.export makes dimensions dynamic only in named parameters."""
    forward = model.forward
    signature = inspect.signature(forward)
    more = [n for n in kwargs if n not in signature.parameters]
    if not more:
        yield
        return

    def by_name(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    named += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in more]
    by_name.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    with patch.object(model, "forward", by_name):
        yield


def _bake_constants(program: ExportedProgram) -> None:
    """Make an Enum argument a constant of the graph, like a number or a string, and an int that
    torch.export specialized.

    torch.export treats an Enum as a custom object, which torch.onnx turns into an untyped input; at
    an IntEnum, torch.onnx fails (torch 2.13). The specialized int would be an input of the file
    that changes nothing.
    """
    values = pytree.tree_leaves(program.example_inputs)
    specs = program.graph_signature.input_specs
    inputs = [spec for spec in specs if spec.kind is InputKind.USER_INPUT]
    nodes = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    for spec, value in zip(inputs, values, strict=True):
        node = nodes[spec.arg.name]
        fixed = isinstance(spec.arg, SymIntArgument) and not is_dynamic(node.meta["val"])
        if fixed or isinstance(value, enum.Enum):
            node.meta["val"] = value if fixed else None
            spec.arg = ConstantArgument(name=spec.arg.name, value=value)


@contextlib.contextmanager
def _decomposing(program: ExportedProgram) -> Iterator[None]:
    with (
        quiet(),
        full_stack_traces(),
        operators_looked_up_once(),
        torch.no_grad(),
        sizes_unchanged(program),
        dynamic_recurrence(program.range_constraints),
    ):
        yield


def decomposed(program: ExportedProgram, *table: Any) -> ExportedProgram:
    """``program.run_decompositions(*table)``, which may be repeated."""
    with _decomposing(program):
        return program.run_decompositions(*table)


def translate(
    program: ExportedProgram,
    *,
    opset: int | None = None,
    labels: Sequence[Mapping[int, str]] = (),
    optimize: bool = True,
    translations: Translations | None = None,
    names: Names = (None, None),
    verbose: bool | None = False,
) -> ONNXProgram:
    """The translating half of ``torch.onnx.export(dynamo=True)``.

    ``labels`` are those of a :class:`~onnx_workbench.graph.Graph`: the names of each tensor input's
    dynamic dimensions. ``translations`` come before torch.onnx's own. The result's
    ``exported_program`` is the decomposed graph that was translated.
    """
    try:
        with shared_translations(), _decomposing(program):
            onnx_program = torch.onnx.export(
                _without_constants(program),
                dynamo=True,
                verbose=verbose,
                input_names=names[0],
                output_names=names[1],
                opset_version=opset,
                dynamic_shapes=[axes or None for axes in labels] if any(labels) else None,
                optimize=optimize,
                custom_translation_table=dict(translations or {}),
            )
    except Exception as error:
        refused = translation_error(error, program, translations or {})
        refused.partial_graph = lambda: (program, "torch.export")
        raise refused from error
    assert onnx_program is not None  # only dynamo=False returns None
    _check_names(onnx_program, names)
    _correct_shapes(onnx_program)
    _copy_metadata(onnx_program)
    return onnx_program


def _without_constants(program: ExportedProgram) -> ExportedProgram:
    """The program without constant outputs: the translation fails at an ``int`` output."""
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


def _check_names(program: ONNXProgram, names: Names) -> None:
    """Raises InputError if a name of the user's is empty, or two values of the file have it."""
    graph = program.model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)]
    counts = Counter(value.name for value in values)
    for option, asked in zip(("input_names", "output_names"), names, strict=True):
        if wrong := [name for name in asked or () if not name or counts[name] > 1]:
            why = "another value of the file has it" if wrong[0] else "a name must not be empty"
            raise InputError(f"`{option}` has {wrong[0]!r}, but {why}.", "Choose another name.")


def _correct_shapes(onnx_program: ONNXProgram) -> None:
    """Write specialized sizes as numbers.

    torch.export keeps a specialized size as a symbolic integer with the expression 16, and
    torch.onnx writes it as a dynamic dimension named "16" (torch 2.13, ``_set_shape_type`` in
    ``torch/onnx/_internal/exporter/_core.py``).
    """
    graph = onnx_program.model.graph
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        shape = value.shape
        if shape and any(str(size).isdigit() and not isinstance(size, int) for size in shape):
            value.shape = type(shape)(int(str(s)) if str(s).isdigit() else s for s in shape)


def _copy_metadata(program: ONNXProgram) -> None:
    """Copy the metadata of each node with weights to its outputs, too: a quantizer replaces the
    node by others without metadata, but keeps the output."""
    for node in program.model.graph:
        weights = [v for v in node.inputs if v is not None and v.is_initializer()]
        if any(len(weight.shape or ()) > 1 for weight in weights):
            metadata = {key: text for key, text in node.metadata_props.items() if key in _METADATA}
            for value in node.outputs:
                value.metadata_props.update(metadata)


def partial_program(
    model: nn.Module, args: tuple, kwargs: dict[str, Any], relaxed: Any
) -> tuple[ExportedProgram | None, str]:
    """What there is of a model that torch.export refuses, and the way it was captured.

    ``relaxed`` demands of no dimension that it stays dynamic. With strict=True Dynamo may follow
    what non-strict capture does not. ``draft_export`` goes on behind a line that it cannot prove,
    with what the example does there.
    """
    draft = partial(torch.export.draft_export, model, args, kwargs, dynamic_shapes=relaxed)
    capture = partial(capture_program, model, args, kwargs, relaxed)
    ways: dict[str, Callable[[], ExportedProgram]] = {
        "torch.export, which fixed the dimension": partial(capture, False),
        "torch.export with strict=True": partial(capture, True),
        "torch.export.draft_export": draft,
    }
    for name, way in ways.items():
        with contextlib.suppress(Exception), quiet(), evaluating(model, warn=False):
            return way(), name
    return None, ""


def export_torchscript(
    model: nn.Module, path: Path, args: tuple, kwargs: dict[str, Any], **options: Any
) -> None:
    """``torch.onnx.export(dynamo=False)``: the TorchScript tracer, kept for comparison."""
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
    try:
        with quiet():
            torch.onnx.export(model, args, path, kwargs=kwargs, dynamo=False, **options)
    except OSError:
        raise
    except Exception as error:
        raise translation_error(error) from error
