"""Where each ONNX node came from: by its own metadata, else by its neighbors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from .. import exporter_metadata
from ..artifact import Artifact
from ..exporter_metadata import CallSite
from ..proto import NodeRef, consumers, grouped, producers
from ..source import Line, method_lines
from .operations import Operation, operations

METADATA = "metadata"
NEIGHBOR = "neighbor"
NONE = "none"

_FOREIGN = "the file has no torch metadata: made by another tool, or with dynamo=False"
_NO_FILE = "the model's code is in no file: it was made by exec(), or in a shell"
_LOST = "no torch metadata on it, and no neighbor with a line"
_QUANTIZED = (
    "made by a quantizer that drops the metadata of nodes: a file of export() keeps that of layers "
    "with weights"
)
_QUANT = "_quant"
"""The end of the name that ONNX Runtime's quantizer gives the node in place of another."""


@dataclass(frozen=True)
class Origin:
    """Where one ONNX node came from.

    ``rule`` says where the line is from: the node's own ``metadata``, a ``neighbor``, or ``none``;
    ``why`` explains the last two. ``also`` are lines whose work export merged into this node, such
    as a batch normalization folded into a convolution; ``merged`` are their FX nodes. ``inside`` is
    the node or function whose body contains it. ``stack`` has all calls that led to the node,
    outermost first: your line, then the library lines it calls. ``site`` is the node's call site,
    or that of the FX node that it replaces. ``fx`` is the node of the decomposed graph; of a node
    that ``replaces`` an FX node without metadata of its own, that of the captured graph.
    """

    node: str
    operator: str
    fx: str
    module: str
    line: Line | None
    rule: str
    why: str = ""
    also: tuple[Line, ...] = ()
    inside: str = ""
    replaces: bool = field(default=False, repr=False, compare=False)
    stack: tuple[Line, ...] = field(default=(), repr=False, compare=False)
    site: CallSite = field(default=CallSite(), repr=False, compare=False)
    merged: tuple[Operation, ...] = field(default=(), repr=False, compare=False)


Known = dict[str, Origin]


def origins_of(
    artifact: Artifact, refs: Sequence[NodeRef]
) -> tuple[tuple[Origin, ...], tuple[Operation, ...]]:
    """The origin of each node, and the FX nodes of the captured graph, if there is one."""
    values = exporter_metadata.of_values(artifact.proto)
    known = {ref.name: _by_metadata(ref, values) for ref in refs}
    if artifact.graph is None:
        _from_neighbors(known, refs)
        return tuple(known.values()), ()
    exported = {origin.site for origin in known.values() if origin.site.trace}
    fx = list(operations(artifact.graph.program, exported))
    _in_place_of(known, refs, fx)
    at = grouped((origin.site, origin.node) for origin in known.values())
    for index, item in enumerate(fx):
        nodes = tuple(node for site in item.into for node in at.get(site, ()))
        has_node = item.site in at
        fx[index] = Operation(item.fx, item.site) if has_node else replace(item, nodes=nodes)
    _from_neighbors(known, refs)
    _returned_inputs(known, artifact.proto.graph, artifact.graph.model)
    _merge(known, fx)
    return tuple(known.values()), tuple(fx)


def _by_metadata(ref: NodeRef, values: Mapping[str, onnx.ValueInfoProto]) -> Origin:
    metadata = exporter_metadata.read(ref.node, {} if ref.function else values)
    site, line = CallSite(metadata.trace, metadata.module), metadata.line
    return Origin(
        node=ref.name,
        operator=ref.node.op_type,
        fx=metadata.fx,
        module=metadata.module,
        line=line,
        rule=METADATA if line else NONE,
        inside=ref.inside,
        stack=site.stack,
        site=site,
    )


def _in_place_of(known: Known, refs: Sequence[NodeRef], fx: Sequence[Operation]) -> None:
    """Give each node without metadata the line of the FX node that it replaces: the only one that
    is not in the file, and whose users include all readers of the node."""
    absent_before = grouped((site, item) for item in fx if not item.twin for site in item.into)
    readers_of, sites = consumers(refs), {name: origin.site for name, origin in known.items()}
    for ref in refs:
        if sites[ref.name].trace:
            continue
        readers = (sites[r.name] for value in ref.outputs for r in readers_of.get(value, ()))
        users = {site for site in readers if site.trace}
        replaced = absent_before.get(next(iter(users)), []) if users else []
        fits = {item.site: item for item in replaced if users.issubset(item.into)}
        if len(fits) == 1:
            (item,) = fits.values()
            why = f"replaces the FX node {item.fx}"
            origin = _with_line_of(item, known[ref.name], why, module=item.module)
            known[ref.name] = replace(origin, fx=item.fx, site=item.site, replaces=True)


def _with_line_of(other: Any, origin: Origin, why: str, **more: Any) -> Origin:
    """The origin with the line and the stack of another node."""
    rule = NEIGHBOR if other.line else NONE
    return replace(origin, line=other.line, stack=other.stack, rule=rule, why=why, **more)


def _from_neighbors(known: Known, refs: Sequence[NodeRef]) -> None:
    """Give each node without a line that of a consumer, else of a producer, else of the node whose
    body contains it: three passes, so that the time is linear."""
    if not any(origin.line for origin in known.values()):
        exported = any(origin.fx for origin in known.values())
        why = _NO_FILE if exported else _FOREIGN
        known.update({name: replace(origin, why=why) for name, origin in known.items()})
        return
    quantized = _quantized(known, refs)
    readers, makers = consumers(refs), producers(refs)
    callers = grouped((ref.node.op_type if ref.node.domain else "", ref.name) for ref in refs)

    def take(ref: NodeRef, kind: str, neighbors: Sequence[str]) -> None:
        near = next((known[name] for name in neighbors if known[name].line), None)
        if near and not known[ref.name].line:
            module = known[ref.name].module or near.module
            why = f"line of its {kind} {near.node}"
            known[ref.name] = _with_line_of(near, known[ref.name], why, module=module)

    remaining = [ref for ref in refs if ref.name not in quantized]
    for ref in reversed(remaining):
        take(ref, "consumer", [r.name for value in ref.outputs for r in readers.get(value, ())])
    for ref in remaining:
        take(ref, "producer", [makers[value].name for value in ref.inputs if value in makers])
    for ref in refs:
        owners = callers.get(ref.function, []) if ref.function else [ref.inside] * bool(ref.inside)
        take(ref, "enclosing node", owners)
        _module_of_owner(known, ref)
        if known[ref.name].line is None:
            why = _QUANTIZED if ref.name in quantized else _LOST
            known[ref.name] = replace(known[ref.name], why=why)


def _module_of_owner(known: Known, ref: NodeRef) -> None:
    """Give a node without a module the module of its enclosing node."""
    origin, owner = known[ref.name], known.get(ref.inside)
    if owner and owner.module and not origin.module:
        why = "; ".join(filter(None, (origin.why, f"module of its enclosing node {owner.node}")))
        known[ref.name] = replace(origin, module=owner.module, why=why)


def _quantized(known: Known, refs: Sequence[NodeRef]) -> set[str]:
    """The nodes whose line ONNX Runtime's quantizer lost: those that it made, and those after them.

    A neighbor's line would be wrong, since a quantized layer does the work of a line of its own. It
    is not lost if the layer ends in a value with metadata, as layers with weights do in the files
    of export().
    """
    readers = consumers(refs)
    kept: set[str] = set()  # before such a value
    for ref in reversed(refs):
        after = [reader for value in ref.outputs for reader in readers.get(value, ())]
        same_layer = [other for other in after if not other.name.endswith(_QUANT)]
        if any(other.name in kept or _by_value(known, other) for other in same_layer):
            kept.add(ref.name)
    lost: set[str] = set()
    values: set[str] = set()
    for ref in refs:
        made = ref.name.endswith(_QUANT) and ref.name not in kept
        if (made or not values.isdisjoint(ref.inputs)) and not known[ref.name].line:
            lost.add(ref.name)
            values.update(ref.outputs)
    return lost


def _by_value(known: Known, ref: NodeRef) -> bool:
    """Whether the metadata of its value, not its own, says the line of a node."""
    return bool(known[ref.name].line) and not exporter_metadata.has_trace(ref.node)


def _returned_inputs(known: Known, graph: onnx.GraphProto, model: object) -> None:
    """Give nodes that only pass an input to an output the line of the ``return``."""
    inputs, outputs = ({value.name for value in ends} for ends in (graph.input, graph.output))
    between = {node.name for node in graph.node if inputs >= {*node.input}}
    between &= {node.name for node in graph.node if outputs >= {*node.output}}
    source = method_lines(getattr(type(model), "forward", None)) if between else []
    line = next((line for line in reversed(source) if line.text.startswith("return")), None)
    for name in between & known.keys():
        if line and known[name].line is None:
            why = "an input that is returned unchanged"
            known[name] = replace(known[name], line=line, rule=NEIGHBOR, why=why)


def _merge(known: Known, fx: Sequence[Operation]) -> None:
    """Give each node the FX nodes whose work was merged into it."""
    moved = [item for item in fx if item.line and not item.view]
    into = grouped((site, item) for item in moved for site in item.into)
    for name, origin in known.items():
        if merged := into.get(origin.site):
            lines = dict.fromkeys(item.line for item in merged if item.line)
            also = tuple(line for line in lines if line != origin.line)
            known[name] = replace(origin, also=also, merged=tuple(merged))
