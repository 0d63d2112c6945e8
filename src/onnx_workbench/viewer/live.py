"""Widgets that leave a static picture behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
from ipywidgets import Box, Widget

from .stale_views import close_stale_views
from .still import show


class Live(anywidget.AnyWidget):
    """A widget that its cell shows with a picture, and that is closed when its cell runs again."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        close_stale_views(self)

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
