"""Where each ONNX node came from: by its own metadata, else by its neighbors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from .. import exporter_metadata
from ..artifact import Artifact
from ..exporter_metadata import CallSite
from ..proto import NodeRef, consumers, producers
from ..source import Line, method_lines
from .folding import Folded, folded

METADATA = "metadata"
NEIGHBOR = "neighbor"
NONE = "none"

_FOREIGN = "the file has no torch metadata: made by another tool, or with dynamo=False"
_LOST = "no torch metadata on it, and no neighbor with a line"
_QUANTIZED = (
    "made by a quantizer that keeps no metadata of nodes: quantize a file of export(), which "
    "also has the lines of its values"
)


@dataclass(frozen=True)
class Origin:
    """Where one ONNX node came from.

    ``rule`` says what the line is known by: the node's own ``metadata``, a ``neighbor``, or
    ``none``; ``why`` explains the last two. ``also`` are lines whose work export merged into this
    node (a batch normalization folded into a convolution), ``merged`` their FX nodes. ``inside`` is
    the node or function whose body holds it. ``stack`` has all calls that led to the node,
    outermost first: your line, and what it calls in libraries. ``site`` is the node's own call
    site, or that of the FX node that it replaces.
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
    stack: tuple[Line, ...] = field(default=(), repr=False, compare=False)
    site: CallSite = field(default=CallSite(), repr=False, compare=False)
    merged: tuple[Folded, ...] = field(default=(), repr=False, compare=False)


Known = dict[str, Origin]


def origins_of(
    artifact: Artifact, refs: Sequence[NodeRef]
) -> tuple[tuple[Origin, ...], tuple[Folded, ...]]:
    """The origin of each node, and the FX nodes that left none."""
    values = exporter_metadata.of_values(artifact.proto)
    known = {ref.name: _by_metadata(ref, values) for ref in refs}
    if artifact.graph is None:
        _from_neighbors(known, refs)
        return tuple(known.values()), ()
    exported = {origin.site for origin in known.values() if origin.site.trace}
    gone = list(folded(artifact.graph.program.graph_module.graph, exported))
    _in_place_of(known, refs, gone)
    made: dict[CallSite, list[str]] = {}
    for origin in known.values():
        made.setdefault(origin.site, []).append(origin.node)
    gone = [
        replace(item, nodes=tuple(node for site in item.into for node in made.get(site, ())))
        for item in gone
        if item.site not in made
    ]
    _from_neighbors(known, refs)
    _returned_inputs(known, artifact.proto.graph, artifact.graph.model)
    _merge(known, gone)
    return tuple(known.values()), tuple(gone)


def _by_metadata(ref: NodeRef, values: Mapping[str, onnx.ValueInfoProto]) -> Origin:
    found = exporter_metadata.read(ref.node, values)
    site, line = CallSite(found.trace, found.module), found.line
    return Origin(
        node=ref.name,
        operator=ref.node.op_type,
        fx=found.fx,
        module=found.module,
        line=line,
        rule=METADATA if line else NONE,
        inside=ref.inside,
        stack=site.stack,
        site=site,
    )


def _in_place_of(known: Known, refs: Sequence[NodeRef], gone: Sequence[Folded]) -> None:
    """A node without metadata replaces the FX node without an ONNX node whose users are the same:
    it takes its line."""
    before: dict[CallSite, list[Folded]] = {}
    for item in gone:
        for site in item.into if not item.twin else ():
            before.setdefault(site, []).append(item)
    used, sites = consumers(refs), {name: origin.site for name, origin in known.items()}
    for ref in refs:
        if sites[ref.name].trace:
            continue
        readers = (sites[reader.name] for value in ref.outputs for reader in used.get(value, ()))
        users = {site for site in readers if site.trace}
        replaced = before.get(next(iter(users)), []) if users else []
        fits = {item.site: item for item in replaced if users.issubset(item.into)}
        if len(fits) == 1:
            (item,) = fits.values()
            why = f"put in place of the FX node {item.fx}"
            taken = _borrowed(known[ref.name], item, why, module=item.module)
            known[ref.name] = replace(taken, fx=item.fx, site=item.site)


def _borrowed(mine: Origin, other: Any, why: str, **more: Any) -> Origin:
    """``mine`` with the line and the stack of another."""
    rule = NEIGHBOR if other.line else NONE
    return replace(mine, line=other.line, stack=other.stack, rule=rule, why=why, **more)


def _from_neighbors(known: Known, refs: Sequence[NodeRef]) -> None:
    """A node without a line takes that of a consumer, else of a producer, else of the node whose
    body holds it: three passes, so that the time is linear."""
    if not any(origin.line for origin in known.values()):
        known.update({name: replace(origin, why=_FOREIGN) for name, origin in known.items()})
        return
    quantized = _quantized(known, refs)
    used, made = consumers(refs), producers(refs)
    callers: dict[str, list[str]] = {}
    for ref in refs:
        callers.setdefault(ref.node.op_type if ref.node.domain else "", []).append(ref.name)

    def take(ref: NodeRef, way: str, neighbors: Sequence[str]) -> None:
        near = next((known[name] for name in neighbors if known[name].line), None)
        if near and not known[ref.name].line:
            module = known[ref.name].module or near.module
            why = f"line of its {way} {near.node}"
            known[ref.name] = _borrowed(known[ref.name], near, why, module=module)

    own = [ref for ref in refs if ref.name not in quantized]
    for ref in reversed(own):
        take(ref, "consumer", [one.name for v in ref.outputs for one in used.get(v, ())])
    for ref in own:
        take(ref, "producer", [made[v].name for v in ref.inputs if v in made])
    for ref in refs:
        owners = callers.get(ref.function, []) if ref.function else [ref.inside] * bool(ref.inside)
        take(ref, "enclosing node", owners)
        _module_of_owner(known, ref)
        if known[ref.name].line is None:
            why = _QUANTIZED if ref.name in quantized else _LOST
            known[ref.name] = replace(known[ref.name], why=why)


def _module_of_owner(known: Known, ref: NodeRef) -> None:
    """A node of a body without a module of its own belongs to the module of the body's owner."""
    mine, owner = known[ref.name], known.get(ref.inside)
    if owner and owner.module and not mine.module:
        why = "; ".join(filter(None, (mine.why, f"module of its enclosing node {owner.node}")))
        known[ref.name] = replace(mine, module=owner.module, why=why)


def _quantized(known: Known, refs: Sequence[NodeRef]) -> set[str]:
    """The nodes that ONNX Runtime's quantizer made, which it names after those they replace, and
    those behind them. They do the work of their own line, not of a neighbor's; it is lost unless
    the file has metadata of values, as the files of export() have."""
    if any(known[ref.name].line and not exporter_metadata.has_trace(ref.node) for ref in refs):
        return set()
    lost: set[str] = set()
    values: set[str] = set()
    for ref in refs:
        behind = ref.name.endswith("_quant") or not values.isdisjoint(ref.inputs)
        if behind and not known[ref.name].line:
            lost.add(ref.name)
            values.update(ref.outputs)
    return lost


def _returned_inputs(known: Known, file: onnx.GraphProto, model: object) -> None:
    """A node from an input to an output comes from no operator: it has the line of the return."""
    inputs, outputs = ({value.name for value in ends} for ends in (file.input, file.output))
    between = {node.name for node in file.node if inputs >= {*node.input}}
    between &= {node.name for node in file.node if outputs >= {*node.output}}
    source = method_lines(getattr(type(model), "forward", None)) if between else []
    line = next((one for one in reversed(source) if one.text.startswith("return")), None)
    for name in between & known.keys():
        if line and known[name].line is None:
            why = "an input that is returned as it is"
            known[name] = replace(known[name], line=line, rule=NEIGHBOR, why=why)


def _merge(known: Known, gone: Sequence[Folded]) -> None:
    """Give each node the FX nodes whose work was merged into it."""
    into: dict[CallSite, list[Folded]] = {}
    for item in gone:
        if item.line and not item.view:
            for site in item.into:
                into.setdefault(site, []).append(item)
    for name, origin in known.items():
        if merged := into.get(origin.site):
            lines = dict.fromkeys(item.line for item in merged if item.line)
            also = tuple(line for line in lines if line != origin.line)
            known[name] = replace(origin, also=also, merged=tuple(merged))
