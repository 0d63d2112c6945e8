"""A model as a few lines of text: the same on every run, and without paths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import onnx

from ..formatting import plural, shaped, size, table
from ..proto import dims_of, dtype_name, weight_bytes, weights

_MOST = 6  # inputs, outputs, kinds of operator


def summary(name: str, proto: onnx.ModelProto, external: Iterable[str] = (), cut: str = "") -> str:
    """A few lines about a model.

    >>> from onnx import parser
    >>> print(summary("half.onnx", parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["": 20]> '
    ...     'half (float[batch, 2] x) => (float[batch, 2] y) { y = Relu(x) }')))
    half.onnx     opset 20, IR 10
    input         x  float32[batch, 2]
    output        y  float32[batch, 2]
    nodes         1: Relu
    initializers  none
    """
    graph = proto.graph
    initializers = [(name, math.prod(dims)) for name, dims, _ in weights(graph)]
    known = {name for name, _ in initializers}
    opsets = (
        f"opset {entry.version}" + (f" of {one_line(entry.domain)}" if entry.domain else "")
        for entry in proto.opset_import
    )
    ops = Counter(one_line(node.op_type) for node in graph.node)
    count, numbers = len(initializers), sum(count for _, count in initializers)
    stored = f"{count:,}, together {numbers:,} numbers, {size(weight_bytes(graph))}"
    rows = [
        (one_line(name), ", ".join([*opsets, f"IR {proto.ir_version}"])),
        *_ends("input", [value for value in graph.input if value.name not in known]),
        *_ends("output", graph.output),
        ("nodes", f"{ops.total():,}: {counted(ops)}" if ops else "none"),
        ("initializers", stored if initializers else "none"),
        *(("external data", one_line(file)) for file in external),
    ]
    return table([*rows, ("metadata", cut)] if cut else rows)


def one_line(name: str, longest: int = 60) -> str:
    """A name on one line, cut in the middle if it is long.

    >>> one_line("a\\nb"), one_line("abcdefghij", longest=7)
    ('a b', 'abc…hij')
    """
    name = "".join(char if char.isprintable() else " " for char in name)
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def counted(ops: Counter[str]) -> str:
    """Operators with their counts, the most frequent first.

    >>> counted(Counter(["Relu", "Add", "Add"]))
    '2 Add, Relu'
    """
    common = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
    return listed([f"{count:,} {op}" if count > 1 else op for op, count in common], "more kind")


def listed(names: Sequence[str], others: str = "more node") -> str:
    more = [plural(len(names) - _MOST, others)] if len(names) > _MOST else []
    return ", ".join([*(one_line(name, 40) for name in names[:_MOST]), *more]) or "none"


def _ends(noun: str, values: Iterable[onnx.ValueInfoProto]) -> Iterator[tuple[str, str]]:
    values = list(values)
    cells = [(one_line(value.name), _kind(value)) for value in values[:_MOST]]
    lines = table(cells).splitlines() if cells else ["none"]
    if len(values) > _MOST:
        lines.append(f"and {len(values) - _MOST} more")
    yield from zip([noun, *[""] * len(lines)], lines, strict=False)


def _kind(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return kind.removesuffix("_type") if kind else "of any type"
    dtype, dims = dtype_name(value.type.tensor_type.elem_type), dims_of(value)
    if dims is None:
        return f"{dtype} of any shape"
    return shaped(dtype, [one_line(str(dim), 24) for dim in dims])
