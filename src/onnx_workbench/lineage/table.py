"""``Lineage``, the answer of ``trace``, and ``join``, which makes it without running the model."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx

from .. import files
from ..artifact import Artifact
from ..calls import whole
from ..errors import InputError
from ..formatting import Part, Report, Table, ToFrame, kind_of, plural
from ..proto import grouped, node_refs
from ..runs.summary import Summary
from ..source import NO_SOURCES, Line, Sources, called_lines
from .annotated_source import annotated
from .call import CallData
from .library import MOST, Group, groups, rows_below
from .operations import Operation
from .origins import METADATA, NEIGHBOR, NONE, Origin, origins_of
from .rows import Chain, chains, records
from .widget import Shown

_RULES = ((METADATA, "by their metadata"), (NEIGHBOR, "by a neighbor"), (NONE, "without a line"))


def join(
    artifact: Artifact,
    *,
    source: str | os.PathLike[str] | None = None,
    depth: int | None = None,
    caller: str = "trace",
) -> Lineage:
    """What :func:`~onnx_workbench.trace` does without a call.

    The line is the innermost one of the user's own code, else the innermost outside torch, else
    that of a torch module. The exporter writes it into the metadata of each node
    (``pkg.torch.onnx.stack_trace``). A node without metadata gets the line of the FX node that it
    replaces, else of a consumer, of a producer, or of the node whose body contains it; ``why`` says
    which. ``caller`` is the public function, for an error's message.

    Raises:
        InputError: ``artifact`` is no Artifact, ``source`` no folder, or ``depth`` no number.
    """
    if not isinstance(artifact, Artifact):
        raise InputError(
            f"{caller}() was given {kind_of(artifact)}, but it takes an Artifact.",
            "Make one with export(model, x, path), or load(path).",
        )
    if depth is not None:
        whole("depth", depth, least=0)
    sources = Sources.of(artifact, None if source is None else files.folder(source))
    return Lineage(artifact, *origins_of(artifact, node_refs(artifact.proto)), sources, depth)


@dataclass(frozen=True, repr=False, eq=False)
class Lineage(Shown, Report, ToFrame):
    """The result of :func:`~onnx_workbench.trace`.

    ``origins`` has every ONNX node in the order of the file, ``operations`` every FX node,
    ``absent`` those without an ONNX node, ``sources`` the files whose text is shown. Nodes are
    grouped by the library line ``depth`` calls below a user's line. ``call`` has what a call of the
    model showed.
    """

    artifact: Artifact
    origins: tuple[Origin, ...]
    operations: tuple[Operation, ...] = ()
    sources: Sources = NO_SOURCES
    depth: int | None = None
    call: CallData | None = None

    @property
    def absent(self) -> tuple[Operation, ...]:
        """The FX nodes without an ONNX node; their ``why`` has the reason."""
        return tuple(operation for operation in self.operations if operation.why)

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The one table: a row for each way from a line to a kernel."""
        return chains(self)

    def records(self) -> list[dict[str, Any]]:
        """The table as flat dicts: ``seconds`` a run, ``bytes`` and relative ``error`` of the value
        that the ONNX node makes. None is unknown."""
        return records(self)

    @cached_property
    def values(self) -> dict[str, dict[str, Summary]]:
        """ONNX node -> the values that it makes, by name; empty without a call."""
        known = self.call.values if self.call else {}
        return {
            ref.name: {name: known[name] for name in ref.outputs if name in known}
            for ref in node_refs(self.artifact.proto)
        }

    @property
    def title(self) -> str:
        return self.artifact.path.name

    @property
    def graphs(self) -> dict[str, fx.Graph | None]:
        captured, decomposed = self.artifact.graph, self.artifact.exported_program
        return {
            "fx": captured.program.graph if captured else None,
            "decomposed": decomposed.graph if decomposed else None,
        }

    @property
    def notes(self) -> dict[str, str]:
        loaded = "A loaded file has none: only the process that exported it has the program."
        upper = ("bytecode", "fx", "decomposed") if self.artifact.graph is None else ()
        lower = ("optimized", "kernel") if self.call is None else ()
        asks = "Known with a call: trace(onnx, args)."
        return dict.fromkeys(upper, loaded) | dict.fromkeys(lower, asks)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The lines that have nodes, in execution order."""
        return tuple(self._at)

    def of(self, node: str) -> Origin:
        """The origin of an ONNX node.

        Raises:
            InputError: there is no node of this name.
        """
        if node not in self._by_name:
            close = difflib.get_close_matches(str(node), self._by_name, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "The names are those of .origins."
            raise InputError(f"{self.artifact.path.name} has no node {node!r}.", hint)
        return self._by_name[node]

    def line_of(self, node: str) -> Line | None:
        """The line that made an ONNX node."""
        return self.of(node).line

    def at(self, line: Line | int | str) -> tuple[Origin, ...]:
        """The nodes of a line: a Line, its number, or its place: ``"model.py:12"``, or in a library
        that it calls, ``"torchvision/models/resnet.py:92"``."""

        def matches(origin: Origin) -> bool:
            users = origin.line
            called = any(line in (deeper, deeper.place) for deeper in called_lines(origin.stack))
            return called or (users is not None and line in (users, users.number, users.place))

        return tuple(filter(matches, self.origins))

    def below(self, line: Line) -> list[Group[Origin]]:
        """The nodes of a line, grouped by the library lines that it calls; empty if none."""
        return groups(self._at.get(line, ()), self.depth)

    @cached_property
    def silent(self) -> dict[Line, str]:
        """Lines that compute something in PyTorch and have no ONNX node, with the reason."""
        reasons: dict[Line, dict[str, dict[str, None]]] = {}
        for operation in self.absent:
            if operation.line and operation.line not in self._at:
                nodes = reasons.setdefault(operation.line, {}).setdefault(operation.why, {})
                nodes.update(dict.fromkeys(operation.nodes))
        return {
            line: "; ".join(_reason(why, [*nodes]) for why, nodes in whys.items())
            for line, whys in reasons.items()
        }

    @property
    def without(self) -> tuple[Origin, ...]:
        """The nodes without a line; their ``why`` has the reason."""
        return tuple(origin for origin in self.origins if origin.line is None)

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        yield from self._body()
        yield from self._notes()

    @cached_property
    def _by_name(self) -> dict[str, Origin]:
        return {origin.node: origin for origin in self.origins}

    @cached_property
    def _at(self) -> dict[Line, list[Origin]]:
        return grouped((origin.line, origin) for origin in self.origins if origin.line)

    def _headline(self) -> str:
        rules = Counter(origin.rule for origin in self.origins)
        parts = [f"{rules[rule]:,} {words}" for rule, words in _RULES if rules[rule]]
        return (
            f"{self.artifact.path.name}: {plural(len(self.origins), 'node')} from "
            f"{plural(len(self.lines), 'line')} ({', '.join(parts)})"
        )

    def _body(self) -> Iterator[Part]:
        header = ("nodes", *["kernels"] * bool(self.call), "operators")
        cells = {line: self._cells(origins) for line, origins in self._at.items()}
        cells |= dict.fromkeys(self.silent, ("0", *[""] * (len(header) - 1)))
        below = {line: self.below(line) for line in cells}
        inner = {
            line: rows_below([(self._cells(g.items), g) for g in library[:MOST]], len(library))
            for line, library in below.items()
        }
        if cells:
            yield annotated(cells, header, {len(header) - 1}, self.sources, inner)

    def _cells(self, origins: Sequence[Origin]) -> tuple[str, ...]:
        """How many nodes and kernels, and the operators, the most frequent first."""
        counts = Counter(origin.operator for origin in origins).most_common()
        shown = [f"{n} {op}" if n > 1 else op for op, n in counts]
        shown = shown if len(shown) <= 3 else [*shown[:2], f"{len(shown) - 2} more"]
        ran = self.call.by_node if self.call else {}
        kernels = {kernel for origin in origins for kernel in ran.get(origin.node, ())}
        return (str(len(origins)), *[str(len(kernels))] * bool(self.call), ", ".join(shown))

    def _notes(self) -> Iterator[Part]:
        rows = [(line.place, f"no node: {why}") for line, why in self.silent.items()]
        merges = ((line, o.node) for o in self.origins for line in o.also)
        rows += [(a.place, f"merged into {node}") for a, node in merges if a not in self.silent]
        reasons = Counter(origin.why for origin in self.without)
        rows += [(plural(count, "node"), f"no line: {why}") for why, count in reasons.items()]
        rows += [("metadata", self.artifact.cut)] if self.artifact.cut else []
        if rows:
            yield Table(rows)


def _reason(why: str, nodes: Sequence[str]) -> str:
    shown = [*nodes[:2], *([f"{len(nodes) - 2} more"] if len(nodes) > 2 else [])]
    return f"{why}: {', '.join(shown)}" if shown else why
