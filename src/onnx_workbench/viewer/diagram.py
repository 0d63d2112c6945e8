"""An ONNX graph as boxes and arrows: what a picture of it shows, before anything is drawn."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import onnx
from onnx import numpy_helper

from ..formatting import plural
from ..proto import bodies, captured, dims_of
from .layout import layers
from .origin import key
from .summary import plain

MOST_BOXES = 60
"""A larger graph is drawn with its head and its tail, and one box for what lies between."""

MOST_LAYERS = 28
"""So is a deeper one."""

_MOST_LINES = 5


@dataclass(frozen=True)
class Box:
    """``kind`` "op", "end" (an input or output of the graph) or "gap" (what is not drawn).

    ``nodes`` are the ONNX nodes that it stands for: its own, and those of bodies inside.
    """

    title: str
    lines: tuple[tuple[str, str], ...] = ()
    kind: Literal["op", "end", "gap"] = "op"
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrow:
    """From one box to another, by index; ``label`` is the shape of the value it carries."""

    tail: int
    head: int
    label: str | None = None


@dataclass(frozen=True)
class Diagram:
    boxes: list[Box]
    arrows: list[Arrow]


def diagram(model: onnx.ModelProto, added: Container[str] = ()) -> Diagram:
    """The boxes of the inputs, operators and outputs, and the arrows of the values.

    Initializers and constants are lines inside the box that reads them. ``added`` are the names
    of what stands for no node of the file: the modules and stubs of a folded graph.

    >>> from onnx import parser
    >>> graph = diagram(parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["": 20]> '
    ...     'half (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }'))
    >>> [(box.title, box.lines) for box in graph.boxes]
    [('x', ()), ('Mul', (('B', '2'),)), ('y', ())]
    >>> [(arrow.tail, arrow.head, arrow.label) for arrow in graph.arrows]
    [(0, 1, '2'), (1, 2, '2')]
    """
    graph = model.graph
    constants = dict(_constants(graph))
    shapes = dict(_shapes(graph))
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    maker: dict[str, int] = {}

    def connect(names: Sequence[str]) -> None:
        known = dict.fromkeys(name for name in names if name in maker)
        arrows.extend(Arrow(maker[name], len(boxes), shapes.get(name)) for name in known)

    for value in graph.input:
        if value.name not in constants:
            maker[value.name] = len(boxes)
            boxes.append(Box(plain(value.name, 32), kind="end"))
    for node in graph.node:
        if not constants.keys() >= set(node.output):
            connect([*node.input, *captured(node)])
            maker.update(dict.fromkeys(filter(None, node.output), len(boxes)))
            names = (key(node), *_inside(node))
            nodes = tuple(name for name in names if name not in added)
            title, lines = plain(node.op_type, 32), tuple(_lines(node, constants, opsets))
            if key(node) in added:
                said = plain(key(node), 32), plural(len(nodes), "node")
                lines = tuple(("", line) for line in said if line != title) if nodes else ()
            boxes.append(Box(title, lines, nodes=nodes))
    for value in graph.output:
        connect([value.name])
        boxes.append(Box(plain(value.name, 32), kind="end"))
    return Diagram(boxes, arrows)


def cut(whole: Diagram, boxes: int = MOST_BOXES, depth: int = MOST_LAYERS) -> Diagram:
    """The same diagram if it is small, else its first and last layers around one box "not drawn".

    >>> boxes = [Box(f"{number}", nodes=(f"{number}",)) for number in range(9)]
    >>> chain = Diagram(boxes, [Arrow(i, i + 1) for i in range(8)])
    >>> [box.title for box in cut(chain, depth=5).boxes]
    ['0', '1', '2', '5 nodes not drawn', '8']
    """
    ends = [(arrow.tail, arrow.head) for arrow in whole.arrows]
    rows: dict[int, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers(len(whole.boxes), ends)):
        rows[layer].append(index)
    if len(whole.boxes) <= boxes and len(rows) <= depth:
        return whole
    order = [rows[layer] for layer in sorted(rows)]
    below = (depth - 1) // 4
    head = list(_fill(order[: depth - 1 - below], boxes * 3 // 4))
    tail = list(_fill(order[: -below - 1 : -1], boxes // 4))
    return _around_a_gap(whole, sorted(head), sorted(set(tail) - set(head)))


def _fill(rows: list[list[int]], most: int) -> Iterator[int]:
    """Whole layers, as long as they fit."""
    for row in rows:
        most -= len(row)
        if most < 0:
            return
        yield from row


def _around_a_gap(whole: Diagram, head: list[int], tail: list[int]) -> Diagram:
    """Only ``head`` and ``tail`` of the boxes, and one box that stands for all the others."""
    gap = len(head)
    place = {index: at + (at >= gap) for at, index in enumerate([*head, *tail])}
    hidden = sum(len(box.nodes) for at, box in enumerate(whole.boxes) if at not in place)
    boxes = [whole.boxes[index] for index in head]
    boxes.append(Box(f"{plural(hidden, 'node')} not drawn", kind="gap"))
    boxes += [whole.boxes[index] for index in tail]
    arrows: dict[tuple[int, int], Arrow] = {}
    for arrow in whole.arrows:
        ends = place.get(arrow.tail, gap), place.get(arrow.head, gap)
        if ends[0] != ends[1]:
            arrows.setdefault(ends, Arrow(*ends, arrow.label if ends[0] != gap else None))
    return Diagram(boxes, list(arrows.values()))


def _inside(node: onnx.NodeProto) -> Iterator[str]:
    for inner in (inner for body in bodies(node) for inner in body.node):
        yield key(inner)
        yield from _inside(inner)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Names of what is known before the model runs, and how it reads: a value or a shape."""
    for tensor in graph.initializer:
        yield tensor.name, _shown(tensor)
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, _product(sparse.dims)
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1 and node.attribute:
            attribute = node.attribute[0]
            shown = (
                _shown(attribute.t)
                if attribute.HasField("t")
                else str(onnx.helper.get_attribute_value(attribute))
            )
            yield node.output[0], plain(shown, 20)


def _shown(tensor: onnx.TensorProto) -> str:
    """A single number or a short list of integers as its value, any other tensor as its shape."""
    integers = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    here = tensor.data_location != onnx.TensorProto.EXTERNAL
    if here and len(tensor.dims) < 2 and math.prod(tensor.dims) <= (4 if integers else 1):
        try:
            values = numpy_helper.to_array(tensor).ravel().tolist()
            shown = ", ".join(f"{value:.4g}" for value in values)
            return f"= [{shown}]" if tensor.dims else f"= {shown}"
        except (ValueError, TypeError, KeyError):  # no data here, or not a number
            pass
    return _product(tensor.dims)


def _shapes(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    for value in chain(graph.value_info, graph.input, graph.output):
        if (dims := dims_of(value)) is not None:
            yield value.name, _product(plain(str(dim), 24) for dim in dims)


def _product(dims: Iterable[object]) -> str:
    """A shape as Netron writes it, with multiplication signs."""
    return "\u00d7".join(map(str, dims)) or "scalar"


def _lines(
    node: onnx.NodeProto, constants: dict[str, str], opsets: dict[str, int]
) -> Iterator[tuple[str, str]]:
    roles = _roles(node, opsets.get(node.domain, 1))
    weights = [
        (roles[min(at, len(roles) - 1)] if roles else "", constants[name])
        for at, name in enumerate(node.input)
        if name in constants
    ]
    yield from islice(weights, _MOST_LINES)
    if len(weights) > _MOST_LINES:
        yield "", f"and {len(weights) - _MOST_LINES} more"
    for attribute in node.attribute:
        if held := sum(len(graph.node) for graph in (attribute.g, *attribute.graphs)):
            yield plain(attribute.name, 16), plural(held, "node")


def _roles(node: onnx.NodeProto, opset: int) -> list[str]:
    """What the operator's standard calls its inputs."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return []
    return [formal.name for formal in schema.inputs]
