"""Widgets that leave a static picture behind.

A widget closes when its cell runs again, so that ten runs need as much memory as one: both
ipywidgets and IPython's ``Out`` keep every widget.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import anywidget
from ipywidgets import Box, Widget

from .still import show

_shown: dict[str, tuple[str, WeakSet[Widget]]] = {}


class Live(anywidget.AnyWidget):
    """A widget that its cell shows with a picture, and that is closed when its cell runs again."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        _close_stale(self)

    @property
    def model_id(self) -> str:
        """Kept by a closed widget, whose box may still name it. Without an id the kernel could not
        send the state of that box, and then a page that loads anew gets no widget at all."""
        return self._model_id if self.comm is None else self.comm.comm_id

    def _still(self) -> str:
        """The static picture, as SVG."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        show(self, repr(self), self._still())


def _close_stale(widget: Widget) -> None:
    """Close the widgets of earlier runs of the current cell, and register this one."""
    cell, run = _current_run()
    last, widgets = _shown.get(cell, (run, WeakSet()))
    if last != run:
        for old in list(widgets):
            old.close()
        widgets = WeakSet()
    if cell:
        widgets.add(widget)
        _shown[cell] = run, widgets


def _current_run() -> tuple[str, str]:
    """JupyterLab's ids of the current cell and of this run; "" if there is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    message: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    cell = message.get("metadata", {}).get("cellId", "")
    return str(cell), str(message.get("header", {}).get("msg_id", ""))


class Together(Box):
    """Widgets in one box. It closes when one of them does, since no page can load the box then.

    Its cell shows it with the text and the picture of ``result``.
    """

    def __init__(self, parts: Sequence[Widget], result: Any, **layout: str) -> None:
        super().__init__(parts, layout=layout)
        self._result = result
        for part in parts:
            part.observe(lambda change: self.close(), "comm")

    def _ipython_display_(self) -> None:
        show(self, repr(self._result), self._result._still())
