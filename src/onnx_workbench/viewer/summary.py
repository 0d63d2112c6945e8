"""A model as a few lines of text: the same on every run, and free of paths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import onnx

from .. import formatting
from ..proto import dims_of, dtype_name, weight_bytes, weights
from .model import Model

_MOST = 6  # inputs, outputs, kinds of operator


def summary(model: Model) -> str:
    """
    >>> from onnx import parser
    >>> from onnx_workbench.viewer.model import read
    >>> print(summary(read(parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["": 20]> '
    ...     'half (float[batch, 2] x) => (float[batch, 2] y) { y = Relu(x) }'))))
    half          opset 20, IR 10
    input         x  float32[batch, 2]
    output        y  float32[batch, 2]
    nodes         1: Relu
    initializers  none
    """
    proto = model.proto
    graph = proto.graph
    known = {name for name, _, _ in weights(graph)}
    rows = [(plain(model.name), _versions(proto))]
    rows += _ends("input", [value for value in graph.input if value.name not in known])
    rows += _ends("output", graph.output)
    rows += [("nodes", _nodes(graph.node)), ("initializers", _weights(graph))]
    rows += [("external data", plain(name)) for name in model.external]
    rows += [("metadata", model.cut)] if model.cut else []
    return formatting.table(rows)


def plain(name: str, longest: int = 60) -> str:
    """On one line, and cut in the middle where it is long.

    >>> plain("a\\nb"), plain("abcdefghij", longest=7)
    ('a b', 'abc…hij')
    """
    name = "".join(char if char.isprintable() else " " for char in name)
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def _versions(model: onnx.ModelProto) -> str:
    opsets = (
        f"opset {entry.version}" + (f" of {plain(entry.domain)}" if entry.domain else "")
        for entry in model.opset_import
    )
    return ", ".join([*opsets, f"IR {model.ir_version}"])


def _ends(noun: str, values: Iterable[onnx.ValueInfoProto]) -> list[tuple[str, str]]:
    values = list(values)
    cells = [(plain(value.name), _kind(value)) for value in values[:_MOST]]
    lines = formatting.table(cells).splitlines() if cells else ["none"]
    if len(values) > _MOST:
        lines.append(f"and {len(values) - _MOST} more")
    return [(noun if not index else "", line) for index, line in enumerate(lines)]


def _kind(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return kind.removesuffix("_type") if kind else "of any type"
    dtype, dims = dtype_name(value.type.tensor_type.elem_type), dims_of(value)
    return (
        f"{dtype} of any shape"
        if dims is None
        else formatting.shaped(dtype, [plain(str(dim), 24) for dim in dims])
    )


def _nodes(nodes: Iterable[onnx.NodeProto]) -> str:
    counts = Counter(plain(node.op_type) for node in nodes)
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {op}" if count > 1 else op for op, count in common[:_MOST]]
    if len(common) > _MOST:
        shown.append(f"{formatting.plural(len(common) - _MOST, 'more kind')}")
    return f"{counts.total():,}: {', '.join(shown)}" if shown else "none"


def _weights(graph: onnx.GraphProto) -> str:
    counts = [math.prod(dims) for _, dims, _ in weights(graph)]
    if not counts:
        return "none"
    size = formatting.size(weight_bytes(graph))
    return f"{len(counts):,}, together {sum(counts):,} numbers, {size}"
