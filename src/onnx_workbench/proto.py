"""The nodes of a ModelProto wherever they stand, each under a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx


@dataclass(frozen=True, eq=False, slots=True)
class Site:
    """A node and where it stands. ``inside`` names the node or function whose body holds it.

    ``name`` is the node's own where it has one that no other node has.
    """

    name: str
    node: onnx.NodeProto
    inside: str = ""
    function: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads; for a node with a body, also what the body reads from outside."""
        return tuple(name for name in (*self.node.input, *captured(self.node)) if name)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.node.output if name)


def sites(model: onnx.ModelProto) -> tuple[Site, ...]:
    """Every node, those of ``If``, ``Loop`` and ``Scan`` behind their owner, functions last.

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> half (float[2] x) '
    ...     '=> (float[2] y) { h = Relu(x)  y = Relu(h) }')
    >>> [site.name for site in sites(model)]
    ['h', 'y']
    """
    return tuple(walk(model))


def walk(model: onnx.ModelProto) -> Iterator[Site]:
    """The same, one by one: twenty thousand at once take more memory than their file."""
    taken: set[str] = set()
    yield from _walk(model.graph.node, taken)
    for function in model.functions:
        yield from _walk(function.node, taken, function.name, function.name)


def named(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy in which each node has the name of its site; None where each has it already."""
    if all(site.name == site.node.name for site in sites(model) if not site.function):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for site in sites(copy):
        if not site.function:
            site.node.name = site.name
    return copy


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the ONNX operator set that a file asks a runtime for."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def mislabelled(model: onnx.ModelProto) -> str:
    """A sentence on the operators that the opset of a file's label does not have; else nothing.

    >>> from onnx import parser
    >>> mislabelled(parser.parse_model('<ir_version: 10, opset_import: ["": 18]> g (float[2] x) '
    ...     '=> (float[2] y) { y = Gelu(x) }'))
    'It is labelled opset 18 and holds Gelu, which came with opset 20.'
    """
    label = opset_of(model)
    found: dict[str, int] = {}
    for site in sites(model):
        name = site.node.op_type
        if site.node.domain in ("", "ai.onnx") and not site.function and name not in found:
            since = _since(name, label)
            if since:
                found[name] = since
    held = ", ".join(f"{name}, which came with opset {since}" for name, since in found.items())
    return f"It is labelled opset {label} and holds {held}." if held else ""


def _since(operator: str, label: int) -> int:
    """The opset that brought an operator, where that is above ``label``; else 0."""
    for version in range(label, onnx.defs.onnx_opset_version() + 1):
        if onnx.defs.has(operator, version):
            return version if version > label else 0
    return 0


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a control-flow node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured(node: onnx.NodeProto) -> list[str]:
    """What the bodies of a node read and do not make."""
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


def producers(found: Iterable[Site]) -> dict[str, Site]:
    """Value -> the node that makes it; a value of that name in two bodies belongs to neither."""
    made: dict[str, Site] = {}
    twice: set[str] = set()
    for site in found:
        for value in site.outputs:
            if value in made:
                twice.add(value)
            made[value] = site
    return {value: site for value, site in made.items() if value not in twice}


def _walk(
    nodes: Sequence[onnx.NodeProto], taken: set[str], inside: str = "", function: str = ""
) -> Iterator[Site]:
    for node in nodes:
        prefix = f"{function}/" if function else ""
        name = _free(prefix + (node.name or next(iter(node.output), node.op_type)), taken)
        yield Site(name, node, inside, function)
        for body in bodies(node):
            yield from _walk(body.node, taken, name, function)


def _free(name: str, taken: set[str]) -> str:
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique
