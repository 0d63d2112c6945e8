"""The floors of a model that could not be exported, up to the line that stopped it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from ..errors import InputError, WorkbenchError
from ..exporter_metadata import call_site, operator_nodes
from ..formatting import Part, Report, Table, kind_of, plural
from ..source import Line, Sources
from .annotated_source import annotated
from .rows import Chain
from .widget import Shown

_NOTHING = "torch captured no part of this model."
_NOT_REACHED = "The model did not come this far."


@dataclass(frozen=True, repr=False, eq=False)
class Stopped(Shown, Report):
    """The answer of :func:`~onnx_workbench.trace` to an error of ``export`` or ``capture``.

    ``nodes`` has the FX nodes that there are, by name, with their lines, and ``way`` says how they
    were captured.
    """

    error: WorkbenchError
    graph: fx.Graph | None
    way: str

    @property
    def line(self) -> Line | None:
        """The line that stopped the model."""
        return self.error.line

    @cached_property
    def nodes(self) -> Mapping[str, Line | None]:
        found = operator_nodes(self.graph) if self.graph else ()
        return {node.name: call_site(node).line for node in found}

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The lines that made nodes, and the one that stopped."""
        return tuple(sorted({line for line in (*self.nodes.values(), self.line) if line}))

    @property
    def sources(self) -> Sources:
        return Sources(executed=frozenset(line.file for line in self.lines))

    @property
    def stop(self) -> WorkbenchError:
        return self.error

    @property
    def title(self) -> str:
        return self.error.message

    @property
    def chains(self) -> tuple[Chain, ...]:
        """The nodes with their lines, and the line that stopped the model."""
        made = (Chain(line, fx=name) for name, line in self.nodes.items())
        return (*made, Chain(self.line))

    @property
    def graphs(self) -> dict[str, fx.Graph | None]:
        return {"fx": self.graph}

    @property
    def notes(self) -> dict[str, str]:
        lower = dict.fromkeys(("decomposed", "onnx", "optimized", "kernel"), _NOT_REACHED)
        return {"fx": f"From {self.way}." if self.graph else _NOTHING, **lower}

    def _parts(self) -> Iterator[Part]:
        counts = Counter(line for line in self.nodes.values() if line)
        cells = {line: (str(counts[line]), "stops" * (line == self.line)) for line in self.lines}
        found = plural(len(self.nodes), "FX node")
        message = self.error.message.rstrip(".")
        yield f"{message}: {found} from {self.way}" if self.graph else _NOTHING
        if cells:
            yield annotated(cells, ("FX nodes", ""), {1}, self.sources)
        notes = [("why", self.error.reason), ("what helps", self.error.hint)]
        yield Table([note for note in notes if note[1]])


def stopped(error: WorkbenchError) -> Stopped:
    """The floors of the model that this error stopped.

    Raises:
        InputError: it is no error of export() or capture() about a model.
    """
    if error.partial_graph is None:
        raise InputError(
            f"trace() was given {kind_of(error)} that stopped no model.",
            "Pass an error that export() or capture() raised about a model.",
        )
    program, way = error.partial_graph()
    return Stopped(error, program.graph if program else None, way)
