"""How an answer of ``trace`` shows its floors: in a notebook, as a page, and as a picture."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import files
from ..errors import InputError, MissingPackageError, WorkbenchError
from ..formatting import seconds
from ..source import Line
from ..stack import needs
from ..viewer.still import show
from .page import document
from .picture import row_of, svg
from .sheet import KERNEL, ONNX, Sheet, sheet

if TYPE_CHECKING:
    from .floors import Floors


class Shown:
    """Mixin for a result of ``trace``: it has a ``title``, ``chains`` and their ``lines``,
    ``sources``, and of each floor the ``graphs`` and ``notes``; what else :mod:`.sheet` shows is
    empty unless the result has it."""

    _repr_html_: Any = None  # a page without a kernel shows the picture, not a table
    operations: Any = ()
    origins: Any = ()
    values: Any = MappingProxyType({})
    call: Any = None

    @property
    def lines(self) -> tuple[Line, ...]:
        raise NotImplementedError

    @property
    def stop(self) -> WorkbenchError | None:
        """The error that stopped the model."""
        return None

    def below(self, line: Line) -> Any:
        return ()

    @cached_property
    def sheet(self) -> Sheet:
        """The chains as the widget shows them: rows for each floor, and links between them."""
        return sheet(self)

    @property
    def floors(self) -> Floors:
        """The floors beside each other, as a widget; a new one if its cell has closed the last.

        Raises:
            MissingPackageError: anywidget is not installed.
        """
        with needs("The widget of trace()", "view"):
            from .floors import Floors

        last = self.__dict__.get("_floors")
        if last is None or last.comm is None:
            last = Floors(self.sheet, repr(self))
            self.__dict__["_floors"] = last  # of a frozen result
        return last

    def beside(self, view: Any) -> Any:
        """Show the floors above a view of the same model. A choice in one marks its nodes in the
        other. The panel of the view has each node's values and times.

        Args:
            view: what ``view(artifact)`` returned, or any widget with the traits ``marked``, a list
                of nodes, and ``selected``, the node that was clicked.
        """
        with needs("beside()", "view"):
            from ..viewer.live import Together

        if view.has_trait("facts"):
            view.facts = _facts(self.sheet)
        self.floors.observe(lambda change: setattr(view, "marked", change["new"]), "marked")
        view.observe(lambda change: self.floors.choose(change["new"]), "selected")
        return Together([self.floors, view], self, flex_flow="column")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file with the live widget: it needs no kernel, and asks no host.

        Raises:
            InputError: the path cannot be written.
        """
        goal = files.writable_page(path)
        return files.write(goal, document(self.sheet["title"], self.sheet))

    def svg(self, line: Line | int | str | None = None, times: bool = False) -> str:
        """The chain of one line as a picture, by default of the line that tells most.

        Args:
            line: a Line, its number, or its place such as ``"model.py:12"``.
            times: whether each kernel has its seconds; without, every run gives the same picture.

        Raises:
            InputError: no such line made a node.
        """
        if line is None:
            return svg(self.sheet, None, times)
        known = next((one for one in self.lines if line in (one, one.number, one.place)), None)
        if known is None:
            places = ", ".join(one.place for one in self.lines[:5])
            raise InputError(
                f"No node comes from the line {line!r}.", f"Pass one of .lines: {places}."
            )
        return svg(self.sheet, row_of(self.sheet, known), times)

    def _still(self) -> str:
        return self.svg()

    def _ipython_display_(self) -> None:
        """The widget and its picture; a terminal shows the text."""
        try:
            widget = self.floors
        except MissingPackageError:
            widget = None
        show(widget, repr(self), self._still())


def _facts(sheet: Any) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """The values and the times of each ONNX node, in words."""
    nodes, kernels = (sheet["floors"][floor]["rows"] for floor in (ONNX, KERNEL))
    values = {nodes[int(row)]["t"]: value["facts"] for row, value in sheet["values"].items()}
    runs = dict.fromkeys((link[ONNX], link[KERNEL]) for link in sheet["links"])
    times: dict[str, list[tuple[str, str]]] = {}
    for row, run in runs:
        if row >= 0 and run >= 0:
            words = [seconds(kernels[run].get("s", 0.0)), kernels[run].get("x", "")]
            fact = kernels[run]["t"], ", ".join(filter(None, words))
            times.setdefault(nodes[row]["t"], []).append(fact)
    return {"Values": values, "Times": times}
