"""The nodes of a ModelProto, in bodies and functions too, each under a unique name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx

MAIN = ("", "ai.onnx")
"""The names of ONNX's own operator set."""

_TORCH = {"float": "float32", "double": "float64"} | {
    f"float8{kind}": f"float8_{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")
}
"""ONNX's name of a dtype -> torch's, if they differ."""

_PACKED = {"int4": 4, "uint4": 4, "float4e2m1": 4, "int2": 2, "uint2": 2}  # bits


@dataclass(frozen=True, eq=False, slots=True)
class NodeRef:
    """A node under a unique name: its own, unless it has none or shares it with another node.

    ``inside`` names the node or function whose body contains it, ``function`` the function around
    it, however deep it lies.
    """

    name: str
    node: onnx.NodeProto
    inside: str = ""
    function: str = ""

    @property
    def bodies(self) -> Sequence[onnx.GraphProto]:
        return bodies(self.node)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The values that it reads, including those that its bodies read from outside.

        A value in a function is called ``function/value``, to tell it from one outside.
        """
        return self._values((*self.node.input, *outer_reads(self.node)))

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._values(self.node.output)

    def _values(self, names: Iterable[str]) -> tuple[str, ...]:
        prefix = f"{self.function}/" if self.function else ""
        return tuple(prefix + name for name in names if name)


def node_refs(model: onnx.ModelProto) -> tuple[NodeRef, ...]:
    """Every node: those of ``If``, ``Loop`` and ``Scan`` follow their owner, functions are last.

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> half (float[2] x) '
    ...     '=> (float[2] y) { h = Relu(x)  y = Relu(h) }')
    >>> [ref.name for ref in node_refs(model)]
    ['h', 'y']
    """
    return tuple(walk(model))


def walk(model: onnx.ModelProto) -> Iterator[NodeRef]:
    """Yield :func:`node_refs` one by one: all at once may take more memory than the file."""
    taken: dict[str, int] = {}
    yield from _walk(model.graph.node, taken)
    for function in model.functions:
        yield from _walk(function.node, taken, function.name, function.name)


def graphs(model: onnx.ModelProto, refs: Iterable[NodeRef] = ()) -> Iterator[onnx.GraphProto]:
    """The main graph, and the bodies of all nodes; ``refs`` are these, if known."""
    yield model.graph
    for ref in refs or walk(model):
        yield from ref.bodies


def named(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy in which each node has the name of its ref; None if each already has it."""
    if all(ref.name == ref.node.name for ref in node_refs(model) if not ref.function):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for ref in node_refs(copy):
        if not ref.function:
            ref.node.name = ref.name
    return copy


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the ONNX operator set that a file needs."""
    return next((entry.version for entry in model.opset_import if entry.domain in MAIN), 0)


def dtype_name(number: int) -> str:
    """
    >>> dtype_name(onnx.TensorProto.FLOAT), dtype_name(onnx.TensorProto.INT64), dtype_name(99)
    ('float32', 'int64', 'type 99')
    """
    if number not in onnx.TensorProto.DataType.values():
        return f"type {number}"
    name = onnx.TensorProto.DataType.Name(number).lower()
    return _TORCH.get(name, name)


def dims_of(value: onnx.ValueInfoProto) -> tuple[str | int, ...] | None:
    """Names and sizes, "?" for what is neither; None if the model declares no shape.

    >>> dims_of(onnx.helper.make_tensor_value_info("x", 1, ["batch", 8, None, -1]))
    ('batch', 8, '?', '?')
    """
    kind = value.type.sparse_tensor_type if value.type.HasField("sparse_tensor_type") else None
    tensor = kind or value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in tensor.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> str | int:
    known = dim.HasField("dim_value") and dim.dim_value >= 0
    return dim.dim_param or (dim.dim_value if known else "?")


def weights(graph: onnx.GraphProto) -> Iterator[tuple[str, list[int], onnx.TensorProto]]:
    """Each initializer's name, shape and tensor; for a sparse one, the tensor of its nonzeros."""
    for tensor in graph.initializer:
        yield tensor.name, list(tensor.dims), tensor
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, list(sparse.dims), sparse.values


def weight_bytes(graph: onnx.GraphProto) -> int:
    """Bytes of all initializers, in the file or beside it, including the indices of sparse ones."""
    stored = [tensor for _, _, tensor in weights(graph)]
    stored += [sparse.indices for sparse in graph.sparse_initializer]
    return sum(math.prod(tensor.dims) * _bits(tensor.data_type) // 8 for tensor in stored)


def item_bytes(kind: str) -> int:
    """Bytes of one number; ``kind`` is what ONNX Runtime's profiler calls its dtype.

    >>> item_bytes("float"), item_bytes("int64"), item_bytes("bool"), item_bytes("unheard of")
    (4, 8, 1, 0)
    """
    kinds = dict(onnx.TensorProto.DataType.items())
    return _bits(kinds.get(kind.upper(), 0)) // 8


def _bits(number: int) -> int:
    if number not in onnx.helper.get_all_tensor_dtypes():
        return 0
    kind = onnx.helper.tensor_dtype_to_np_dtype(number)
    return _PACKED.get(dtype_name(number), 8 * kind.itemsize)


def tensors_of(model: onnx.ModelProto, refs: Iterable[NodeRef] = ()) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, in bodies and functions too.

    ``refs`` are its nodes, if known.
    """
    for graph in graphs(model, refs):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for ref in refs or walk(model):
        for attribute in ref.node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*single, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def mislabeled(model: onnx.ModelProto) -> str:
    """Name the operators that are newer than the opset that the file states; "" if none is.

    >>> from onnx import parser
    >>> mislabeled(parser.parse_model('<ir_version: 10, opset_import: ["": 18]> g (float[2] x) '
    ...     '=> (float[2] y) { y = Gelu(x) }'))
    'It is labeled opset 18 and holds Gelu, which came with opset 20.'
    """
    label = opset_of(model)
    newer: dict[str, int] = {}
    for ref in node_refs(model):
        name = ref.node.op_type
        if ref.node.domain in MAIN and not ref.function and name not in newer:
            since = _since(name, label)
            if since:
                newer[name] = since
    names = ", ".join(f"{name}, which came with opset {since}" for name, since in newer.items())
    return f"It is labeled opset {label} and holds {names}." if names else ""


def _since(operator: str, label: int) -> int:
    """The opset that introduced an operator if it is above ``label``, else 0."""
    for version in range(label, onnx.defs.onnx_opset_version() + 1):
        if onnx.defs.has(operator, version):
            return version if version > label else 0
    return 0


def nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes, and those in their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from nested(body.node)


def bodies(node: onnx.NodeProto) -> Sequence[onnx.GraphProto]:
    """The graphs inside a control-flow node."""
    graphs: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            graphs.append(attribute.g)
        graphs += attribute.graphs
    return graphs


def outer_reads(node: onnx.NodeProto) -> list[str]:
    """The outer values that the bodies of a node read."""
    read: list[str] = []
    for body in bodies(node):
        made = {value for inner in body.node for value in inner.output}
        made |= {value.name for value in body.input} | {t.name for t in body.initializer}
        inner_reads = (
            v for inner in body.node for v in (*inner.input, *outer_reads(inner)) if v not in made
        )
        read += inner_reads
        read += [value.name for value in body.output if value.name not in made]
    return read


def described(model: onnx.ModelProto) -> Iterator[Any]:
    """Everything with a doc string: models, functions, graphs, their values, nodes, attributes."""
    yield from (model, *model.functions)
    for graph in graphs(model):
        yield graph
        for values in (graph.input, graph.output, graph.value_info, graph.initializer):
            yield from values
    for ref in walk(model):
        yield ref.node
        yield from ref.node.attribute


def strip(model: onnx.ModelProto) -> None:
    """Remove metadata and doc strings, which no runtime reads."""
    for part in described(model):
        part.ClearField("doc_string")
        if not isinstance(part, onnx.AttributeProto):
            part.ClearField("metadata_props")
    for function in model.functions:
        for value in function.value_info:
            value.ClearField("metadata_props")
            value.ClearField("doc_string")


K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W", bound=Any)  # has inputs and outputs: a NodeRef, a Kernel


def producers(nodes: Iterable[W]) -> dict[str, W]:
    """Value -> its producer; names that two bodies use are left out."""
    makers: dict[str, W] = {}
    twice: set[str] = set()
    for node in nodes:
        for value in node.outputs:
            if value in makers:
                twice.add(value)
            makers[value] = node
    return {value: node for value, node in makers.items() if value not in twice}


def consumers(nodes: Iterable[W]) -> dict[str, list[W]]:
    """Value -> its consumers, in order."""
    return grouped((value, node) for node in nodes for value in node.inputs)


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Key -> its values, in order.

    >>> grouped([("a", 1), ("b", 2), ("a", 3)])
    {'a': [1, 3], 'b': [2]}
    """
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _walk(
    nodes: Sequence[onnx.NodeProto], taken: dict[str, int], inside: str = "", function: str = ""
) -> Iterator[NodeRef]:
    for node in nodes:
        prefix = f"{function}/" if function else ""
        name = _free(prefix + (node.name or next(iter(node.output), node.op_type)), taken)
        yield NodeRef(name, node, inside, function)
        for body in bodies(node):
            yield from _walk(body.node, taken, name, function)


def _free(name: str, taken: dict[str, int]) -> str:
    """A name not in ``taken``, which counts each name, so that many equal names stay fast."""
    unique = name
    while unique in taken:
        taken[name] += 1
        unique = f"{name}_{taken[name]}"
    taken[unique] = 1
    return unique
