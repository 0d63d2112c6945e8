"""The one room that calls torch.export and torch.onnx: quietly, and with every default stated.

``torch.onnx`` has two flavours of exporter. ``dynamo=True``, the default since torch 2.9, captures
the model with ``torch.export`` and translates the FX graph node by node; :func:`capture_program`
and :func:`translate` are its two halves. ``dynamo=False`` runs the model once, records what the
TorchScript tracer saw, and translates that; it is :func:`trace`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as fx_config
import torch.utils._pytree as pytree
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind
from torch.onnx import ONNXProgram

from ..errors import ExportError, TrainingModeWarning
from ..source import Line, is_users, user_line
from .traces import through_helpers
from .translations import shared_table

Axes = dict[int, str]
"""The names of an input's dynamic dimensions: ``{0: "batch"}``."""

Translations = Mapping[Any, Callable[..., Any]]
"""torch operator -> the onnxscript function that translates it."""


def capture_program(
    model: nn.Module, args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any, strict: bool
) -> ExportedProgram:
    """torch.export, with the setting under which torch.onnx calls it.

    ``backed_size_oblivious`` keeps a dynamic dimension of size 1 dynamic, which torch.export alone
    would freeze (``torch/onnx/_internal/exporter/_capture_strategies.py`` sets the same).
    torch.export leaves its marks of dynamic dimensions on the tensors when it fails (torch 2.13),
    and would refuse them for ever: it is handed views.
    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, _view, (args, kwargs))
    oblivious = fx_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with quiet(), oblivious, through_helpers():
        return torch.export.export(
            model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=strict
        )


def _view(tensor: torch.Tensor) -> torch.Tensor:
    """The same values under another name."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def translate(
    program: ExportedProgram,
    *,
    opset: int | None = None,
    axes: Sequence[Axes | None] = (),
    optimize: bool = True,
    translations: Translations | None = None,
) -> ONNXProgram:
    """The translating half of ``torch.onnx.export(dynamo=True)``.

    ``axes`` names the dynamic dimensions of the graph's tensor inputs, one entry an input;
    ``translations`` has an onnxscript function for an operator, before torch.onnx's own. The
    graph that was translated, decomposed, is the ``exported_program`` of what comes back.
    """
    named = [axis or None for axis in axes] if any(axes) else None
    try:
        with quiet(), through_helpers(), shared_table():
            onnx_program = torch.onnx.export(
                _without_constants(program),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                dynamic_shapes=named,
                optimize=optimize,
                custom_translation_table=dict(translations or {}),
            )
    except torch.onnx.errors.OnnxExporterError as error:
        why = _seeded(program) or (*_untranslated(error), _untranslated_line(error, program))
        raise ExportError(*why) from error
    assert onnx_program is not None  # only dynamo=False returns None
    _settle(onnx_program)
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


def trace(
    model: nn.Module,
    path: Path,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    opset: int | None,
    inputs: Sequence[str],
    axes: Sequence[Axes | None],
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
                verbose=False,
                opset_version=opset,
                input_names=list(inputs),
                dynamic_axes=named,
            )
    except OSError:
        raise
    except Exception as error:
        raise ExportError(*_untranslated(error)) from error


def _without_constants(program: ExportedProgram) -> ExportedProgram:
    """The program without outputs that are constants: the translation stops at an ``int`` there."""
    specs = program.graph_signature.output_specs
    kept = [i for i, spec in enumerate(specs) if not isinstance(spec.arg, ConstantArgument)]
    if len(kept) == len(specs):
        return program
    with through_helpers():
        program = program.run_decompositions({})
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


def _seeded(program: ExportedProgram) -> tuple[str, str, Line | None] | None:
    """The first operator that draws from a generator, which torch.onnx cannot decompose."""
    for node in program.graph.nodes:
        if node.kwargs.get("generator") is not None:
            return (
                f"{node.target} draws random numbers from a torch.Generator, and a file has none.",
                "draw them once, in __init__, and keep them in a buffer; or take them as an input.",
                user_line(node.meta.get("stack_trace")),
            )
    return None


def _untranslated_line(error: BaseException | None, program: ExportedProgram) -> Line | None:
    """The line of the FX node at which the translation stopped; its error names the node."""
    while error is not None:
        if found := re.search(r"translating node %(\w+)", str(error)):
            with quiet(), through_helpers():
                graphs = (program.graph, program.run_decompositions().graph)
            nodes = [node for graph in graphs for node in graph.nodes if node.name == found[1]]
            return user_line(nodes[0].meta.get("stack_trace")) if nodes else None
        error = error.__cause__
    return None


def _untranslated(error: Exception) -> tuple[str, str]:
    root: BaseException = error
    at = None
    while root.__cause__ is not None:
        root = root.__cause__
        at = at or re.search(r"translating node .*?target=torch\.ops\.([\w.]+)", str(root))
    reason = (str(root).strip().splitlines() or [type(root).__name__])[0]
    missing = re.search(r"OpOverload\(op='([^']+)'", str(root))
    if missing:
        return (
            f"The operator {missing[1]} has no translation into ONNX.",
            "write that step with other operators, or hand export() an onnxscript "
            "function for it in `custom_translation_table`.",
        )
    if at:
        return (
            f"The translation of {at[1]} refuses this call: {type(root).__name__}: {reason}",
            "write that step so that it does not come to this, or hand export() an "
            "onnxscript function for the operator in `custom_translation_table`.",
        )
    return (
        f"torch.onnx could not translate the graph: {type(root).__name__}: {reason}",
        "look at the graph with capture(...).polish(), and at the chained error.",
    )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode for a while; every submodule gets its own mode back.

    A model that was in training mode is named in a :class:`TrainingModeWarning`: dropout and batch
    normalisation of a training model give an ONNX file that answers differently on every call.
    """
    modes = [(module, module.training) for module in model.modules()]
    if model.training:
        name = type(model).__name__
        warnings.warn(
            f"{name} is in training mode. It is used in eval mode here and put back as it was; "
            f"call {name.lower()}.eval() yourself to silence this warning.",
            TrainingModeWarning,
            stacklevel=_depth_of_caller(),
        )
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _depth_of_caller() -> int:
    """How many frames up the code stands that called this package."""
    ours = (str(Path(__file__).parents[1]), contextlib.__file__)
    frames = itertools.takewhile(
        lambda frame: frame.filename.startswith(ours),
        itertools.islice(inspect.stack(context=0), 1, None),
    )
    return 1 + sum(1 for _ in frames)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No chatter of the exporter; its errors come out as exceptions all the same.

    torch.onnx prints its progress, logs a line for each torchvision operator that is absent and
    warns about its own insides, and torch.export prints the graph of a failed capture to stderr.
    What is silenced is theirs alone: a warning about a line of the user's comes through.
    """
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        logger.setLevel(logging.CRITICAL)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            logger.setLevel(level)
    for warning in heard:
        if is_users(warning.filename):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
