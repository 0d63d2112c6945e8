"""Three linked columns in a cell: source, FX and ONNX; a choice in one marks the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..source import NOTHING_MORE, Line, Sources
from .annotated_source import stretches

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Link:
    """One ONNX node, the FX node that it was made from and a line of it; what is not there is
    empty. ``operator`` and ``module`` are shown beside the ONNX node."""

    line: Line | None
    fx: str
    node: str
    operator: str = ""
    module: str = ""


class Columns(anywidget.AnyWidget):
    """What :meth:`onnx_workbench.lines.lineage.Lineage._repr_mimebundle_` shows.

    Traits:
        marked: the ONNX nodes that a choice in the page, or :meth:`choose`, marks.
        chosen: what was chosen: the number of the column, from 0, and of its row; empty at first.
    """

    _esm = _HERE / "columns.js"
    _sheet: traitlets.Dict = traitlets.Dict().tag(sync=True)
    chosen: traitlets.List = traitlets.List(traitlets.Int()).tag(sync=True)
    marked: traitlets.List = traitlets.List(traitlets.Unicode())

    def __init__(self, links: Sequence[Link], report: str, sources: Sources = NOTHING_MORE) -> None:
        self._report, self._sources = report, sources
        self._lines = list(dict.fromkeys(link.line for link in links if link.line))
        self._fx = list(dict.fromkeys(link.fx for link in links if link.fx))
        self._nodes = {link.node: link for link in links if link.node}
        keys = [{name: i for i, name in enumerate(names)} for names in self._names]
        self._links = [
            [
                key.get(part, -1)
                for key, part in zip(keys, (link.line, link.fx, link.node), strict=True)
            ]
            for link in links
        ]
        super().__init__(_sheet={"columns": self._columns(), "links": self._links})

    def choose(self, node: str) -> None:
        """Marks an ONNX node, its FX node and its line; another name marks nothing."""
        names = list(self._nodes)
        self.chosen = [2, names.index(node)] if node in self._nodes else []

    @property
    def _names(self) -> tuple[Iterable[Any], ...]:
        return self._lines, self._fx, self._nodes

    def _columns(self) -> list[list[list[Any]]]:
        """The rows of each column: its own number or -1, what stands in the margin, the text."""
        index = {line: i for i, line in enumerate(self._lines)}
        source: list[list[Any]] = []
        for title, shown in stretches(self._lines, self._sources):
            source.append([-1, "", title])
            source += [
                [index[line] if line else -1, number or "", text] for number, text, line in shown
            ]
        nodes = enumerate(self._nodes.values())
        return [
            source,
            [[i, "", name] for i, name in enumerate(self._fx)],
            [[i, link.operator, f"{link.node}  {link.module}".strip()] for i, link in nodes],
        ]

    @traitlets.observe("chosen")
    def _mark(self, change: object = None) -> None:
        names = list(self._nodes)
        hits = [
            link for link in self._links if self.chosen and link[self.chosen[0]] == self.chosen[1]
        ]
        self.marked = list(dict.fromkeys(names[link[2]] for link in hits if link[2] >= 0))

    def __repr__(self) -> str:
        return self._report
