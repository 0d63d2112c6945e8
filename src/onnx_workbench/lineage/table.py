"""Source line <-> module <-> FX node <-> ONNX node."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import Any

import onnx

from .. import exporter_metadata
from ..artifact import Artifact
from ..errors import InputError
from ..exporter_metadata import CallSite, line_of
from ..formatting import kind_of, plural, table
from ..proto import NodeRef, node_refs, producers
from ..source import NOTHING_MORE, Line, Sources, below, is_library, lines, method_lines
from . import folding
from .annotated_source import annotated
from .columns import Columns, Link
from .folding import Folded
from .library import MOST, Group, Item, check_depth, groups, rows_and_more, texts

_MOST = 2_000
"""Nodes that are shown as columns; a page with more rows is slow."""

METADATA = "metadata"
NEIGHBOUR = "neighbour"
NONE = "none"


@dataclass(frozen=True)
class Origin:
    """Where one ONNX node came from.

    ``rule`` says who knows the line: the node's own ``metadata``, a ``neighbour``, or ``none``;
    ``why`` has the words for the last two. ``also`` are lines whose work was merged into this node
    at export (a batch normalisation folded into a convolution). ``inside`` is the node or function
    whose body holds it. ``stack`` has all calls that led to the node, outermost first: your line,
    and what it calls in libraries.
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
    key: CallSite = field(default=CallSite(), repr=False, compare=False)


def trace(
    artifact: Artifact,
    *,
    source: str | os.PathLike[str] | None = None,
    depth: int | None = None,
) -> Lineage:
    """Join every ONNX node of an artifact to its FX node, its module and its source line.

    The line is the innermost one of the user's own code, else the innermost outside torch, else
    that of a torch module. It stands in the metadata that the exporter writes into each node
    (``pkg.torch.onnx.stack_trace``). A node without it takes the line of the FX node that it was
    put in place of, else that of its first consumer, of its first producer, of the node whose body
    it stands in; ``why`` says which.

    Where the line calls a model of a library, the library's own lines stand below it, each with the
    modules that it works for.

    Args:
        depth: how many calls below your line the library's line is; None is the innermost, 0 shows
            none.
        source: a folder with the model's ``.py`` files. Around the lines that the file quotes, the
            source is shown where this process exported the model, else from the folder of the
            model, the working folder and this one, hidden folders left out.

    Raises:
        InputError: ``artifact`` is no Artifact, ``source`` no folder, or ``depth`` no number.

    >>> from onnx_workbench import export, lessons
    >>> encoder = lessons.encoder()
    >>> path = getfixture("tmp_path") / "encoder.onnx"
    >>> lineage = trace(export(encoder.model, encoder.inputs, path))
    >>> scores = lineage.line_of("node_matmul")
    >>> scores.text
    'scores = query @ key.transpose(-2, -1)'
    >>> sorted({node.operator for node in lineage.at(scores)})
    ['MatMul', 'Transpose']
    """
    if not isinstance(artifact, Artifact):
        raise InputError(
            f"trace() was given {kind_of(artifact)}, and it takes an Artifact. "
            "Make one with export(model, x, path), or load(path)."
        )
    check_depth(depth)
    sources = Sources.of(artifact, source)
    found = node_refs(artifact.proto)
    values = exporter_metadata.of_values(artifact.proto)
    origins = [_origin(ref, values) for ref in found]
    if artifact.graph is None:
        return Lineage(artifact, tuple(_inherit(found, origins)), (), sources, depth)
    graph = artifact.graph.program.graph_module.graph
    keys = folding.keys(graph)
    gone = folding.folded(graph, {origin.key for origin in origins})
    origins = _in_place_of(gone, keys, found, origins)
    standing = {origin.key for origin in origins}
    gone = tuple(item for item in gone if item.key not in standing)
    origins = _handed_on(artifact, _inherit(found, origins))
    return Lineage(artifact, tuple(_merged(origins, gone, keys)), gone, sources, depth)


@dataclass(frozen=True, repr=False, eq=False)
class Lineage:
    """The answer of :func:`trace`. ``origins`` has every ONNX node in the order of the file,
    ``folded`` every FX node that left none, ``sources`` the files whose text is shown,
    ``depth`` how many calls below a line of the user's nodes are told apart."""

    artifact: Artifact
    origins: tuple[Origin, ...]
    folded: tuple[Folded, ...]
    sources: Sources = NOTHING_MORE
    depth: int | None = None

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The lines that have nodes, in the order in which the file runs them."""
        return tuple(self._at)

    def of(self, node: str) -> Origin:
        """The origin of an ONNX node.

        Raises:
            InputError: there is no node of this name.
        """
        if node not in self._by_name:
            raise InputError(f"{self.artifact.path.name} has no node {node!r}. {self._near(node)}")
        return self._by_name[node]

    def line_of(self, node: str) -> Line | None:
        """The line that made an ONNX node."""
        return self.of(node).line

    def at(self, line: Line | int | str) -> tuple[Origin, ...]:
        """The nodes of a line: a Line, its number, or its place such as ``"model.py:12"`` or, in a
        library that it calls, ``"torchvision/models/resnet.py:92"``."""
        return tuple(origin for origin in self.origins if _made_by(origin, line))

    def below(self, line: Line) -> list[Group[Origin]]:
        """The nodes of a line by the lines of libraries that it calls; else nothing."""
        items = (Item(o.stack, o.module, o) for o in self._at.get(line, ()))
        return groups(items, self.depth)

    def inside(self, module: str) -> tuple[Origin, ...]:
        """The nodes of a module and of those within it: ``"blocks.1"``."""
        return tuple(o for o in self.origins if f"{o.module}.".startswith(f"{module}."))

    def made_from(self, fx: str) -> tuple[Origin, ...]:
        """The ONNX nodes that one FX node of the decomposed graph became."""
        return tuple(origin for origin in self.origins if origin.fx == fx)

    @cached_property
    def decomposed(self) -> dict[str, tuple[str, ...]]:
        """What one FX node became, where it became more than one: name -> ONNX operators."""
        made: dict[tuple[str, str], list[str]] = {}
        for origin in self.origins:
            if origin.fx:
                made.setdefault((origin.inside, origin.fx), []).append(origin.operator)
        return {fx: tuple(operators) for (_, fx), operators in made.items() if len(operators) > 1}

    @cached_property
    def silent(self) -> dict[Line, str]:
        """Lines that computed something in PyTorch and have no ONNX node, with the reason."""
        reasons: dict[Line, dict[str, dict[str, None]]] = {}
        for gone in self.folded:
            line = line_of(gone.key.trace)
            if line and line not in self._at:
                heirs = reasons.setdefault(line, {}).setdefault(gone.why, {})
                heirs |= dict.fromkeys(self._heirs(gone))
        return {
            line: "; ".join(_reason(why, heirs) for why, heirs in r.items())
            for line, r in reasons.items()
        }

    @property
    def without(self) -> tuple[Origin, ...]:
        """The nodes that have no line; ``why`` of each says for what reason."""
        return tuple(origin for origin in self.origins if origin.line is None)

    def __repr__(self) -> str:
        return "\n".join([self._headline(), *self._body(), *self._notes()])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    @cached_property
    def columns(self) -> Columns:
        """Source, FX and ONNX beside each other, as a widget."""
        return Columns([*self._links()], repr(self), self.sources)

    def beside(self, view: Any) -> Any:
        """The columns above a view of the same model, each marking what is chosen in the other.

        Args:
            view: what ``view(artifact)`` returned, or any widget with the traits ``marked``, a list
                of nodes, and ``selected``, the node that was clicked.
        """
        import ipywidgets

        self.columns.observe(lambda change: setattr(view, "marked", change["new"]), "marked")
        view.observe(lambda change: self.columns.choose(change["new"]), "selected")
        return ipywidgets.VBox([self.columns, view])

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The columns, and for a page without a kernel the source with counts in the margin."""
        told = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if not self.lines or len(self.origins) > _MOST:
            return told
        data, metadata = self.columns._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, **told}, metadata

    def _links(self) -> Iterator[Link]:
        for origin in self.origins:
            called = below(origin.stack)[: self.depth][-1:]
            library = (line for line in called if is_library(line.file))
            for line in (origin.line, *origin.also, *library):
                yield Link(line, origin.fx, origin.node, origin.operator, origin.module)
        for gone in self.folded:
            heirs = self._heirs(gone)
            line = line_of(gone.key.trace)
            if not heirs and line:
                yield Link(line, f"{gone.fx}: {gone.why}", "")

    @cached_property
    def _by_name(self) -> dict[str, Origin]:
        return {origin.node: origin for origin in self.origins}

    def _near(self, node: str) -> str:
        close = difflib.get_close_matches(str(node), self._by_name, n=1)
        return f"Did you mean {close[0]!r}?" if close else "The names are those of .origins."

    def _heirs(self, gone: Folded) -> list[str]:
        return [node for fx in gone.into for node in self._made.get(self._keys[fx], ())]

    @cached_property
    def _made(self) -> dict[CallSite, list[str]]:
        made: dict[CallSite, list[str]] = {}
        for origin in self.origins:
            made.setdefault(origin.key, []).append(origin.node)
        return made

    @cached_property
    def _at(self) -> dict[Line, list[Origin]]:
        at: dict[Line, list[Origin]] = {}
        for origin in self.origins:
            if origin.line:
                at.setdefault(origin.line, []).append(origin)
        return at

    @cached_property
    def _keys(self) -> Mapping[str, CallSite]:
        graph = self.artifact.graph
        return folding.keys(graph.program.graph_module.graph) if graph else {}

    def _headline(self) -> str:
        ways = Counter(origin.rule for origin in self.origins)
        parts = [f"{ways[rule]:,} {words}" for rule, words in _WAYS if ways[rule]]
        return (
            f"{self.artifact.path.name}: {plural(len(self.origins), 'node')} from "
            f"{plural(len(self.lines), 'line')} ({', '.join(parts)})"
        )

    def _body(self) -> Iterator[str]:
        cells = {line: (str(len(made)), _listed(made)) for line, made in self._at.items()}
        cells |= dict.fromkeys(self.silent, ("0", ""))
        if cells:
            yield annotated(
                cells, ("nodes", "operators"), {1}, self.sources, dict(self._below(cells))
            )

    def _below(
        self, shown: Iterable[Line]
    ) -> Iterator[tuple[Line, list[tuple[Sequence[str], str]]]]:
        for line in shown:
            found = self.below(line)
            counts = ((str(len(group.items)), _listed(group.items)) for group in found)
            rows = [*zip(counts, texts(found), strict=True)]
            yield line, rows_and_more(rows[:MOST], len(rows[MOST:]))

    def _notes(self) -> Iterator[str]:
        rows = [(line.place, f"no node: {why}") for line, why in self.silent.items()]
        rows += [(line.place, f"merged into {node}") for line, node in self._merges()]
        reasons = Counter(origin.why for origin in self.without)
        rows += [(plural(count, "node"), f"no line: {why}") for why, count in reasons.items()]
        rows += [("metadata", self.artifact.cut)] if self.artifact.cut else []
        if rows:
            yield table(rows)

    def _merges(self) -> list[tuple[Line, str]]:
        return [(line, o.node) for o in self.origins for line in o.also if line not in self.silent]


_QUANTIZED = (
    "put in place of another by a quantizer that kept no metadata: quantize a file of export(), "
    "which notes the lines of its values"
)
_WAYS = ((METADATA, "by their metadata"), (NEIGHBOUR, "by a neighbour"), (NONE, "without a line"))


def _origin(ref: NodeRef, values: Mapping[str, onnx.ValueInfoProto]) -> Origin:
    said = exporter_metadata.read(ref.node, values)
    return Origin(
        node=ref.name,
        operator=ref.node.op_type,
        fx=said.fx,
        module=said.module,
        line=said.line,
        rule=METADATA if said.line else NONE,
        inside=ref.inside,
        stack=tuple(lines(said.trace)),
        key=CallSite(said.trace, said.module),
    )


def _made_by(origin: Origin, asked: Line | int | str) -> bool:
    calls = [(line, line.place) for line in below(origin.stack)]
    own = (origin.line, origin.line.number, origin.line.place) if origin.line else ()
    return asked in own or any(asked in call for call in calls)


def _listed(origins: Sequence[Origin]) -> str:
    """Operators with their counts, the most frequent first."""
    counts = Counter(origin.operator for origin in origins).most_common()
    shown = [f"{n} {op}" if n > 1 else op for op, n in counts]
    return ", ".join(shown if len(shown) <= 3 else [*shown[:2], f"{len(shown) - 2} more"])


def _reason(why: str, heirs: Collection[str]) -> str:
    shown = [*heirs][:2] + ([f"{len(heirs) - 2} more"] if len(heirs) > 2 else [])
    return f"{why}: {', '.join(shown)}" if shown else why


def _inherit(found: Sequence[NodeRef], origins: list[Origin]) -> list[Origin]:
    """Three passes over the nodes, so that the time is linear: consumers, producers, owners."""
    known = {origin.node: origin for origin in origins}
    if not any(origin.line for origin in origins):
        why = "the file has no torch metadata: made by another tool, or with dynamo=False"
        return [replace(origin, why=why) for origin in origins]
    quantized = _quantized(found, known)
    for whole in _scopes(found):
        made, used = producers(whole), _consumers(whole)
        scope = [ref for ref in whole if ref.name not in quantized]
        for ref in reversed(scope):
            names = (name for v in ref.outputs for name in used.get(v, ()))
            _take(known, ref, "consumer", names)
        for ref in scope:
            _take(known, ref, "producer", (made[v].name for v in ref.inputs if v in made))
    callers: dict[str, list[str]] = {}
    for ref in found:
        callers.setdefault(ref.node.op_type if ref.node.domain else "", []).append(ref.name)
    for ref in found:
        owners = callers.get(ref.function, []) if ref.function else filter(None, [ref.inside])
        _take(known, ref, "enclosing node", owners)
        _place(known, ref)
    lost = "no torch metadata on it, and no neighbour with a line"
    return [
        known[o.node]
        if known[o.node].line
        else replace(o, why=_QUANTIZED if o.node in quantized else lost)
        for o in origins
    ]


def _quantized(found: Sequence[NodeRef], known: Mapping[str, Origin]) -> set[str]:
    """The nodes that ONNX Runtime's quantizer put in place of others, which it names after them,
    and what it put behind these. They do the work of a line of their own, not of a neighbour's: it
    is lost, unless the file has notes of values, as those of export() have."""
    own = {
        s.name
        for s in found
        if any(n.key == exporter_metadata.STACK for n in s.node.metadata_props)
    }
    if any(known[ref.name].line and ref.name not in own for ref in found):
        return set()
    lost: set[str] = set()
    for scope in _scopes(found):
        values: set[str] = set()
        for ref in scope:
            behind = ref.name.endswith("_quant") or not values.isdisjoint(ref.inputs)
            if behind and not known[ref.name].line:
                lost.add(ref.name)
                values.update(ref.outputs)
    return lost


def _in_place_of(
    gone: Sequence[Folded],
    keys: Mapping[str, CallSite],
    found: Sequence[NodeRef],
    origins: Sequence[Origin],
) -> list[Origin]:
    """A node without metadata, between the same neighbours as an FX node without an ONNX node, is
    what the exporter put in its place: it takes that one's line."""
    heirs = {item: {keys[name] for name in item.into} for item in gone if not item.twin}
    before: dict[CallSite, list[Folded]] = {}
    for item, users in heirs.items():
        for key in users:
            before.setdefault(key, []).append(item)
    used, mine = _consumers(found), {origin.node: origin.key for origin in origins}

    def replaced(ref: NodeRef, origin: Origin) -> Origin:
        names = [name for value in ref.outputs for name in used.get(value, ())]
        users = {mine[name] for name in names if mine[name].trace}
        items = before.get(next(iter(users)), []) if users and not origin.key.trace else []
        fits = {item.key: item.fx for item in items if users <= heirs[item]}
        if len(fits) != 1:
            return origin
        (key, fx), line = next(iter(fits.items())), line_of(next(iter(fits)).trace)
        why = f"put in place of the FX node {fx}"
        rule = NEIGHBOUR if line else NONE
        near = {"stack": tuple(lines(key.trace)), "module": key.module, "key": key, "fx": fx}
        return replace(origin, line=line, rule=rule, why=why, **near)

    return [replaced(ref, origin) for ref, origin in zip(found, origins, strict=True)]


def _handed_on(artifact: Artifact, origins: list[Origin]) -> list[Origin]:
    """A node between an input and an output, which no operator made, has the line of the return."""
    file, graph = artifact.proto.graph, artifact.graph
    inputs, outputs = ({value.name for value in ends} for ends in (file.input, file.output))
    between = {n.name for n in file.node if inputs >= {*n.input} and outputs >= {*n.output}}
    source = method_lines(type(graph.model).forward) if graph and between else []
    line = next((one for one in reversed(source) if one.text.startswith("return")), None)
    why = "an input that is returned as it is"
    return [
        replace(origin, line=line, rule=NEIGHBOUR, why=why)
        if line and origin.line is None and origin.node in between
        else origin
        for origin in origins
    ]


def _take(known: dict[str, Origin], ref: NodeRef, way: str, neighbours: Iterable[str]) -> None:
    """The line of the first neighbour that has one, for a node that has none."""
    mine = known[ref.name]
    if mine.line:
        return
    for name in neighbours:
        if line := known[name].line:
            why, module = f"line of its {way} {name}", mine.module or known[name].module
            near = {"stack": known[name].stack, "rule": NEIGHBOUR, "why": why, "module": module}
            known[ref.name] = replace(mine, line=line, **near)
            return


def _place(known: dict[str, Origin], ref: NodeRef) -> None:
    """A node of a body whose metadata has no module stands in the module of the body's owner."""
    mine, owner = known[ref.name], known.get(ref.inside)
    if owner and owner.module and not mine.module:
        why = "; ".join(filter(None, (mine.why, f"module of its enclosing node {owner.node}")))
        known[ref.name] = replace(mine, module=owner.module, why=why)


def _scopes(found: Sequence[NodeRef]) -> list[list[NodeRef]]:
    """The nodes of the graph and of each function: values of one name in two are not the same."""
    scopes: dict[str, list[NodeRef]] = {}
    for ref in found:
        scopes.setdefault(ref.function, []).append(ref)
    return list(scopes.values())


def _consumers(found: Sequence[NodeRef]) -> dict[str, list[str]]:
    used: dict[str, list[str]] = {}
    for ref in found:
        for value in ref.inputs:
            used.setdefault(value, []).append(ref.name)
    return used


def _merged(
    origins: Sequence[Origin], gone: Sequence[Folded], keys: Mapping[str, CallSite]
) -> list[Origin]:
    """Origins with the lines that were merged into them at export."""
    more: dict[CallSite, dict[Line, None]] = {}
    for item in gone:
        line = line_of(item.key.trace)
        for heir in item.into:
            if line and not item.view:
                more.setdefault(keys[heir], {})[line] = None
    return [
        replace(o, also=tuple(line for line in more.get(o.key, ()) if line != o.line))
        for o in origins
    ]
