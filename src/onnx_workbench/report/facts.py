"""Checks of a model, its captured graph and its file, one function each."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator
from typing import Any

import onnx
import torch
import torch.utils._pytree as pytree
from torch import fx, nn
from torch.export.graph_signature import OutputKind

from ..artifact import Artifact
from ..exporter_metadata import has_trace
from ..formatting import plural, shaped, size
from ..graph import Graph, exporter
from ..graph.signature import weight_inputs
from ..lineage.table import join
from ..proto import described
from ..source import Line, is_user_file, method_lines, node_line, without_folders
from ..torch_state import attributes, owners
from .finding import Finding

SLACK = 4_000
"""Bytes of constants that a file may hold beyond 1.2 times the model's own weights."""

Snapshot = dict[tuple[int, str], tuple[Any, list[tuple[Any, int]]]]
"""Id of the owner and attribute -> the owner, and its leaves, each tensor with its version."""

_PLAIN = (bool, int, float, str, type(None))
_WRITES = (
    r"^[^=()]*\.{name}\b\s*(?:\[.*\]\s*)?(?:,[^=()]*)?(?:[-+*/@%&|^<>]|//|\*\*|<<|>>)?=(?!=)",
    r"\.{name}\b.*\.(?:\w+_|append|extend|insert|update|setdefault|appendleft|add)\(",
)
"""Patterns of a line that writes into the attribute ``name``."""


def forward_line(model: nn.Module) -> Line | None:
    """The ``def`` line of the model's ``forward``."""
    lines = method_lines(getattr(type(model), "forward", None))  # a ScriptModule has none
    return next((line for line in lines if line.text.startswith("def ")), None)


def snapshot(model: nn.Module) -> Snapshot:
    """The values of the model's attributes, and of those of the user's objects in them."""
    return {
        (key, name): (owner, [(leaf, _version(leaf)) for leaf in pytree.tree_leaves(value)])
        for key, owner in owners(model).items()
        for name, value in attributes(owner).items()
    }


def _version(leaf: Any) -> int:
    return leaf._version if isinstance(leaf, torch.Tensor) and not leaf.is_inference() else 0


def attribute_writes(before: Snapshot, after: Snapshot) -> Iterator[Finding]:
    """The attributes that a call between two snapshots wrote, tensors first.

    An attribute that none of the user's methods writes belongs to a hook, such as weight_norm's,
    and is left out.
    """
    changed = [
        (name, owner, any(isinstance(leaf, torch.Tensor) for leaf, _ in leaves))
        for (key, name), (owner, leaves) in after.items()
        if not _same(before.get((key, name), (owner, []))[1], leaves)
    ]
    for name, owner, tensors in sorted(changed, key=lambda found: not found[2]):
        if line := _writing_line(type(owner), name):
            what, code = ("tensors", "OW003") if tensors else ("a value", "OW004")
            of = "" if isinstance(owner, nn.Module) else f" of a {type(owner).__name__}"
            yield Finding(
                code,
                f"The model stores {what} in its attribute {name!r}{of} in each call, and the file "
                "does not",
                line,
                "Return it as an output; if a later call reads it, take it as an input too.",
                about=name,
            )


def _same(before: list[tuple[Any, int]], after: list[tuple[Any, int]]) -> bool:
    return len(before) == len(after) and all(
        version == then and (a is b or (isinstance(a, _PLAIN) and type(a) is type(b) and a == b))
        for (a, then), (b, version) in zip(before, after, strict=True)
    )


def _writing_line(kind: type, name: str) -> Line | None:
    """The user's first line outside ``__init__`` that writes the attribute."""
    methods = {key: method for cls in kind.__mro__[::-1] for key, method in vars(cls).items()}
    methods.pop("__init__", None)
    lines = [x for method in methods.values() for x in method_lines(method) if is_user_file(x.file)]
    patterns = [re.compile(text.replace("{name}", re.escape(name))) for text in _WRITES]
    return next((line for p in patterns for line in lines if p.search(line.text)), None)


def draws(graph: Graph) -> Iterator[fx.Node]:
    """The operators that draw random numbers; dropout in eval mode draws none."""
    seeded = torch.Tag.nondeterministic_seeded
    for node in graph.program.graph.nodes:
        if seeded in getattr(node.target, "tags", ()):
            names = [argument.name for argument in node.target._schema.arguments]
            given = dict(zip(names, node.args, strict=False)) | node.kwargs
            if given.get("train", given.get("training", True)):
                yield node


def mutations(graph: Graph) -> Iterator[Finding]:
    """Writes into an input or a buffer, which a file cannot do."""
    program = exporter.decomposed(graph.program, {})
    nodes = {node.name: node for node in program.graph.nodes}
    for spec in program.graph_signature.output_specs:
        line = node_line(nodes[spec.arg.name]) if spec.target else None
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            yield Finding(
                "OW110",
                f"The model writes into its input {spec.target!r}, and the file does not",
                line,
                "Return the new value, or write into a clone: x = x + 1 instead of x += 1.",
                about=spec.target or "",
            )
        if spec.kind is OutputKind.BUFFER_MUTATION:
            yield Finding(
                "OW111",
                f"The model keeps state in its buffer {spec.target!r}, and the file forgets it: "
                "each call starts from the value at export",
                line,
                "Take the state as an input and return the new one.",
                about=spec.target or "",
            )


def side_effects(graph: Graph, model: nn.Module) -> Iterator[Finding]:
    """What the model does and the captured graph does not."""
    try:
        written = [*mutations(graph)]
    except Exception:  # a graph that torch cannot decompose: the export stage says why
        return
    yield from written
    signature, forward = graph.signature, forward_line(model)
    weights = weight_inputs(graph.program)
    for node in graph.program.graph.find_nodes(op="placeholder"):
        is_tensor = isinstance(node.meta.get("val"), torch.Tensor)
        if node.name not in weights and is_tensor and not node.users:
            yield Finding(
                "OW112",
                f"The input {node.name!r} is unused",
                forward,
                "Leave it out of forward(), or use it. One exporter keeps such an input, the other "
                "drops it.",
                about=node.name,
            )
    for index, value in signature.baked_inputs.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield Finding(
                "OW113",
                f"The argument {signature.inputs[index]!r} is baked in as {value!r}",
                forward,
                "Make it a tensor if it changes from call to call, else part of the model.",
                about=signature.inputs[index],
            )
    for node in _lost_decisions(graph):
        yield Finding(
            "OW115",
            "A decision on the values of a tensor fails during capture, and an `except` of the "
            "model hides that: the graph has what follows the `except`",
            node_line(node),
            "Choose with torch.where or torch.cond, and let the `except` name the error that it is "
            "for.",
        )
    if signature.baked_outputs:
        values = ", ".join(map(repr, signature.baked_outputs.values()))
        yield Finding(
            "OW114",
            f"The file leaves out what is no tensor in the result: {values}",
            forward,
            "Return only tensors, in a tuple or a dict.",
        )


def _lost_decisions(graph: Graph) -> Iterator[fx.Node]:
    """The calls of ``bool(tensor)``, traced as ``(tensor != 0).item()``, that nothing uses. Capture
    ends at such a call, unless the model catches its error."""
    aten = torch.ops.aten
    for node in graph.program.graph.find_nodes(op="call_function", target=aten.item.default):
        if node.all_input_nodes[0].target is aten.ne.Scalar and not _is_used(node):
            yield node


def _is_used(node: fx.Node) -> bool:
    """Whether more than its bounds, 0 and 1, is read of a bool: capture itself asserts those."""
    users = [user for user in node.users if user.target not in (operator.ge, operator.le)]
    return any(user.target is not torch.sym_ite or _is_used(user) for user in users)


def output_line(artifact: Artifact, index: int) -> Line | None:
    """The line of the node that computes an output of the file."""
    name = artifact.outputs[index].name
    makers = [node.name for node in artifact.proto.graph.node if name in node.output]
    return join(artifact).line_of(makers[0]) if makers else None


def weights(artifact: Artifact, model: nn.Module | None) -> Finding:
    """The size of the file's weights beside the model's, and the largest constant added."""
    in_file, graph = artifact.weight_bytes, artifact.proto.graph
    files = ", ".join(f"{file.name} {size(file.stat().st_size)}" for file in artifact.files)
    if model is None:
        numbers = {"bytes_in_file": in_file}
        return Finding("OW700", f"{size(in_file)} of weights: {files}", numbers=numbers)
    tensors = [*model.parameters(), *model.buffers()]
    in_model = sum({t.untyped_storage().data_ptr(): t.nbytes for t in tensors}.values())
    numbers = {"bytes_in_file": in_file, "bytes_in_model": in_model}
    if in_file <= 1.2 * in_model + SLACK:
        sentence = f"{size(in_file)} of weights, as in the model: {files}"
        return Finding("OW700", sentence, numbers=numbers)
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    known |= {name for name, _ in model.named_buffers()}
    added = [tensor for tensor in graph.initializer if tensor.name not in known]
    most = max(added, key=lambda tensor: math.prod(tensor.dims), default=None)
    what, line = "", None
    if most is not None:
        users = [node.name for node in graph.node if most.name in node.input]
        line = join(artifact).line_of(users[0]) if users and users[0] else None
        what = f"; the largest that is not in the model is {most.name!r} {shaped('', most.dims)}"
    return Finding(
        "OW701",
        f"The file holds {size(in_file)} of weights, the model {size(in_model)}{what}",
        line,
        "A tied weight, such as an embedding that is also the head, is stored twice if one use "
        "needs it transposed: keep one table and index it. Compute a constant table in forward().",
        about=most.name if most is not None else "",
        numbers=numbers,
    )


def private(model: onnx.ModelProto) -> str:
    """What a file reveals about the machine that made it; empty if nothing."""
    protos = [*described(model)]
    notes = [note for proto in protos for note in getattr(proto, "metadata_props", ())]
    sources = sum(isinstance(x, onnx.NodeProto) and has_trace(x) for x in protos)
    texts = (*(proto.doc_string for proto in protos), *(note.value for note in notes))
    parts = [f"{plural(sources, 'node')} with source lines"] * bool(sources)
    parts += ["paths of the machine that made it"] * any(without_folders(t) != t for t in texts)
    return f"it holds {' and '.join(parts)}" if parts else ""
