"""The floors of a model in a cell or a page: what a choice on one lights up on all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import traitlets

from ..viewer.live import Live
from .page import SCRIPT
from .picture import svg
from .sheet import ONNX


class Floors(Live):
    """Seven lists side by side: source, bytecode, FX, decomposed, ONNX, optimized, kernel.

    Args:
        sheet: as :mod:`.sheet` describes it.
        words: the text for a place that shows no widget.

    Traits:
        chosen: the number of a floor and of its row, of several rows where they are folded into
            one; empty at first.
        marked: the ONNX nodes that a choice in the page, or :meth:`choose`, lights.
    """

    _esm = SCRIPT
    _sheet: traitlets.Dict = traitlets.Dict().tag(sync=True)
    chosen: traitlets.List = traitlets.List(traitlets.Int()).tag(sync=True)
    marked: traitlets.List = traitlets.List(traitlets.Unicode())

    def __init__(self, sheet: Mapping[str, Any], words: str = "") -> None:
        self._nodes = [row["t"] for row in sheet["floors"][ONNX]["rows"]]
        self._words = words
        super().__init__(_sheet=dict(sheet))

    def choose(self, node: str) -> None:
        """Light the chain of an ONNX node; another name lights nothing."""
        self.chosen = [ONNX, self._nodes.index(node)] if node in self._nodes else []

    @traitlets.observe("chosen")
    def _mark(self, change: object = None) -> None:
        floor, *rows = self.chosen or [0]
        lit = {link[ONNX] for link in self._sheet["links"] if link[floor] in rows}
        lit |= set(rows) if floor == ONNX else set()
        self.marked = [name for row, name in enumerate(self._nodes) if row in lit]

    def _still(self) -> str:
        return svg(self._sheet)

    def __repr__(self) -> str:
        return self._words
