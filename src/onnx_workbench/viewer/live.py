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
        """A closed widget keeps it: a box may still name it, and a kernel that fails to tell the
        state of one widget tells a page that loads anew of none."""
        return self._model_id if self.comm is None else self.comm.comm_id

    def _still(self) -> str:
        """The static picture, as SVG."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        show(self, repr(self), self._still())


class Together(Box):
    """Widgets in one box, which closes when one of them does: a page cannot load it without.

    Its cell shows it with the text and the picture of ``result``.
    """

    def __init__(self, parts: Sequence[Widget], result: Any, **layout: str) -> None:
        super().__init__(parts, layout=layout)
        self._result = result
        for part in parts:
            part.observe(lambda change: self.close(), "comm")

    def _ipython_display_(self) -> None:
        show(self, repr(self._result), self._result._still())
