"""Close the views of earlier runs of a cell, so that ten runs need as much memory as one.

Both ipywidgets and IPython's ``Out`` keep every widget.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from ipywidgets import Widget

_shown: dict[str, tuple[str, WeakSet[Widget]]] = {}


def close_stale_views(widget: Widget) -> None:
    """Close the widgets of earlier runs of the current cell, and register this one."""
    cell, run = _running()
    if not cell:
        return
    last, widgets = _shown.get(cell, (run, WeakSet()))
    if last != run:
        for old in list(widgets):
            old.close()
        widgets = WeakSet()
    widgets.add(widget)
    _shown[cell] = run, widgets


def _running() -> tuple[str, str]:
    """JupyterLab's ids of the current cell and of this run; "" if there is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    message: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    cell = message.get("metadata", {}).get("cellId", "")
    return str(cell), str(message.get("header", {}).get("msg_id", ""))
