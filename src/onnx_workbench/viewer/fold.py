"""A big graph -> one that Netron can draw in seconds: modules folded into boxes, long edges cut.

Netron spends its time on edges that pass many layers. A module becomes one node with a body, which
Netron expands in place. A value that is read many layers below becomes a stub with its name. If a
file has no module metadata, the paths in its node names are used ("/encoder/0/MatMul"); without
paths, neighbors are folded by number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, groupby
from math import isqrt
from typing import NamedTuple

import onnx
from onnx import helper

from .. import exporter_metadata
from ..formatting import plural
from ..proto import outer_reads
from ..reader import DEEPEST
from .diagram import Diagram, abridged, diagram, layers
from .model import LARGEST_TENSOR, header, without_values

FOLD_ABOVE = 1000
"""The most nodes of a graph that is not folded."""

LONGEST_EDGE = 16
"""The most layers that an edge of a folded graph may pass."""

_FEW = 3  # a module with fewer nodes gets no box
_ARROW = "\u2191"


@dataclass
class Folded:
    """The graph to draw. ``stubs`` has the value of each cut edge, ``modules`` a description of
    each box: the class of a module, or how many nodes."""

    proto: onnx.ModelProto
    stubs: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)

    def diagram(self) -> Diagram:
        """Its boxes for the static picture: all, or the first and the last."""
        return abridged(diagram(self.proto, {**self.modules, **self.stubs}))


@dataclass(frozen=True)
class _Box:
    """``items`` are its ``nodes``, with inner modules as boxes."""

    name: str
    kind: str
    nodes: Sequence[onnx.NodeProto]
    items: _Items


_Items = Sequence[onnx.NodeProto | _Box]


def drawable(model: onnx.ModelProto, always: bool = False) -> Folded:
    """Fold a graph of more than ``FOLD_ABOVE`` nodes, or any if ``always``; else keep it.

    A folded graph has the same nodes in the same order. A node belongs to the module in torch's
    ``name_scopes``, else to the path in its name. Only neighbors are folded together, so that no
    fold makes a cycle.
    """
    small = len(model.graph.node) <= FOLD_ABOVE and not always
    return Folded(model) if small else _Folder(model).folded


class _Folder:
    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._boxes: Counter[str] = Counter()
        self._nodes = list(graph.node)  # kept alive, since their id() is the key
        self._number = {id(node): at for at, node in enumerate(self._nodes, 1)}
        self._scopes = dict(_scopes(self._nodes))
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._infos = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
        self._reads = {id(n): [*filter(None, n.input), *outer_reads(n)] for n in self._nodes}
        self._readers: defaultdict[str, list[int]] = defaultdict(list)
        for reader, names in self._reads.items():
            for name in names:
                self._readers[name].append(reader)
        for value in graph.output:
            self._readers[value.name].append(-1)
        self.folded = Folded(header(model))
        drawn = self._graph(graph.name, self._level(self._nodes, 0), graph.input)
        drawn.output.extend(graph.output)
        self.folded.proto.graph.CopyFrom(drawn)

    def _level(self, nodes: Sequence[onnx.NodeProto], depth: int) -> _Items:
        """The items of one level: each run of nodes of one module becomes a box."""
        items: list[onnx.NodeProto | _Box] = []
        for path, run in groupby(nodes, lambda node: self._path(node, depth)):
            members = list(run)
            if not path or len(members) < _FEW:
                items += members
            elif 2 * len(members) > len(nodes):  # a box around most nodes would hide the graph
                items += self._level(members, depth + 1)
            else:
                self._boxes[path] += 1
                name = f"{path} ({self._boxes[path]})" if self._boxes[path] > 1 else path
                kind = self._scopes[id(members[0])].classes[depth]
                items.append(_Box(name, kind, members, self._level(members, depth + 1)))
        if len(items) <= FOLD_ABOVE:
            return items
        step = isqrt(len(items))  # as many boxes as there are items in each
        return [self._part(items[at : at + step]) for at in range(0, len(items), step)]

    def _part(self, items: _Items) -> _Box:
        nodes = [n for item in items for n in (item.nodes if isinstance(item, _Box) else [item])]
        first, last = self._number[id(nodes[0])], self._number[id(nodes[-1])]
        return _Box(f"nodes {first:,} to {last:,}", plural(len(nodes), "node"), nodes, items)

    def _path(self, node: onnx.NodeProto, depth: int) -> str:
        paths = self._scopes[id(node)].paths
        return paths[depth] if depth < len(paths) else ""

    def _graph(
        self, name: str, items: _Items, inputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        nodes = [self._box(item) if isinstance(item, _Box) else item for item in items]
        copies = onnx.GraphProto(node=nodes).node
        nodes = [*self._stubs(copies, [value.name for value in inputs]), *copies]
        graph = onnx.GraphProto(name=name.replace(".", "/"), node=nodes, input=inputs)
        own = (self._reads[id(item)] for item in items if not isinstance(item, _Box))
        read = dict.fromkeys(chain.from_iterable(own))
        graph.initializer.extend(self._weight(name) for name in read if name in self._weights)
        outputs = [name for node in nodes for name in node.output]
        graph.value_info.extend(self._infos[name] for name in outputs if name in self._infos)
        return graph

    def _weight(self, name: str) -> onnx.TensorProto:
        """The weight, for the body of a box: without its values if several bodies may copy them."""
        tensor = self._weights[name]
        copied = len(self._readers[name]) > 1 and tensor.ByteSize() > LARGEST_TENSOR // 64
        return without_values(tensor) if copied else tensor

    def _box(self, box: _Box) -> onnx.NodeProto:
        """The node that replaces a box, with the box's nodes in its body."""
        inside = {id(node) for node in box.nodes}
        made = dict.fromkeys(name for node in box.nodes for name in node.output if name)
        read = dict.fromkeys(name for node in box.nodes for name in self._reads[id(node)])
        inputs = [name for name in read if name not in made and name not in self._weights]
        outputs = [n for n in made if any(r not in inside for r in self._readers[n])]
        self.folded.modules[box.name] = box.kind
        body = self._graph(box.name, box.items, [self._info(value) for value in inputs])
        body.output.extend(self._info(value) for value in outputs)
        return helper.make_node(box.kind, inputs, outputs, name=box.name, body=body)

    def _info(self, name: str) -> onnx.ValueInfoProto:
        return self._infos.get(name) or onnx.ValueInfoProto(name=name)

    def _stubs(
        self, nodes: Sequence[onnx.NodeProto], inputs: Sequence[str]
    ) -> Iterator[onnx.NodeProto]:
        """Stubs of the edges over many layers, which the readers among ``nodes`` read instead."""
        maker = {name: at for at, name in enumerate(inputs)}
        maker |= {n: at for at, node in enumerate(nodes, len(inputs)) for n in node.output if n}
        reads = [
            (node, port, name, at)
            for at, node in enumerate(nodes, len(inputs))
            for port, name in enumerate(node.input)
            if name in maker
        ]
        layer = layers(len(inputs) + len(nodes), [(maker[name], at) for *_, name, at in reads])
        for node, port, name, at in reads:
            if layer[at] - layer[maker[name]] > LONGEST_EDGE:
                label = f"{_ARROW} {name} {len(self.folded.stubs) + 1}"
                self.folded.stubs[label] = name
                kind = f"{_ARROW} {name}".replace(".", "_")
                node.input[port] = label
                yield helper.make_node(kind, [], [label], name=label)


class _Scopes(NamedTuple):
    """The modules around a node, outermost first: their paths and their classes."""

    paths: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def _scopes(nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[int, _Scopes]]:
    """The scopes of each node; a node without any (a constant) gets the next node's."""
    scopes = _Scopes()
    for node in reversed(nodes):
        metadata = exporter_metadata.read(node)
        if metadata.fx or metadata.modules:
            scopes = _Scopes(metadata.modules, metadata.classes)
        elif folders := tuple(node.name.strip("/").split("/")[:-1][:DEEPEST]):
            scopes = _Scopes(tuple(accumulate(folders, "{}/{}".format)), folders)
        yield id(node), scopes
