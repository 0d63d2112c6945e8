"""Three linked columns in a cell: source, FX and ONNX. A click in one marks rows in the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..source import NO_SOURCES, Line, Sources
from .annotated_source import stretches


@dataclass(frozen=True)
class Link:
    """One ONNX node, its FX node and a line; each may be empty. ``operator`` and ``module`` are
    shown beside the ONNX node."""

    line: Line | None
    fx: str
    node: str
    operator: str = ""
    module: str = ""


class Columns(anywidget.AnyWidget):
    """What a :class:`~onnx_workbench.lineage.table.Lineage` shows in a notebook.

    Traits:
        marked: the ONNX nodes marked by a click in the page, or by :meth:`choose`.
        chosen: the clicked column and row, counted from 0; empty at first.
    """

    _esm = Path(__file__).parent / "columns.js"
    _sheet: traitlets.Dict = traitlets.Dict().tag(sync=True)
    chosen: traitlets.List = traitlets.List(traitlets.Int()).tag(sync=True)
    marked: traitlets.List = traitlets.List(traitlets.Unicode())

    def __init__(self, links: Sequence[Link], report: str, sources: Sources = NO_SOURCES) -> None:
        self._report = report
        nodes = {link.node: link for link in links if link.node}
        lines = list(dict.fromkeys(link.line for link in links if link.line))
        fx = list(dict.fromkeys(link.fx for link in links if link.fx))
        self._nodes = list(nodes)
        rows = [{name: i for i, name in enumerate(names)} for names in (lines, fx, nodes)]
        self._links = [
            [row.get(name, -1) for row, name in zip(rows, (k.line, k.fx, k.node), strict=True)]
            for k in links
        ]
        # each row: its own number or -1, the text in the margin, the text
        source: list[list[Any]] = []
        for title, shown in stretches(lines, sources):
            source.append([-1, "", title])
            source += [[rows[0].get(line, -1), n or "", text] for n, text, line in shown]
        columns = [
            source,
            [[i, "", name] for i, name in enumerate(fx)],
            [
                [i, k.operator, f"{k.node}  {k.module}".strip()]
                for i, k in enumerate(nodes.values())
            ],
        ]
        super().__init__(_sheet={"columns": columns, "links": self._links})

    def choose(self, node: str) -> None:
        """Mark an ONNX node, its FX node and its line; an unknown name marks nothing."""
        self.chosen = [2, self._nodes.index(node)] if node in self._nodes else []

    @traitlets.observe("chosen")
    def _mark(self, change: object = None) -> None:
        column, row = self.chosen or (0, None)
        hits = [link[2] for link in self._links if link[column] == row and link[2] >= 0]
        self.marked = list(dict.fromkeys(self._nodes[hit] for hit in hits))

    def __repr__(self) -> str:
        return self._report
