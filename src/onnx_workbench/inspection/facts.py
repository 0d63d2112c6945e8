"""What a captured graph and its file give away without being run: rules, one function each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from ..artifact import Artifact
from ..formatting import plural, shaped, size
from ..graph import Graph, exporter
from ..lineage.table import trace
from ..proto import described
from ..source import Line, method_lines, user_line
from ..viewer.origin import without_folders
from .finding import Finding

SLACK = 4_000
"""Bytes of constants that a file may have beyond the model's own weights, and a fifth of those."""


def forward_line(model: nn.Module) -> Line | None:
    """Where the model's ``forward`` begins."""
    found = method_lines(getattr(type(model), "forward", None))  # TorchScript has none here
    return next((line for line in found if line.text.startswith("def ")), None)


def of_graph(graph: Graph, model: nn.Module) -> list[Finding]:
    """All that a captured graph gives away."""
    return [*mutations(graph), *unused(graph, model), *baked(graph, model)]


def random_line(graph: Graph) -> Line | None:
    """The line of the first operator that draws numbers."""
    return next((user_line(node.meta.get("stack_trace")) for node in draws(graph)), None)


def draws(graph: Graph) -> list[fx.Node]:
    """The operators that draw numbers, by torch's own tag; dropout that is told not to train draws
    none."""
    seeded = torch.Tag.nondeterministic_seeded
    found = [n for n in graph.program.graph.nodes if seeded in getattr(n.target, "tags", ())]
    return [node for node in found if _trains(node)]


def _trains(node: fx.Node) -> bool:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    return bool(given.get("train", given.get("training", True)))


def mutations(graph: Graph) -> Iterator[Finding]:
    """Writes into an input or a buffer: a file has neither memory nor the caller's tensors."""
    program = exporter.decomposed(graph.program, {})
    nodes = {node.name: node for node in program.graph.nodes}
    for spec in program.graph_signature.output_specs:
        line = user_line(nodes[spec.arg.name].meta.get("stack_trace")) if spec.target else None
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            yield _risk(
                f"The model writes into its input {spec.target!r}, and the file does not",
                line,
                "Return the new value, or write into a clone: x = x + 1 instead of x += 1.",
            )
        if spec.kind is OutputKind.BUFFER_MUTATION:
            yield _risk(
                f"The model keeps state in its buffer {spec.target!r}, and the file forgets it: "
                "each call begins with the value of the export",
                line,
                "Take the state as an input and return the new one.",
            )


def unused(graph: Graph, model: nn.Module) -> Iterator[Finding]:
    """Inputs that change nothing."""
    specs = graph.program.graph_signature.input_specs
    inputs = {spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT}
    for node in graph.program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs and not node.users:
            if not isinstance(node.meta.get("val"), torch.Tensor):
                continue
            yield _risk(
                f"Nothing is computed from the input {node.name!r}",
                forward_line(model),
                "Leave it out of forward(), or use it. One exporter keeps such an input and "
                "another drops it, so that callers disagree.",
            )


def baked(graph: Graph, model: nn.Module) -> Iterator[Finding]:
    """Numbers among the arguments, and what is no tensor in the result."""
    signature = graph.signature
    for index, value in signature.baked_inputs.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield _risk(
                f"The argument {signature.inputs[index]!r} is baked in as {value!r}",
                forward_line(model),
                "Make it a tensor if it changes from call to call, else a part of the model.",
            )
    if signature.baked_outputs:
        values = ", ".join(map(repr, signature.baked_outputs.values()))
        yield _risk(
            f"The result holds what is no tensor: {values}; the file returns the tensors alone",
            forward_line(model),
            "Return tensors alone, in a tuple or a dict.",
        )


def _risk(sentence: str, line: Line | None, repair: str) -> Finding:
    return Finding("capture", "risk", sentence, line, repair)


def output_line(artifact: Artifact, index: int) -> Line | None:
    """The line of the node that makes an output of the file."""
    name = artifact.outputs[index].name
    makers = [node.name for node in artifact.proto.graph.node if name in node.output]
    return trace(artifact).line_of(makers[0]) if makers else None


def weights(artifact: Artifact, model: nn.Module | None) -> Finding:
    """How much the file weighs beside the model, and which constant makes the difference."""
    held = artifact.weight_bytes
    files = ", ".join(f"{file.name} {size(file.stat().st_size)}" for file in artifact.files)
    if model is None:
        return Finding("size", "ok", f"{size(held)} of weights: {files}")
    tensors: dict[Any, int] = {
        tensor.untyped_storage()._cdata: tensor.nbytes
        for tensor in (*model.parameters(), *model.buffers())
    }
    own = sum(tensors.values())
    if held <= 1.2 * own + SLACK:
        return Finding("size", "ok", f"{size(held)} of weights, as the model: {files}")
    return _heavy(artifact, model, held, own)


def _heavy(artifact: Artifact, model: nn.Module, held: int, own: int) -> Finding:
    tensors = (model.named_parameters(remove_duplicate=False), model.named_buffers())
    named = {name for kind in tensors for name, _ in kind}
    added = [t for t in artifact.proto.graph.initializer if t.name not in named]
    worst = max(added, key=lambda tensor: math.prod(tensor.dims), default=None)
    what, line = "", None
    if worst is not None:
        users = [node.name for node in artifact.proto.graph.node if worst.name in node.input]
        line = trace(artifact).line_of(users[0]) if users and users[0] else None
        what = f"; the most is {worst.name!r} {shaped('', worst.dims)}, which is none of its own"
    return Finding(
        "size",
        "risk",
        f"The file holds {size(held)} of weights, the model {size(own)}{what}",
        line,
        "A tied weight (an embedding that is also the head) is stored again where one use needs "
        "it transposed: keep one table and index it. A constant table: compute it in forward().",
    )


def private(model: onnx.ModelProto) -> str:
    """What a file says of the machine that it was made on; empty where it says nothing."""
    parts = [*described(model)]
    notes = [note for part in parts for note in getattr(part, "metadata_props", ())]
    sources = sum(note.key.endswith("stack_trace") for note in notes)
    texts = (*(part.doc_string for part in parts), *(note.value for note in notes))
    said = [f"{plural(sources, 'node')} with lines of source"] * bool(sources)
    said += ["paths of the machine that made it"] * any(without_folders(t) != t for t in texts)
    return f"it holds {' and '.join(said)}" if said else ""
