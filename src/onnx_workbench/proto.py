"""The nodes of a ModelProto, also those in bodies and functions, each under a unique name."""

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
"""Names that ONNX gives a dtype where torch has another; the rest agree."""

_PACKED = {"int4": 4, "uint4": 4, "float4e2m1": 4, "int2": 2, "uint2": 2}  # bits


@dataclass(frozen=True, eq=False, slots=True)
class NodeRef:
    """A node under a unique name: its own, unless it has none or another node has it too.

    ``inside`` names the node or function whose body holds it.
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
        """What it reads; for a node with a body, also what the body reads from outside.

        A value of a function is called ``function/value``: it is not the one outside.
        """
        return self._values((*self.node.input, *captured(self.node)))

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._values(self.node.output)

    def _values(self, names: Iterable[str]) -> tuple[str, ...]:
        prefix = f"{self.function}/" if self.function else ""
        return tuple(prefix + name for name in names if name)


def node_refs(model: onnx.ModelProto) -> tuple[NodeRef, ...]:
    """Every node, those of ``If``, ``Loop`` and ``Scan`` behind their owner, functions last.

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> half (float[2] x) '
    ...     '=> (float[2] y) { h = Relu(x)  y = Relu(h) }')
    >>> [ref.name for ref in node_refs(model)]
    ['h', 'y']
    """
    return tuple(walk(model))


def walk(model: onnx.ModelProto) -> Iterator[NodeRef]:
    """Yield the same one by one: twenty thousand at once take more memory than their file."""
    taken: dict[str, int] = {}
    yield from _walk(model.graph.node, taken)
    for function in model.functions:
        yield from _walk(function.node, taken, function.name, function.name)


def named(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy in which each node has the name of its ref; None where each has it already."""
    if all(ref.name == ref.node.name for ref in node_refs(model) if not ref.function):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for ref in node_refs(copy):
        if not ref.function:
            ref.node.name = ref.name
    return copy


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the ONNX operator set that a file asks a runtime for."""
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


def dims_of(value: onnx.ValueInfoProto) -> list[str | int] | None:
    """Names and sizes; None where the model promises no shape.

    >>> dims_of(onnx.helper.make_tensor_value_info("x", 1, ["batch", 8, None]))
    ['batch', 8, '?']
    """
    kind = value.type.sparse_tensor_type if value.type.HasField("sparse_tensor_type") else None
    tensor = kind or value.type.tensor_type
    return [_dim(dim) for dim in tensor.shape.dim] if tensor.HasField("shape") else None


def _dim(dim: onnx.TensorShapeProto.Dimension) -> str | int:
    return dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else "?")


def weights(graph: onnx.GraphProto) -> Iterator[tuple[str, list[int], onnx.TensorProto]]:
    """Each initializer: its name, its shape, and the tensor of numbers that the file holds of it;
    of a sparse one those that are not zero."""
    for tensor in graph.initializer:
        yield tensor.name, list(tensor.dims), tensor
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, list(sparse.dims), sparse.values


def weight_bytes(graph: onnx.GraphProto) -> int:
    """Bytes of all initializers, in the file or beside it; of sparse ones the indices, too."""
    stored = [tensor for _, _, tensor in weights(graph)]
    stored += [sparse.indices for sparse in graph.sparse_initializer]
    return sum(math.prod(tensor.dims) * _bits(tensor.data_type) // 8 for tensor in stored)


def _bits(number: int) -> int:
    if number not in onnx.helper.get_all_tensor_dtypes():
        return 0
    kind = onnx.helper.tensor_dtype_to_np_dtype(number)
    return _PACKED.get(dtype_name(number), 8 * kind.itemsize)


def tensors_of(model: onnx.ModelProto, found: Iterable[NodeRef] = ()) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, those of bodies and functions too.

    ``found`` are its nodes, where they are at hand.
    """
    yield from _tensors_in(model.graph)
    for ref in found or walk(model):
        for attribute in ref.node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            held = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*held, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for body in ref.bodies:
            yield from _tensors_in(body)


def _tensors_in(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def mislabeled(model: onnx.ModelProto) -> str:
    """Name the operators that the opset of a file's label does not have; "" where there are none.

    >>> from onnx import parser
    >>> mislabeled(parser.parse_model('<ir_version: 10, opset_import: ["": 18]> g (float[2] x) '
    ...     '=> (float[2] y) { y = Gelu(x) }'))
    'It is labeled opset 18 and holds Gelu, which came with opset 20.'
    """
    label = opset_of(model)
    found: dict[str, int] = {}
    for ref in node_refs(model):
        name = ref.node.op_type
        if ref.node.domain in MAIN and not ref.function and name not in found:
            since = _since(name, label)
            if since:
                found[name] = since
    held = ", ".join(f"{name}, which came with opset {since}" for name, since in found.items())
    return f"It is labeled opset {label} and holds {held}." if held else ""


def _since(operator: str, label: int) -> int:
    """The opset that brought an operator, where that is above ``label``; else 0."""
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
    """The graphs that a control-flow node holds."""
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found += attribute.graphs
    return found


def captured(node: onnx.NodeProto) -> list[str]:
    """The outer values that the bodies of a node read."""
    read: list[str] = []
    for body in bodies(node):
        made = {value for inner in body.node for value in inner.output}
        made |= {value.name for value in body.input} | {t.name for t in body.initializer}
        inner_reads = (
            v for inner in body.node for v in (*inner.input, *captured(inner)) if v not in made
        )
        read += inner_reads
        read += [value.name for value in body.output if value.name not in made]
    return read


def described(model: onnx.ModelProto) -> Iterator[Any]:
    """Whatever has a doc string: models, functions, graphs, their values, nodes, attributes."""
    yield from (model, *model.functions, *_described(model.graph))
    for ref in walk(model):
        yield ref.node
        yield from ref.node.attribute
        for body in bodies(ref.node):
            yield from _described(body)


def _described(graph: onnx.GraphProto) -> Iterator[Any]:
    yield graph
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        yield from values


def strip(model: onnx.ModelProto) -> None:
    """Remove what no runtime reads: metadata and doc strings."""
    for part in described(model):
        part.ClearField("doc_string")
        if not isinstance(part, onnx.AttributeProto):
            part.ClearField("metadata_props")
    for function in model.functions:
        for value in function.value_info:
            value.ClearField("metadata_props")
            value.ClearField("doc_string")


W = TypeVar("W", bound=Any)  # with inputs and outputs: a NodeRef, a Kernel


def producers(found: Iterable[W]) -> dict[str, W]:
    """Value -> its producer; a name that two bodies use has none."""
    made: dict[str, W] = {}
    twice: set[str] = set()
    for one in found:
        for value in one.outputs:
            if value in made:
                twice.add(value)
            made[value] = one
    return {value: one for value, one in made.items() if value not in twice}


def consumers(found: Iterable[W]) -> dict[str, list[W]]:
    """Value -> its consumers, in order."""
    used: dict[str, list[W]] = {}
    for one in found:
        for value in one.inputs:
            used.setdefault(value, []).append(one)
    return used


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
    """``taken`` counts each name, so that twenty thousand nodes of one name are named at once."""
    unique = name
    while unique in taken:
        taken[name] += 1
        unique = f"{name}_{taken[name]}"
    taken[unique] = 1
    return unique
