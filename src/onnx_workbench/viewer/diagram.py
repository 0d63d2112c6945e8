"""An ONNX graph as boxes and arrows, before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import numpy_helper

from ..formatting import plural
from ..proto import bodies, dims_of, nested, outer_reads
from .origin import key
from .summary import one_line

MOST_BOXES = 60
"""Of a larger graph only the head and the tail are drawn, with one box for the nodes between."""

MOST_LAYERS = 28
"""The same limit for the depth of a graph."""

_MOST_LINES = 5


@dataclass(frozen=True)
class Box:
    """A box of ``kind`` "op", "end" (an input or output of the graph) or "gap" (nodes not drawn).

    ``lines`` are a role and a text each, ``label`` has the shapes of its outputs. ``nodes`` are the
    ONNX nodes that it stands for, including those in bodies.
    """

    title: str
    lines: tuple[tuple[str, str], ...] = ()
    kind: Literal["op", "end", "gap"] = "op"
    nodes: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Diagram:
    """``arrows`` are pairs of indices into ``boxes``."""

    boxes: list[Box]
    arrows: list[tuple[int, int]]


def diagram(model: onnx.ModelProto, added: Container[str] = ()) -> Diagram:
    """The boxes of the inputs, operators and outputs, and the arrows of the values.

    Initializers and constants are lines inside the box that reads them. ``added`` has the names of
    nodes that are not in the file: the modules and stubs of a folded graph.

    >>> from onnx import parser
    >>> graph = diagram(parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["": 20]> '
    ...     'half (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }'))
    >>> [(box.title, box.lines, box.label) for box in graph.boxes]
    [('x', (), '2'), ('Mul', (('B', '2'),), '2'), ('y', (), '')]
    >>> graph.arrows
    [(0, 1), (1, 2)]
    """
    graph = model.graph
    known = _constants(graph)
    infos = (*graph.value_info, *graph.input, *graph.output)
    shapes = {v.name: _product(dims) for v in infos if (dims := dims_of(v)) is not None}
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    boxes: list[Box] = []
    arrows: dict[tuple[int, int], None] = {}
    maker: dict[str, int] = {}

    def add(box: Box, reads: Iterable[str] = ()) -> None:
        arrows.update(dict.fromkeys((maker[n], len(boxes)) for n in reads if n in maker))
        boxes.append(box)

    for value in graph.input:
        if value.name not in known:
            maker[value.name] = len(boxes)
            add(Box(one_line(value.name, 32), kind="end", label=shapes.get(value.name, "")))
    for node in graph.node:
        if known.keys() >= set(node.output):
            continue
        inside = (key(inner) for body in bodies(node) for inner in nested(body.node))
        nodes = tuple(name for name in (key(node), *inside) if name not in added)
        title, lines = one_line(node.op_type, 32), tuple(_lines(node, known, opsets))
        if key(node) in added:
            words = one_line(key(node), 32), plural(len(nodes), "node")
            lines = tuple(("", line) for line in words if line != title) if nodes else ()
        outputs = dict.fromkeys(shapes[name] for name in node.output if name in shapes)
        box = Box(title, lines, nodes=nodes, label=one_line(", ".join(outputs), 40))
        add(box, [*node.input, *outer_reads(node)])
        maker.update(dict.fromkeys(filter(None, node.output), len(boxes) - 1))
    for value in graph.output:
        add(Box(one_line(value.name, 32), kind="end"), [value.name])
    return Diagram(boxes, list(arrows))


def abridged(whole: Diagram, most: int = MOST_BOXES, depth: int = MOST_LAYERS) -> Diagram:
    """The same diagram if it is small, else its first and last boxes around one box "not drawn".

    >>> boxes = [Box(f"{number}", nodes=(f"{number}",)) for number in range(9)]
    >>> chain = Diagram(boxes, [(i, i + 1) for i in range(8)])
    >>> [box.title for box in abridged(chain, depth=5).boxes]
    ['0', '1', '2', '5 nodes not drawn', '8']
    """
    layer = layers(len(whole.boxes), whole.arrows)
    last, below = max(layer, default=0), (depth - 1) // 4
    if len(layer) <= most and last < depth:
        return whole
    order = sorted(range(len(layer)), key=layer.__getitem__)
    first = [box for box in order[: most * 3 // 4] if layer[box] < depth - 1 - below]
    rest = [box for box in order[-(most // 4) :] if layer[box] > last - below and box not in first]
    gap, kept = len(first), [*sorted(first), *sorted(rest)]
    place = {box: at + (at >= gap) for at, box in enumerate(kept)}
    hidden = sum(len(box.nodes) for at, box in enumerate(whole.boxes) if at not in place)
    boxes = [whole.boxes[at] for at in kept]
    boxes.insert(gap, Box(f"{plural(hidden, 'node')} not drawn", kind="gap"))
    ends = ((place.get(tail, gap), place.get(head, gap)) for tail, head in whole.arrows)
    return Diagram(boxes, list(dict.fromkeys((tail, head) for tail, head in ends if tail != head)))


def layers(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """The layer of each box by longest path; a box without a source sits close to its consumer.

    >>> layers(4, [(0, 1), (1, 2), (3, 2)])
    [0, 1, 2, 1]
    """
    below: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for tail, head in edges:
        below[tail].append(head)
        waiting[head] += 1
    sources = [index for index in range(count) if not waiting[index]]
    layer, ready = [0] * count, list(sources)
    for index in ready:  # grows during the loop; boxes on a cycle stay in layer 0
        for head in below[index]:
            layer[head] = max(layer[head], layer[index] + 1)
            waiting[head] -= 1
            if not waiting[head]:
                ready.append(head)
    for index in sources:
        layer[index] = max(0, min((layer[head] for head in below[index]), default=1) - 1)
    return layer


def constants(graph: onnx.GraphProto) -> dict[str, str]:
    """Name -> value, of the initializers and constants whose value a box has room for.

    >>> from onnx import parser
    >>> constants(parser.parse_graph('g (float[2] x) => (float[2] y) '
    ...                              '{ c = Constant <value_float = 0.1> ()  y = Mul(x, c) }'))
    {'c': '0.1'}
    """
    shown = _constants(graph).items()
    return {name: text.removeprefix("= ") for name, text in shown if text.startswith("= ")}


def _constants(graph: onnx.GraphProto) -> dict[str, str]:
    """The name of each initializer and constant -> ``= value`` where there is room, or a shape."""
    shown = {tensor.name: _shown(tensor) for tensor in graph.initializer}
    shown |= {sparse.values.name: _product(sparse.dims) for sparse in graph.sparse_initializer}
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1 and node.attribute:
            value = onnx.helper.get_attribute_value(node.attribute[0])
            text = _shown(value) if isinstance(value, onnx.TensorProto) else str(value)
            if isinstance(value, int | float):
                text = f"= {value:.4g}" if isinstance(value, float) else f"= {value}"
            shown[node.output[0]] = one_line(text, 20)
    return shown


def _shown(tensor: onnx.TensorProto) -> str:
    """A single number or a short list of integers as its value, any other tensor as its shape."""
    integers = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    in_file = tensor.data_location != onnx.TensorProto.EXTERNAL
    if in_file and len(tensor.dims) < 2 and math.prod(tensor.dims) <= (4 if integers else 1):
        try:
            values = numpy_helper.to_array(tensor).ravel().tolist()
            shown = ", ".join(f"{value:.4g}" for value in values)
            return f"= [{shown}]" if tensor.dims else f"= {shown}"
        except (ValueError, TypeError, KeyError):  # no data here, or not a number
            pass
    return _product(tensor.dims)


def _product(dims: Iterable[object]) -> str:
    """A shape as Netron writes it, with multiplication signs."""
    return "\u00d7".join(one_line(str(dim), 24) for dim in dims) or "scalar"


def _lines(
    node: onnx.NodeProto, constants: dict[str, str], opsets: dict[str, int]
) -> Iterator[tuple[str, str]]:
    """The weights, by the name of the input in the operator's schema, and the sizes of bodies."""
    roles: Sequence[str] = [""]
    if onnx.defs.has(node.op_type, opsets.get(node.domain, 1), node.domain):
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
        roles = [formal.name for formal in schema.inputs] or roles
    weights = [
        (roles[min(at, len(roles) - 1)], constants[name])
        for at, name in enumerate(node.input)
        if name in constants
    ]
    yield from weights[:_MOST_LINES]
    if len(weights) > _MOST_LINES:
        yield "", f"and {len(weights) - _MOST_LINES} more"
    for attribute in node.attribute:
        if count := sum(len(graph.node) for graph in (attribute.g, *attribute.graphs)):
            yield one_line(attribute.name, 16), plural(count, "node")
